"""A CLIP's loss: the cosine similarity of picture and caption, climbed through the picture tower."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.prior import Scorer
from ..priors.question import Question
from .rule import Direction, Rule
from .warps import NUMBERS, moved_corners, warped


@dataclass(frozen=True)
class ClipRule(Rule):
    """Gradient of -similarity (Jain et al. 2022, Dream Fields, eq. 4), one loss a picture; no noise, no t.

    With ``warps`` above 0 it is the mean similarity of so many copies of the picture, each in a random perspective of this
    ``strength`` (Lee & Chang 2022, section 3.3). The noise holds the perspectives' random numbers.
    """

    scorer: Scorer
    warps: int = 0
    strength: float = 0.6

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, self.warps, NUMBERS) if self.warps else (count, 0)

    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        with torch.enable_grad():
            picture = picture.detach().requires_grad_()
            similarity = self.similarity(picture, question, noise)
            (gradient,) = torch.autograd.grad(-similarity.sum(), picture)
        return Direction(gradient, {"similarity": similarity.detach().mean()})

    def similarity(self, picture: Tensor, question: Question, noise: Tensor) -> Tensor:
        """What is climbed, (B,), for pictures (B, 3, H, W)."""
        if not self.warps:
            return self.scorer.similarity(picture, question)
        copies = (warped(picture, moved_corners(noise[:, k], self.strength)) for k in range(self.warps))
        return torch.stack([self.scorer.similarity(copy, question) for copy in copies]).mean(0)
