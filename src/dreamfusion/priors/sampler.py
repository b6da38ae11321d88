"""Drawing pictures from a prior: one sampler, written once for all that predict noise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .prior import Prior, broadcast, clean_from_noise, guide
from .question import Question

AlphaSigma = Callable[[Tensor], tuple[Tensor, Tensor]]
Predict = Callable[[Tensor, Tensor], Tensor]


def ddim(
    predict: Predict, alpha_sigma: AlphaSigma, noise: Tensor, steps: int, limit: float | None = None
) -> Tensor:  # fmt: skip
    """A sample (B, C, h, w) grown out of ``noise`` over even steps of t from 0.999 to 0 (DDIM, Song et al. 2021, eta = 0).

    ``predict`` (z_t, t (B,)) -> e_hat; ``limit`` bounds the clean picture at every step, for priors of pixels. No gradients.
    """
    times = torch.linspace(0.999, 0.0, steps + 1, device=noise.device)
    return follow(predict, alpha_sigma, noise, times[:, None].expand(-1, len(noise)), limit)


def follow(
    predict: Predict, alpha_sigma: AlphaSigma, z: Tensor, times: Tensor, limit: float | None = None
) -> Tensor:  # fmt: skip
    """z (B, …) carried along the probability flow from level to level of ``times`` (K + 1, B), by DDIM steps. No gradients.

    Falling times denoise, rising times invert (Song et al. 2021, section 4.3). A step keeps the prediction at its start:
    z_s = alpha_s (z_t - sigma_t e_hat) / alpha_t + sigma_s e_hat.
    """
    with torch.no_grad():
        for t, then in pairwise(times):
            (alpha, sigma), (alpha_then, sigma_then) = alpha_sigma(t), alpha_sigma(then)
            predicted = predict(z, t)
            clean = clean_from_noise(z, predicted, alpha, sigma)
            if limit is not None:
                clean = clean.clamp(-limit, limit)
                predicted = (z - broadcast(alpha, z) * clean) / broadcast(sigma, z)
            z = broadcast(alpha_then, z) * clean + broadcast(sigma_then, z) * predicted
    return z


@torch.no_grad()
def sample(
    prior: Prior, question: Question, rng: torch.Generator, guidance_scale: float = 2.0, steps: int = 30
) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] of a question, by DDIM over even steps of t."""
    noise = torch.randn(prior.noise_shape(len(question.view)), generator=rng).to(prior.device)
    about = (question.words,) if guidance_scale == 0 else (question.words, question.nothing)

    def predict(z: Tensor, t: Tensor) -> Tensor:
        answers = prior.predict_noise(z, t, question, about)
        return answers[0] if guidance_scale == 0 else guide(answers[0], answers[1], guidance_scale)

    return prior.decode(ddim(predict, prior.alpha_sigma, noise, steps, limit=prior.limit)).clamp(0, 1)
