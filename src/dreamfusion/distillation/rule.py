"""What every rule is: it says which way pictures should move, and it may learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..priors.question import Question
from .glimpse import Glimpse

Figures = dict[str, Tensor]
"""Figures of a step by name, each a number (a tensor without dimensions, so that nothing waits for a GPU)."""


@dataclass(frozen=True)
class Direction:
    """gradient (B, C, H, W): of each picture's own loss, to be put into ``picture.backward``. The loop takes the mean over
    pictures and nothing else, so a loss that is a mean over pixels is divided by their number here."""

    gradient: Tensor
    figures: Figures = field(default_factory=dict)


class Rule(ABC):
    """Turns (pictures, question, t, noise) into a direction. It knows its prior, but not what drew the pictures.

    A rule with a network of its own trains it in ``learn`` and gives all its state in ``state_dict``.
    """

    graphs: ClassVar[int] = 0
    """How many of the prior's answers the rule back-propagates through; all their activations are kept."""

    @abstractmethod
    def noise_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the noise that ``direction`` wants for ``count`` pictures."""

    @abstractmethod
    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        """Which way the pictures (B, C, H, W) in [0, 1] should move; t (B,) in [0, 1]."""

    def at(self, progress: float) -> Rule:
        """This rule at ``progress`` in [0, 1] of its stage, for rules with schedules. What it learns stays shared."""
        return self

    def glimpse(self) -> Glimpse | None:
        """What the prior was asked last by ``direction``, and its answer; None if this rule did not ask for noise."""
        return None

    def learn(self, picture: Tensor, question: Question, rng: torch.Generator) -> Figures:
        """Train what the rule itself learns on the pictures (B, C, H, W) of this step."""
        return {}

    def turn(self, step: int) -> int:
        """The step whose random numbers step ``step`` takes: itself, or an earlier step that is repeated."""
        return step

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that ``learn`` has changed, by name, for checkpoints."""
        return {}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``state_dict``."""
        if tensors:
            raise ValueError(f"{type(self).__name__} learns nothing, but the checkpoint has {sorted(tensors)[0]}")


def mean_over_pixels(gradient: Tensor) -> Tensor:
    """The gradient of a mean over pixels, of the gradient (B, C, H, W) of the sum over them."""
    return gradient / (gradient.shape[-2] * gradient.shape[-1])
