"""Variational score distillation (Wang et al. 2023, ProlificDreamer, arXiv:2305.16213): the scene's own score is learned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.question import Question
from .learner import Learner, make_learner
from .rule import Figures
from .rule_settings import VsdSettings
from .sds import SDS


@dataclass(frozen=True)
class VSD(SDS):
    """w(t) (e_hat(z_t, y) - e_own(z_t, y, camera)), eq. 9: e_own predicts the noise in noisy pictures of the scene itself.

    It descends the divergence of the scenes' pictures from the prior's, whatever their number. SDS is the case of one
    picture without spread, where e_own = e; there the best picture is the prior's mode, and here a sample. ``learn`` trains
    e_own on the pictures of each step: E |e_own(z_t) - e|^2, eq. 10, at levels and noise of its own. It starts as the
    prior's e(y): until it has learned, the rule is the guidance term alone, SDS without the variance of e.
    """

    graphs = 1
    settings: VsdSettings
    learner: Learner = None  # type: ignore[assignment]  # made below

    def __post_init__(self) -> None:
        if self.learner is None:
            object.__setattr__(self, "learner", make_learner(self.prior, self.settings))

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        z_t = self.noised(z, t, noise)
        predicted, known, figures = self.both(z_t, t, question)
        own = self.learner.predict(z_t, t, question, known)
        return predicted - own, figures | {"own_norm": own.square().mean().sqrt()}

    def learn(self, picture: Tensor, question: Question, rng: torch.Generator) -> Figures:
        loss = picture.new_zeros(())
        with torch.no_grad():
            z = self.prior.encode(picture)
        for _ in range(self.settings.learner_steps):
            t = (0.02 + 0.96 * torch.rand(len(z), generator=rng)).to(z)
            noise = torch.randn(z.shape, generator=rng).to(z)
            told = (torch.rand(len(z), generator=rng) >= self.settings.camera_drop).to(z)
            loss = self.learner.learn(self.noised(z, t, noise), t, question, noise, told)
        return {"learner_loss": loss}

    def state_dict(self) -> dict[str, Tensor]:
        return self.learner.state()

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.learner.restore(tensors)
