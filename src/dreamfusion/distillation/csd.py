"""Classifier score distillation (Yu et al. 2023, arXiv:2310.19415): the guidance term of SDS alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..priors.question import Question, Words
from ..schema import scheduled
from .rule import Figures
from .rule_settings import CsdSettings
from .sds import SDS


@dataclass(frozen=True)
class CSD(SDS):
    """w(t) w (e(y) - (1 - n) e(nothing) - n e(negative words)), eqs. 8 and 11 of the paper, n the negative share.

    SDS is this and e(y) - e, which keeps pictures smooth. A high ``guidance_scale`` drowns the rest in SDS; here it is the
    factor of all that there is. Negative annealing: n grows from 0 to 1. Then the shape is made before flaws are fought.
    """

    settings: CsdSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        z_t, share = self.noised(z, t, noise), scheduled(self.settings.negative_share, self.progress)
        if question.nothing is None:
            share = 0.0
        first: Words | None = None if share < 1 else question.nothing
        wanted, away = self.apart(z_t, t, question, first)
        if 0 < share < 1:
            (negative,) = self.prior.predict_noise(z_t, t, question, [question.nothing])
            away = (1 - share) * away + share * negative
        residual = self.guidance_scale * (wanted - away)
        return residual, {"guidance_norm": (wanted - away).square().mean().sqrt()}
