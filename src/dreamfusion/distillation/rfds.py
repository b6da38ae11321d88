"""Rectified flow distillation sampling (Yang et al. 2024, arXiv:2406.03293), for priors that are flows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.prior import broadcast, levels
from ..priors.question import Question
from .rule import Figures
from .rule_settings import RfdsSettings
from .sds import SDS
from .times import uniform_of


@dataclass(frozen=True)
class RFDS(SDS):
    """o (v_hat(z_t) - (e - z)), eq. 8, where z_t = (1 - t) z + t e. As v = e - z, this is o (e_hat - e) / alpha.

    o ~ sigmoid(N(0, 1)), as the flows were trained (Esser et al. 2024). RFDS-Rev (algorithm 2) first moves the noise
    along the flow, e <- e + eta (v_hat + z - e), to where it would come from; then o = 1.
    """

    settings: RfdsSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        predicted, figures = self.guided(self.noised(z, t, noise), t, question)
        alpha = levels(self.prior, t, z)[0].clamp_min(1e-4)
        if self.settings.revised:
            noise = noise + self.settings.noise_step * (predicted - noise) / alpha
            predicted, figures = self.guided(self.noised(z, t, noise), t, question)
            return (predicted - noise) / alpha, figures
        factor = torch.sigmoid(torch.special.ndtri(uniform_of(t).clamp(1e-4, 1 - 1e-4)))
        return broadcast(factor, z) * (predicted - noise) / alpha, figures
