"""Noise-free score distillation (Katzir et al. 2023, arXiv:2310.17590): no -e, and so no need for a large guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.prior import broadcast
from ..priors.question import Question
from .rule import Figures
from .rule_settings import NfsdSettings
from .sds import SDS


@dataclass(frozen=True)
class NFSD(SDS):
    """w(t) (d + w (e(y) - e(nothing))), eq. 9 of the paper.

    d points to the manifold of pictures: e(nothing) where there is little noise (``plain_below``), else e(nothing) -
    e(negative words), in which the noise cancels. Without negative words d is zero there.
    """

    settings: NfsdSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        z_t = self.noised(z, t, noise)
        wanted, nothing = self.apart(z_t, t, question, None)
        negative = nothing
        if question.nothing is not None:
            (negative,) = self.prior.predict_noise(z_t, t, question, [question.nothing])
        domain = torch.where(broadcast(t < self.settings.plain_below, z), nothing, nothing - negative)
        guidance = wanted - nothing
        return domain + self.guidance_scale * guidance, {"guidance_norm": guidance.square().mean().sqrt()}
