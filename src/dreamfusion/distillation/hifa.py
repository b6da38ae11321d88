"""HiFA (Zhu et al. 2023, arXiv:2305.18766): several denoising steps, compared in the prior's space and in the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..priors.prior import broadcast, levels
from ..priors.question import Question
from ..priors.sampler import follow
from ..schema import scheduled
from .clipping import clip_score
from .rule import Direction, mean_over_pixels
from .rule_settings import HifaSettings
from .sds import SDS, weight


@dataclass(frozen=True)
class HiFA(SDS):
    """w(t) alpha / sigma times the gradient of 1/2 |z - z'|^2 + l/2 |x - x'|^2, eq. 9, both means over pixels.

    z' is what the guided prior makes of z_t in ``sample_steps`` DDIM steps; x' is its picture. With one step and l = 0 it is
    SDS, since z - z' = sigma / alpha (e_hat - e). Several steps give a sharper target than the one-step mean.
    """

    settings: HifaSettings

    def target(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> Tensor:
        """z', shaped as z."""
        share = torch.linspace(1, 0, self.settings.sample_steps + 1, device=t.device)[:, None]
        return follow(
            lambda x, now: self.guided(x, now, question)[0], self.prior.alpha_sigma, self.noised(z, t, noise), share * t
        )

    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        with torch.enable_grad():
            picture = picture.detach().requires_grad_()
            z = self.prior.encode(picture)
        with torch.no_grad():
            alpha, sigma = levels(self.prior, t, z)
            factor = weight(self.settings.weight, alpha, sigma) * alpha / sigma.clamp_min(1e-4)
            drawn = self.target(z.detach(), question, t, noise)
            residual = factor * (z.detach() - drawn)
            residual = clip_score(residual, scheduled(self.settings.clip_score, self.progress))
        (gradient,) = torch.autograd.grad(z, picture, residual)
        gradient = mean_over_pixels(gradient)
        share = scheduled(self.settings.image_weight, self.progress)
        if share and picture.shape[1] == 3:  # rendered latents are no pictures
            gradient = gradient + share * self._in_pictures(picture.detach(), drawn, factor.flatten(1).mean(1))
        return Direction(gradient, {"residual_norm": residual.square().mean().sqrt(), "t": t.mean()})

    def _in_pictures(self, picture: Tensor, drawn: Tensor, factor: Tensor) -> Tensor:
        """The gradient of factor / 2 |x - x'|^2, a mean over the pixels of the prior's picture x'."""
        with torch.no_grad():
            wanted = self.prior.decode(drawn).clamp(0, 1)
        with torch.enable_grad():
            picture = picture.requires_grad_()
            shown = interpolate(picture, wanted.shape[-2:], mode="bilinear", antialias=True)
        pull = broadcast(factor, wanted) * mean_over_pixels(shown.detach() - wanted)
        return torch.autograd.grad(shown, picture, pull)[0]
