"""Score distillation via inversion (Lukoianov et al. 2024, arXiv:2405.15891): SDS whose noise fits the picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..priors.prior import levels
from ..priors.question import Question
from .inversion import invert
from .rule import Figures
from .rule_settings import SdiSettings
from .sds import SDS


@dataclass(frozen=True)
class SDI(SDS):
    """w(t) (e_hat(alpha z + sigma k) - k), eq. 11: k is the noise that DDIM inversion finds in the picture.

    SDS is DDIM whose noise is drawn anew in every step; with the k that fits, the steps of the run are DDIM's own. A
    share of fresh noise keeps k Gaussian: k <- sqrt(1 - s^2) k + s e (the authors add it between the inversion's steps).
    """

    settings: SdiSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        settings = self.settings
        inverted = invert(self.prior, z, t, settings.inversion_steps, question, settings.inversion_guidance)
        alpha, sigma = levels(self.prior, t, z)
        own = (inverted - alpha * z) / sigma.clamp_min(1e-4)
        fresh = settings.fresh_noise
        own = (1 - fresh**2) ** 0.5 * own + fresh * noise
        predicted, figures = self.guided(self.noised(z, t, own), t, question)
        return predicted - own, figures | {"own_norm": own.square().mean().sqrt()}
