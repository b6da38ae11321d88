"""Plain sampling, lifted view by view: the prior draws each view on its own, and the scene is fitted to the drawings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..priors.question import Question
from ..priors.sampler import ddim
from .rule import Direction, mean_over_pixels
from .rule_settings import AncestralSettings
from .sds import SDS


@dataclass(frozen=True)
class Ancestral(SDS):
    """Gradient of 1/2 |encode(picture) - sample|^2, a mean over pixels; ``t`` plays no part.

    Cost: ``sample_steps`` questions to the prior in each step, where score distillation has one. With ``repeat_views`` only
    that many steps ask, and later steps ask nothing. The samples agree with their words and cameras, but not
    with each other: the scene becomes their mean.
    """

    settings: AncestralSettings
    drawn: dict[str, Tensor] = field(default_factory=dict)
    """Samples by their starting noise. The sampler has no randomness of its own, so a remembered sample is equal to a new
    one, and a resumed run that has lost them continues as if it had not stopped."""

    def turn(self, step: int) -> int:
        return step % (self.settings.repeat_views or step + 1)

    def draw(self, question: Question, noise: Tensor) -> Tensor:
        """Samples in the prior's space that grow out of ``noise``: DDIM (Song et al. 2021, eta = 0), guided."""
        return ddim(
            lambda z, t: self.guided(z, t, question)[0],
            self.prior.alpha_sigma, noise, self.settings.sample_steps,
        )  # fmt: skip

    def draw_once(self, question: Question, noise: Tensor) -> Tensor:
        """The same samples; remembered if the views are repeated, with their noise."""
        if not self.settings.repeat_views:
            return self.draw(question, noise)
        key = key_of(noise)
        if key not in self.drawn:
            while len(self.drawn) >= self.settings.repeat_views:
                self.drawn.pop(next(iter(self.drawn)))
            self.drawn[key] = self.draw(question, noise)
        return self.drawn[key]

    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        with torch.enable_grad():
            picture = picture.detach().requires_grad_()
            z = self.prior.encode(picture)
        residual = z.detach() - self.draw_once(question, noise)
        (gradient,) = torch.autograd.grad(z, picture, residual)
        return Direction(mean_over_pixels(gradient), {"residual_norm": residual.square().mean().sqrt()})


def key_of(noise: Tensor) -> str:
    """A name for this noise, by which what belongs to it is remembered."""
    return hashlib.sha256(noise.detach().cpu().float().numpy().tobytes()).hexdigest()
