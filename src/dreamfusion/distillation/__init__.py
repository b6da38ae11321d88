"""Rules that turn (picture, prior, words, t, noise) into a direction for the picture. One file a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .rule_settings import DistillationSettings
from ..errors import UserError, nearest
from ..priors.prior import Condition, Prior
from ..priors.mixture import Mixture
from . import ancestral, clip_rule as clip, reconstruction, sds


@dataclass(frozen=True)
class Direction:
    """gradient (B, 3, H, W): what to put into ``picture.backward(gradient)``; metrics: figures worth a log line."""

    gradient: Tensor
    metrics: dict[str, float]


# The second is a Prior, or a Scorer for ``clip``; ``check_rule`` sees to it.
Rule = Callable[[Tensor, Any, Condition, Tensor, Tensor, DistillationSettings], tuple[Tensor, dict[str, float]]]
RULES: dict[str, Rule] = {
    "sds": sds.direction,
    "reconstruction": reconstruction.direction,
    "ancestral": ancestral.direction,
    "clip": clip.direction,
}


def check_rule(kind: str, prior: Prior | Mixture) -> None:
    """UserError where there is no such rule, with the nearest name, or where the prior cannot answer its question."""
    if kind not in RULES:
        raise UserError(f"unknown distillation {kind!r}{nearest(kind, RULES)}")
    for part in [p for _, p in prior.terms] if isinstance(prior, Mixture) else [prior]:
        scores = hasattr(part, "similarity")
        if scores and kind != "clip":
            raise UserError(
                f"the prior {part.id!r} scores pictures and predicts no noise: it needs distillation.kind=clip"
            )
        if kind == "clip" and not scores:
            raise UserError(
                f"distillation.kind=clip needs a prior that scores pictures (--prior guide), not {part.id!r}"
            )


def kept_graphs(settings: DistillationSettings) -> int:
    """How many of the prior's answers a rule back-propagates through, and so keeps all activations of; sds: none."""
    return (2 if settings.perp_neg else 1) if settings.kind == "reconstruction" else 0


def direction(
    picture: Tensor,
    prior: Prior | Mixture,
    condition: Condition,
    t: Tensor,
    noise: Tensor,
    settings: DistillationSettings,
) -> Direction:
    """Ask the settings' rule which way the pictures (B, 3, H, W) in [0, 1] should move.

    t (B,) in [0, 1]; noise has the shape ``prior.noise_shape(B)``. UserError for an unknown rule, or one that does not
    suit the prior. A mixture's parts are asked one by one, each in its own space, and their directions are added in the
    space of pictures.
    """
    check_rule(settings.kind, prior)
    if isinstance(prior, Mixture):
        answers = [
            (share, direction(picture, part, words, t, own, settings))
            for share, part, words, own in prior.split(condition, noise)
        ]
        metrics = {name: sum(share * a.metrics[name] for share, a in answers) for name in answers[0][1].metrics}
        return Direction(sum((share * a.gradient for share, a in answers), torch.zeros_like(picture)), metrics)
    gradient, metrics = RULES[settings.kind](picture, prior, condition, t, noise, settings)
    return Direction(gradient, metrics)
