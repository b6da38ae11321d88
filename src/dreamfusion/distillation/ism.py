"""Interval score matching (Liang et al. 2023, LucidDreamer, arXiv:2311.11284): two points of one inverted trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.question import Question
from ..priors.sampler import follow
from ..schema import scheduled
from .inversion import FLOOR, invert
from .rule import Figures
from .rule_settings import IsmSettings
from .sds import SDS


@dataclass(frozen=True)
class ISM(SDS):
    """w(t) (e_hat(z_t, t, y) - e(z_s, s, nothing)), eq. 15, where z_s and z_t invert the picture and s = t - ``interval``.

    The noise comes out of the picture itself, so the same view always gets the same target: the average over many
    targets, which blurs, is gone. The inversion asks about nothing. Its questions start at FLOOR, the least noise that
    priors are trained on. The step's random noise plays no part.
    """

    settings: IsmSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        s = (t - scheduled(self.settings.interval, self.progress)).clamp_min(FLOOR)
        steps = math.ceil(scheduled(self.settings.t_max, self.progress) / self.settings.inversion_stride)
        z_s = invert(self.prior, z, s, steps, question)
        (plain,) = self.prior.predict_noise(z_s, s, question, [None])
        z_t = follow(lambda *_: plain, self.prior.alpha_sigma, z_s, torch.stack([s, torch.maximum(s, t)]))
        predicted, figures = self.guided(z_t, t, question)
        return predicted - plain, figures
