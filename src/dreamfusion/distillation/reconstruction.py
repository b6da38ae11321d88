"""Single-step denoising error, back-propagated through the prior: what score distillation is cheaper and better than."""

from __future__ import annotations

import torch
from torch import Tensor

from .rule_settings import DistillationSettings
from ..priors.prior import Condition, Prior, broadcast
from .sds import predict_guided, weight


def direction(
    picture: Tensor, prior: Prior, condition: Condition, t: Tensor, noise: Tensor, settings: DistillationSettings
) -> tuple[Tensor, dict[str, float]]:
    """Gradient of 1/2 w(t) |e_hat(z_t) - e|^2 (Poole et al. 2022, eq. 1) for pictures (B, 3, H, W) in [0, 1].

    As |z - x_hat|^2 = (sigma / alpha)^2 |e_hat - e|^2, it is the error of the picture denoised in one step, weighted so
    that it stays finite at all noise levels. Against SDS it differs by the Jacobian of the network alone (eq. 2), which
    costs a backward pass through the prior. See ``distillation.direction`` for the other shapes.
    """
    with torch.enable_grad():
        picture = picture.detach().requires_grad_()
        z = prior.encode(picture)
        alpha, sigma = prior.alpha_sigma(t)
        z_t = broadcast(alpha, z) * z + broadcast(sigma, z) * noise
        predicted, metrics = predict_guided(prior, z_t, t, condition, settings)
        residual = predicted - noise
        loss = 0.5 * (broadcast(weight(settings.weight, alpha, sigma), z) * residual.square()).sum()
        (gradient,) = torch.autograd.grad(loss, picture)
    return gradient, metrics | {"residual_norm": float(residual.detach().square().mean().sqrt()), "t": float(t.mean())}
