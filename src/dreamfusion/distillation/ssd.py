"""Stable score distillation (Tang et al. 2023, arXiv:2312.09305): one term of SDS at a time, each where it helps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.prior import broadcast
from ..priors.question import Question
from .rule import Figures
from .rule_settings import SsdSettings
from .sds import SDS, without_component


@dataclass(frozen=True)
class SSD(SDS):
    """SDS in three parts: h = w (e(y) - e(nothing)) leaves the mode of all pictures, e(y) seeks the mode of the words, and
    -e only reduces the variance.

    Above ``seek_below`` the rule is w(t) h. Below, e(y) without its component along e, scaled to the size of h. Sizes are
    those of each picture, and the component is (e(y).e) / |e|^2 e (published copies differ in both).
    """

    settings: SsdSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        wanted, nothing = self.apart(self.noised(z, t, noise), t, question, question.nothing)
        leave = self.guidance_scale * (wanted - nothing)
        seek = without_component(wanted, noise)
        size, own = (x.flatten(1).norm(dim=1) for x in (leave, seek))
        seek = broadcast(size / own.clamp_min(1e-12), z) * seek
        residual = torch.where(broadcast(t > self.settings.seek_below, z), leave, seek)
        return residual, {"guidance_norm": (wanted - nothing).square().mean().sqrt()}
