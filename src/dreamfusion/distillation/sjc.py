"""Score Jacobian chaining (Wang et al. 2022, arXiv:2212.00774): the score of a picture is that of its noisy copies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..priors.question import Question
from .rule import Figures
from .rule_settings import SjcSettings
from .sds import SDS


@dataclass(frozen=True)
class SJC(SDS):
    """The perturb-and-average score (eqs. 14 and 15), -(D(z + s e) - z - s e) / s with s = sigma / alpha; as a gradient.

    With the denoiser D = (z_t - sigma e_hat) / alpha this is e_hat: its mean over the noise is the score of z among blurred
    pictures. Reduced variance subtracts e, whose mean is zero: then it is SDS with w(t) = 1. The paper has one noise a step.
    """

    settings: SjcSettings

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        predicted, figures = self.guided(self.noised(z, t, noise), t, question)
        return predicted - noise if self.settings.reduce_variance else predicted, figures
