"""DDIM inversion: the noise out of which a prior would draw this very picture."""

from __future__ import annotations

import torch
from torch import Tensor

from ..priors.prior import Prior, guide
from ..priors.question import Question
from ..priors.sampler import follow

FLOOR = 0.02
"""The least noise level that priors are asked about: they were hardly trained on less."""


def invert(
    prior: Prior, z: Tensor, t: Tensor, steps: int, question: Question, guidance_scale: float | None = None
) -> Tensor:
    """Clean z (B, …) carried to noise level t (B,) along the prior's own flow, in even steps (Song et al. 2021, 4.3).

    ``guidance_scale`` None asks about nothing. A number asks about the words, guided by it; it may be below 0.
    """

    def predict(x: Tensor, now: Tensor) -> Tensor:
        now = now.clamp_min(FLOOR)
        if guidance_scale is None:
            return prior.predict_noise(x, now, question, [None])[0]
        wanted, nothing = prior.predict_noise(x, now, question, [question.words, question.nothing])
        return guide(wanted, nothing, guidance_scale)

    times = torch.linspace(0, 1, steps + 1, device=t.device)[:, None] * t
    return follow(predict, prior.alpha_sigma, z, times)
