"""Single-step denoising error, back-propagated through the prior. Score distillation is cheaper and better."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..priors.prior import levels
from ..priors.question import Question
from .rule import Direction, mean_over_pixels
from .sds import SDS, weight


class Reconstruction(SDS):
    """Gradient of 1/2 w(t) |e_hat(z_t) - e|^2 (Poole et al. 2022, eq. 1), a mean over pixels.

    As |z - x_hat|^2 = (sigma / alpha)^2 |e_hat - e|^2, it is the error of the picture denoised in one step, weighted so
    that it stays finite at all noise levels. Against SDS it differs by the Jacobian of the network alone (eq. 2), which
    costs a backward pass through the prior.
    """

    graphs: ClassVar[int] = 1

    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        with torch.enable_grad():
            picture = picture.detach().requires_grad_()
            z = self.prior.encode(picture)
            alpha, sigma = levels(self.prior, t, z)
            z_t = alpha * z + sigma * noise
            predicted, figures = self.guided(z_t, t, question)
            residual = predicted - noise
            loss = 0.5 * (weight(self.settings.weight, alpha, sigma) * residual.square()).sum()
            (gradient,) = torch.autograd.grad(loss, picture)
        figures |= {"residual_norm": residual.detach().square().mean().sqrt(), "t": t.mean()}
        return Direction(mean_over_pixels(gradient), figures)
