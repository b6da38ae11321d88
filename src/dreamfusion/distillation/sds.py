"""Score distillation sampling (Poole et al. 2022, eq. 3): w(t) (e_hat - e), with no gradient through the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import DistillationSettings
from ..priors.base import Condition, Prior, broadcast, clean_from_noise, guide


def weight(kind: str, alpha: Tensor, sigma: Tensor) -> Tensor:
    """w(t) for alpha, sigma (B,): sigma^2 as in the paper, 1, or alpha sigma."""
    return {"sigma2": sigma**2, "uniform": torch.ones_like(sigma), "alpha_sigma": alpha * sigma}[kind]


def threshold_clean(clean: Tensor, quantile: float) -> Tensor:
    """Dynamic thresholding of clean pictures (B, C, H, W) in [-1, 1] (Saharia et al. 2022, section 2.3)."""
    limit = torch.quantile(clean.flatten(1).abs(), quantile, dim=1).clamp_min(1.0)
    limit = broadcast(limit, clean)
    return clean.clamp(-limit, limit) / limit


def rescale_guidance(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Pull the spread of the guided clean picture back to the conditional one's (Lin et al. 2023, eqs. 15-16)."""
    dims = tuple(range(1, guided.ndim))
    rescaled = guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True).clamp_min(1e-6))
    return share * rescaled + (1 - share) * guided


@torch.no_grad()
def guided_noise(prior: Prior, z_t: Tensor, t: Tensor, condition: Condition, settings: DistillationSettings) -> tuple[Tensor, dict[str, float]]:
    """The guided noise prediction (B, C, h, w), thresholded and rescaled as the settings ask, and its figures."""
    conditional, unconditional = prior.predict_noise(z_t, t, condition)
    noise = guide(conditional, unconditional, settings.guidance_scale)
    metrics = {"guidance_norm": float((conditional - unconditional).square().mean().sqrt())}
    if settings.threshold > 0 or settings.rescale > 0:
        alpha, sigma = prior.alpha_sigma(t)
        clean = clean_from_noise(z_t, noise, alpha, sigma)
        if settings.rescale > 0:
            clean = rescale_guidance(clean, clean_from_noise(z_t, conditional, alpha, sigma), settings.rescale)
        if settings.threshold > 0:
            clean = threshold_clean(clean, settings.threshold)
        noise = (z_t - broadcast(alpha, z_t) * clean) / broadcast(sigma, z_t).clamp_min(1e-4)
    return noise, metrics


def direction(
    picture: Tensor, prior: Prior, condition: Condition, t: Tensor, noise: Tensor, settings: DistillationSettings
) -> tuple[Tensor, dict[str, float]]:
    """The SDS gradient for pictures (B, 3, H, W) in [0, 1]; see ``distillation.direction`` for the other shapes."""
    picture = picture.detach().requires_grad_()
    z = prior.encode(picture)
    alpha, sigma = prior.alpha_sigma(t)
    z_t = broadcast(alpha, z) * z.detach() + broadcast(sigma, z) * noise
    predicted, metrics = guided_noise(prior, z_t, t, condition, settings)
    residual = broadcast(weight(settings.weight, alpha, sigma), z) * (predicted - noise)
    (gradient,) = torch.autograd.grad(z, picture, residual)
    return gradient, metrics | {"residual_norm": float(residual.square().mean().sqrt()), "t": float(t.mean())}
