"""Rules that turn (picture, prior, words, t, noise) into a direction for the picture. One file a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..config import DistillationSettings
from ..errors import UserError, nearest
from ..priors.base import Condition, Prior
from . import sds


@dataclass(frozen=True)
class Direction:
    """gradient (B, 3, H, W): what to put into ``picture.backward(gradient)``; metrics: figures worth a log line."""

    gradient: Tensor
    metrics: dict[str, float]


Rule = Callable[[Tensor, Prior, Condition, Tensor, Tensor, DistillationSettings], tuple[Tensor, dict[str, float]]]
RULES: dict[str, Rule] = {"sds": sds.direction}


def direction(picture: Tensor, prior: Prior, condition: Condition, t: Tensor, noise: Tensor, settings: DistillationSettings) -> Direction:
    """Ask the settings' rule which way the pictures (B, 3, H, W) in [0, 1] should move.

    t (B,) in [0, 1]; noise has the shape of ``prior.encode(picture)``. UserError for an unknown rule.
    """
    if settings.kind not in RULES:
        raise UserError(f"unknown distillation {settings.kind!r}{nearest(settings.kind, RULES)}")
    gradient, metrics = RULES[settings.kind](picture, prior, condition, t, noise, settings)
    return Direction(gradient, metrics)
