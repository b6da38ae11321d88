"""A CLIP's loss: the cosine similarity of picture and caption, climbed through the picture tower."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.prior import Scorer
from ..priors.question import Question
from .rule import Direction, Rule


@dataclass(frozen=True)
class ClipRule(Rule):
    """Gradient of -similarity (Jain et al. 2022, Dream Fields, eq. 4), one loss a picture; no noise, no t."""

    scorer: Scorer

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 0)

    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        with torch.enable_grad():
            picture = picture.detach().requires_grad_()
            similarity = self.scorer.similarity(picture, question)
            (gradient,) = torch.autograd.grad(-similarity.sum(), picture)
        return Direction(gradient, {"similarity": similarity.detach().mean()})
