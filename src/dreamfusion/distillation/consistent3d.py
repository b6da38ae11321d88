"""Consistency distillation sampling (Wu et al. 2024, Consistent3D, arXiv:2401.09050): two points of one trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..priors.question import Question
from ..priors.sampler import follow
from .inversion import FLOOR
from .rule import Figures
from .rule_settings import Consistent3dSettings
from .sds import SDS
from .times import uniform_of


@dataclass(frozen=True)
class Consistent3D(SDS):
    """w(t) (e_hat(z_t, t) - e_hat(z_s, s)): z_s is one step down the guided flow from z_t, and s = t - ``gap``.

    The noise in z_t is the same in every step and for every view, so the target does not jump. Eq. 12 compares the clean
    pictures of both points, which would move z the other way once the network's Jacobian is left out; this is the
    authors' code.
    """

    settings: Consistent3dSettings
    fixed: dict[str, Tensor] = field(default_factory=dict)
    """The one noise, (1, C, h, w): the first that the rule is given."""

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        fixed = self.fixed.setdefault("noise", noise[:1].clone())
        low, high = self.settings.gap
        s = (t - low - (high - low) * uniform_of(t)).clamp_min(FLOOR)
        z_t = self.noised(z, t, fixed.expand_as(z))
        above, figures = self.guided(z_t, t, question)
        z_s = follow(lambda *_: above, self.prior.alpha_sigma, z_t, torch.stack([t, torch.minimum(s, t)]))
        below, _ = self.guided(z_s, s, question)
        return above - below, figures

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.fixed)

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.fixed.clear()
        self.fixed.update({key: noise.to(self.prior.device) for key, noise in tensors.items()})
