"""Score distillation sampling (Poole et al. 2022, eq. 3): w(t) (e_hat - e), with no gradient through the prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.prior import Prior, broadcast, clean_from_noise, guide, levels
from ..priors.question import Question
from .rule import Direction, Figures, Rule, mean_over_pixels
from .rule_settings import GuidedSettings


def weight(kind: str, alpha: Tensor, sigma: Tensor) -> Tensor:
    """w(t) for alpha, sigma of any shape: sigma^2 as in the paper, 1, or alpha sigma."""
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
    prior: Prior, z_t: Tensor, t: Tensor, question: Question, wanted: Tensor, unconditional: Tensor
) -> Tensor:
    """Sum of the weighted directions of ``question.repelled``, each only as far as it is perpendicular to ``wanted``.

    Armandpour et al. 2023 (Perp-Neg): its perpendicular gradient. All are (B, C, h, w). One call of the prior answers for
    two of them.
    """
    total = torch.zeros_like(z_t)
    for k in range(0, len(question.repelled), 2):
        pair = question.repelled[k : k + 2]
        answers = prior.predict_noise(z_t, t, question, [words for words, _ in pair])
        for answer, (_, factor) in zip(answers, pair, strict=True):
            total = total + broadcast(factor, z_t).to(z_t) * without_component(answer - unconditional, wanted)
    return total


def predict_guided(
    prior: Prior, z_t: Tensor, t: Tensor, question: Question, settings: GuidedSettings
) -> tuple[Tensor, Figures]:
    """The guided noise prediction (B, C, h, w), thresholded and rescaled as the settings ask, and its figures.

    Differentiable in z_t under the caller's grad mode.
    """
    if settings.guidance_scale == 0 and not question.repelled:  # (1 + 0) e(y) - 0 e(nothing): one pass is enough
        (conditional,) = prior.predict_noise(z_t, t, question, [question.words])
        unconditional = conditional
    else:
        conditional, unconditional = prior.predict_noise(z_t, t, question, [question.words, question.nothing])
    figures = {"guidance_norm": (conditional - unconditional).detach().square().mean().sqrt()}
    if question.repelled:
        conditional = conditional - repulsion(prior, z_t, t, question, conditional - unconditional, unconditional)
    noise = guide(conditional, unconditional, settings.guidance_scale)
    if settings.threshold > 0 or settings.rescale > 0:
        alpha, sigma = levels(prior, t, z_t)
        clean = clean_from_noise(z_t, noise, alpha, sigma)
        if settings.rescale > 0:
            clean = rescale_guidance(clean, clean_from_noise(z_t, conditional, alpha, sigma), settings.rescale)
        if settings.threshold > 0:
            clean = threshold_clean(clean, settings.threshold)
        noise = (z_t - alpha * clean) / sigma.clamp_min(1e-4)
    return noise, figures


@dataclass(frozen=True)
class SDS(Rule):
    """The rule of the paper. It has no state."""

    prior: Prior
    settings: GuidedSettings

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return self.prior.noise_shape(count)

    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        """w(t) (e_hat - e) in the prior's space, carried back to the picture; a mean over pixels."""
        with torch.enable_grad():
            picture = picture.detach().requires_grad_()
            z = self.prior.encode(picture)
        alpha, sigma = levels(self.prior, t, z)
        with torch.no_grad():
            z_t = alpha * z.detach() + sigma * noise
            predicted, figures = predict_guided(self.prior, z_t, t, question, self.settings)
            residual = weight(self.settings.weight, alpha, sigma) * (predicted - noise)
        (gradient,) = torch.autograd.grad(z, picture, residual)
        figures |= {"residual_norm": residual.square().mean().sqrt(), "t": t.mean()}
        return Direction(mean_over_pixels(gradient), figures)
