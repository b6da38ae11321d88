"""A run's words: the prompt from every side, negative prompts and Perp-Neg, embedded once before the run."""

from __future__ import annotations

import torch
from torch import Tensor

from .distillation.rule_settings import GuidedSettings
from .errors import UserError
from .priors.prior import Frozen
from .priors.question import Question, Words
from .reference import read_reference
from .settings.config import Config
from .view.perp_neg import Between, between
from .view.view import View
from .view.view_words import VIEWS, view_words, with_clay, with_view

ABOVE = Between("overhead", "overhead", 0.0, 0.0, 0.0)


class Captions:
    """The run's captions (sides x plain or clay, and the negative prompt), embedded once."""

    def __init__(self, prior: Frozen, config: Config):
        """UserError if Perp-Neg is on and the views have no words."""
        self.config = config
        rule = config.distillation
        self.perp_neg = isinstance(rule, GuidedSettings) and rule.perp_neg
        if self.perp_neg and not config.view.words:
            raise UserError("distillation.perp_neg moves between the words for the views; it needs view.words")
        sides = VIEWS if config.view.words else ("",)
        self.places: dict[tuple[str, bool], int] = {}
        texts: list[str] = []
        for clay in (False, True):
            for side in sides:
                words = with_clay(config.prompt) if clay and config.shading.textureless_words else config.prompt
                self.places[side, clay] = len(texts)
                texts.append(with_view(words, side) if side else words)
        negative = rule.negative_prompt.strip() if isinstance(rule, GuidedSettings) else ""
        self.about_prompt = "{prompt}" in negative  # then there is one for every caption
        negatives = [negative.replace("{prompt}", text) for text in (texts if self.about_prompt else texts[:1])]
        negatives = negatives if negative else []
        self.negative: Words | None = None
        if config.prior.image:  # the picture is of what is asked, not of what is to be avoided
            self.embedded = prior.embed(texts, [read_reference(config.prior.image)])
            self.negative = prior.embed(negatives) if negatives else None
        else:
            # All in one call: the embeddings then have one length, and the text encoder is loaded once.
            self.embedded = prior.embed([*texts, *negatives])
            if negatives:
                self.negative = self.embedded.rows(list(range(len(texts), len(texts) + len(negatives))))

    def ask(self, view: View) -> Question:
        """The question about a view: the caption of each look's side, and what the settings let the prior know of the view."""
        azimuths, elevations = (x.rad2deg().tolist() for x in (view.cameras.azimuth, view.cameras.elevation))
        clay, settings = view.shading == "textureless", self.config.view
        sides = [
            view_words(a, e, settings) if settings.words else "" for a, e in zip(azimuths, elevations, strict=True)
        ]
        repelled: tuple[tuple[Words, Tensor], ...] = ()
        if self.perp_neg:
            words, repelled = self._perp_neg(azimuths, elevations, clay)
        else:
            words = self._rows(sides, clay)
        return Question(words, view, self.config.prior.asks, self._nothing(sides, clay), repelled)

    def _rows(self, sides: list[str], clay: bool) -> Words:
        return self.embedded.rows([self.places[side, clay] for side in sides])

    def _nothing(self, sides: list[str], clay: bool) -> Words | None:
        """The negative prompt for each look; one that speaks of the prompt has its words for the side."""
        if self.negative is None:
            return None
        return self.negative.rows([self.places[s, clay] * self.about_prompt for s in sides])

    def _perp_neg(
        self, azimuths: list[float], elevations: list[float], clay: bool
    ) -> tuple[Words, tuple[tuple[Words, Tensor], ...]]:
        """Blended words, and the captions of front and side with their repelling weights, which are zero for views from above."""
        places = [
            ABOVE if view_words(azimuth, elevation, self.config.view) == "overhead" else between(azimuth)
            for azimuth, elevation in zip(azimuths, elevations, strict=True)
        ]
        first, second = (self._rows([getattr(p, name) for p in places], clay) for name in ("first", "second"))
        words = first.blend(second, torch.tensor([p.share for p in places]))
        front, side = (self._rows([name] * len(places), clay) for name in ("front", "side"))
        weights = torch.tensor([[p.front, p.side] for p in places])
        return words, ((front, weights[:, 0]), (side, weights[:, 1]))
