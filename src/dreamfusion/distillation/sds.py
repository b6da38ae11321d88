"""Score distillation sampling (Poole et al. 2022, eq. 3): w(t) (e_hat - e), with no gradient through the prior."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .rule_settings import DistillationSettings
from ..priors.prior import Condition, Prior, broadcast, clean_from_noise, guide


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


def without_component(x: Tensor, along: Tensor) -> Tensor:
    """x (B, C, h, w) without its component along ``along``, row by row; x itself where ``along`` is zero."""
    dot, square = ((a * along).flatten(1).sum(1) for a in (x, along))
    return x - broadcast(dot / square.clamp_min(1e-12), x) * along


def repulsion(
    prior: Prior, z_t: Tensor, t: Tensor, condition: Condition, wanted: Tensor, unconditional: Tensor
) -> Tensor:
    """Sum of the weighted directions of ``condition.repelled``, each only as far as it is perpendicular to ``wanted``.

    Armandpour et al. 2023 (Perp-Neg): its perpendicular gradient. All are (B, C, h, w). One call of the prior answers for two of them.
    """
    total = torch.zeros_like(z_t)
    for k in range(0, len(condition.repelled), 2):
        (words, weight), *second = condition.repelled[k : k + 2]
        words = words.with_background(condition.background)
        answers = prior.predict_noise(z_t, t, words.against(second[0][0] if second else None))
        for answer, factor in zip(answers, [weight, *(w for _, w in second)], strict=False):
            total = total + broadcast(factor, z_t).to(z_t) * without_component(answer - unconditional, wanted)
    return total


def predict_guided(
    prior: Prior, z_t: Tensor, t: Tensor, condition: Condition, settings: DistillationSettings
) -> tuple[Tensor, dict[str, float]]:
    """The guided noise prediction (B, C, h, w), thresholded and rescaled as the settings ask, and its figures.

    Differentiable in z_t under the caller's grad mode.
    """
    if settings.guidance_scale == 0 and not condition.repelled:
        condition = replace(condition, alone=True)  # (1 + 0) e(y) - 0 e(nothing): one pass will do
    conditional, unconditional = prior.predict_noise(z_t, t, condition)
    metrics = {"guidance_norm": float((conditional - unconditional).detach().square().mean().sqrt())}
    if condition.repelled:
        conditional = conditional - repulsion(prior, z_t, t, condition, conditional - unconditional, unconditional)
    noise = guide(conditional, unconditional, settings.guidance_scale)
    if settings.threshold > 0 or settings.rescale > 0:
        alpha, sigma = prior.alpha_sigma(t)
        clean = clean_from_noise(z_t, noise, alpha, sigma)
        if settings.rescale > 0:
            clean = rescale_guidance(clean, clean_from_noise(z_t, conditional, alpha, sigma), settings.rescale)
        if settings.threshold > 0:
            clean = threshold_clean(clean, settings.threshold)
        noise = (z_t - broadcast(alpha, z_t) * clean) / broadcast(sigma, z_t).clamp_min(1e-4)
    return noise, metrics


@torch.no_grad()
def guided_noise(
    prior: Prior, z_t: Tensor, t: Tensor, condition: Condition, settings: DistillationSettings
) -> tuple[Tensor, dict[str, float]]:
    """``predict_guided`` without a gradient, which is what score distillation needs."""
    return predict_guided(prior, z_t, t, condition, settings)


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
