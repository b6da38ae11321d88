"""SDS as a bridge between distributions (McAllister et al. 2024, arXiv:2406.09417): from what is there to what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..priors.question import Question
from .rule import Figures
from .rule_settings import BridgeSettings
from .sds import SDS


@dataclass(frozen=True)
class Bridge(SDS):
    """w(t) w (e(y) - e(source words)), section 5: the negative prompt says what the scene looks like now.

    It fits a scene that another rule has made: '{prompt}, oversaturated, smooth, hazy' describes what SDS leaves behind.
    """

    settings: BridgeSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        wanted, source = self.apart(self.noised(z, t, noise), t, question, question.nothing)
        return self.guidance_scale * (wanted - source), {"guidance_norm": (wanted - source).square().mean().sqrt()}
