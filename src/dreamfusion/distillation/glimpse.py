"""What a prior was shown in a step, and what it answered, as pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.prior import Prior, clean_from_noise


@dataclass(frozen=True)
class Glimpse:
    """A question to ``prior`` and its answer: z_t (B, …), t (B,) in [0, 1], and ``noise``, what it predicts for the words, shaped as
    z_t, before guidance."""

    prior: Prior
    z_t: Tensor
    t: Tensor
    noise: Tensor

    @torch.no_grad()
    def pictures(self) -> tuple[Tensor, Tensor]:
        """Of the first picture of the step: z_t, and the clean picture x0 = (z_t - sigma e) / alpha that the answer implies; each
        (3, H, W) in [0, 1]. A latent prior decodes both. It draws no random numbers."""
        z_t, noise = self.z_t[:1], self.noise[:1]
        clean = clean_from_noise(z_t, noise, *self.prior.alpha_sigma(self.t[:1]))
        noisy, answer = (self.prior.decode(z)[0].float().clamp(0, 1) for z in (z_t, clean))
        return noisy, answer
