"""Asynchronous score distillation (Ma et al. 2024, arXiv:2407.02040): the prior at a later time stands for the scene's score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.question import Question
from ..schema import scheduled
from .rule import Figures
from .rule_settings import AsdSettings
from .sds import SDS
from .times import uniform_of


@dataclass(frozen=True)
class ASD(SDS):
    """w(t) (e_hat(z_t, t) - e(z_t+d, t + d, y)), eq. 10, with the same noise in both and no guidance in the second.

    A diffusion model is surer of the noise in noisier pictures. So its answer a little later, d ~ U(0, ``shift``) (t -
    t_min), is what a network trained on the scene's pictures (VSD) would say at t, and nothing is trained.
    """

    settings: AsdSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        predicted, figures = self.guided(self.noised(z, t, noise), t, question)
        above = (t - scheduled(self.settings.t_min, self.progress)).clamp_min(0)
        later = torch.clamp(t + self.settings.shift * uniform_of(t) * above, max=0.999)
        (own,) = self.prior.predict_noise(self.noised(z, later, noise), later, question, [question.words])
        return predicted - own, figures | {"shift": (later - t).mean()}
