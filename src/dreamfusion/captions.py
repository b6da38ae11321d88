"""A run's words: the prompt from every side, negative prompts and Perp-Neg, embedded once before the run."""

from __future__ import annotations

import torch
from torch import Tensor

from .settings.config import Config
from .errors import UserError
from .priors.prior import Condition, Prior
from .priors.mixture import Mixture
from .view.cameras import Cameras
from .view.perp_neg import Between, between
from .view.view_words import VIEWS, view_words, with_clay, with_view


class Captions:
    """The run's captions (sides x plain or clay, and the negative prompt), embedded once."""

    def __init__(self, prior: Prior | Mixture, config: Config):
        """UserError where Perp-Neg is asked for without words for the views."""
        self.config = config
        if config.distillation.perp_neg and not config.view.words:
            raise UserError("distillation.perp_neg moves between the words for the views; it needs view.words")
        sides = VIEWS if config.view.words else ("",)
        self.places: dict[tuple[str, bool], int] = {}
        texts: list[str] = []
        for clay in (False, True):
            for side in sides:
                words = with_clay(config.prompt) if clay and config.shading.textureless_words else config.prompt
                self.places[side, clay] = len(texts)
                texts.append(with_view(words, side) if side else words)
        negative = config.distillation.negative_prompt.strip()
        # All in one call: the embeddings then have one length, and the text encoder is loaded once.
        self.embedded = prior.embed([*texts, negative] if negative else texts)
        self.negative = len(texts) if negative else None

    def _rows(self, rows: list[int]) -> Condition:
        return self.embedded.rows(torch.tensor(rows, device=self.embedded.tokens.device))

    def condition(self, cameras: Cameras, textureless: bool) -> Condition:
        """The caption of each camera's view, and the camera itself if the prior is to be told."""
        azimuths, elevations = cameras.azimuth.rad2deg().tolist(), cameras.elevation.rad2deg().tolist()
        view, distillation = self.config.view, self.config.distillation
        repelled: tuple[tuple[Condition, Tensor], ...] = ()
        if distillation.perp_neg:
            words, repelled = self._perp_neg(azimuths, elevations, textureless)
        else:
            sides = [view_words(a, e, view) if view.words else "" for a, e in zip(azimuths, elevations, strict=True)]
            words = self._rows([self.places[side, textureless] for side in sides])
        nothing = None if self.negative is None else self._rows([self.negative] * len(azimuths))
        if nothing is not None or repelled:
            words = words.against(nothing, repelled)
        return words.with_camera(cameras.condition().to(self.embedded.tokens) if self.config.prior.camera else None)

    def _perp_neg(
        self, azimuths: list[float], elevations: list[float], clay: bool
    ) -> tuple[Condition, tuple[tuple[Condition, Tensor], ...]]:
        """Blended words, and the front's and side's captions with the weights they repel with; none seen from above."""
        above = Between("overhead", "overhead", 0.0, 0.0, 0.0)
        places = [
            above if view_words(azimuth, elevation, self.config.view) == "overhead" else between(azimuth)
            for azimuth, elevation in zip(azimuths, elevations, strict=True)
        ]

        def rows(names: list[str]) -> Condition:
            return self._rows([self.places[name, clay] for name in names])

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=self.embedded.tokens.device)

        words = rows([p.first for p in places]).blended(
            rows([p.second for p in places]), column([p.share for p in places])
        )
        front, side = (rows([name] * len(places)) for name in ("front", "side"))
        return words, ((front, column([p.front for p in places])), (side, column([p.side for p in places])))
