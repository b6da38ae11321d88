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
    """Samples by what they were drawn for (``name_of``), the oldest first. They are a part of the state: where the guidance is a
    schedule, a sample that is drawn again later differs."""

    def turn(self, step: int) -> int:
        return step % (self.settings.repeat_views or step + 1)

    def draw(self, question: Question, noise: Tensor) -> Tensor:
        """Samples in the prior's space that grow out of ``noise``: DDIM (Song et al. 2021, eta = 0), guided."""
        return ddim(
            lambda z, t: self.guided(z, t, question)[0],
            self.prior.alpha_sigma, noise, self.settings.sample_steps,
        )  # fmt: skip

    def draw_once(self, question: Question, noise: Tensor) -> Tensor:
        """The same samples; remembered if the views are repeated."""
        if not self.settings.repeat_views:
            return self.draw(question, noise)
        key = self.name_of(question, noise)
        if key not in self.drawn:
            while len(self.drawn) >= self.settings.repeat_views:
                self.drawn.pop(next(iter(self.drawn)))
            self.drawn[key] = self.draw(question, noise)
        return self.drawn[key]

    def name_of(self, question: Question, noise: Tensor) -> str:
        """A name for samples. The noise comes again with each round of views, but its shading may be another by then, and its
        camera and the rule's settings may have been changed by hand."""
        seen_from = question.view.cameras
        cameras = torch.stack([seen_from.azimuth, seen_from.elevation, seen_from.radius, seen_from.fov])
        what = f"{key_of(noise)} {key_of(cameras)} {question.view.shading} {self.settings!r}"
        return hashlib.sha256(what.encode()).hexdigest()

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{k:06d}-{key}": sample for k, (key, sample) in enumerate(self.drawn.items())}  # files keep no order

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.drawn.clear()
        for name in sorted(tensors):
            self.drawn[name.partition("-")[2]] = tensors[name].to(self.prior.device)

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
