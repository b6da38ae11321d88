"""Delta denoising score (Hertz et al. 2023, arXiv:2304.07090): the change that new words ask for, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..priors.question import Question
from .ancestral import key_of
from .rule import Figures
from .rule_settings import DdsSettings
from .sds import SDS, predict_guided


@dataclass(frozen=True)
class DDS(SDS):
    """w(t) (e_hat(z_t, y) - e_hat(z'_t, y')), eq. 3: the same noise on the picture and on its reference.

    The reference z' is what the scene looked like in the first round of views; y' are the negative words. Both
    predictions are guided away from "nothing". The first round moves nothing: it only remembers.
    """

    settings: DdsSettings
    seen: dict[str, Tensor] = field(default_factory=dict)
    """References by their noise, which comes again with the views."""

    def turn(self, step: int) -> int:
        return step % self.settings.reference_views

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        key = key_of(noise)
        if key not in self.seen:
            self.seen[key] = z.clone()
            return torch.zeros_like(z), {"guidance_norm": z.new_zeros(())}
        reference, source = self.seen[key], question.nothing
        assert source is not None
        asked = replace(question, nothing=None)
        new, figures = self.guided(self.noised(z, t, noise), t, asked)
        old = replace(asked, words=source, repelled=())
        before, _ = predict_guided(self.prior, self.noised(reference, t, noise), t, old, self.settings, self.progress)
        return new - before, figures

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.seen)

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.seen.clear()
        self.seen.update({key: z.to(self.prior.device) for key, z in tensors.items()})
