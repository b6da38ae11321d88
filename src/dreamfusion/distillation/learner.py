"""What learns the noise in a scene's own pictures, for VSD: a small network beside the prior, or updates inside it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

from ..adam import AdamW
from ..errors import UserError
from ..priors.prior import Prior
from ..priors.question import Question
from .low_rank import LowRank, zeroed
from .rule_settings import VsdSettings

CAMERA = 5
TIMES = 8


class Learner(nn.Module):
    """Predicts the noise in z_t, told the camera. AdamW trains its parameters; ``state`` and ``restore`` are for resuming."""

    def __init__(self, prior: Prior, rate: float):
        super().__init__()
        object.__setattr__(self, "prior", prior)  # not as a part: its weights are none of ours
        self.prior: Prior
        self.rate = rate

    def ready(self) -> None:
        """To be called once all parameters are there."""
        self.to(self.prior.device)
        self.adam = AdamW(self.parameters(), lr=self.rate, fused=True)

    @abstractmethod
    def forward(
        self, z_t: Tensor, t: Tensor, question: Question, told: Tensor, known: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The noise (B, C, h, w) in z_t; told (B,): 1 where the camera is told, else 0; known: e(y), if it was asked already."""

    @torch.no_grad()
    def predict(self, z_t: Tensor, t: Tensor, question: Question, known: Tensor | None = None) -> Tensor:
        """The same for pictures of which the camera is told."""
        return self(z_t, t, question, torch.ones_like(t), known)

    def learn(self, z_t: Tensor, t: Tensor, question: Question, noise: Tensor, told: Tensor) -> Tensor:
        """One step towards ``noise``; the loss before it.

        Nothing is learned from a loss or gradient that is not finite: one bad answer of the prior would spoil the weights for
        the rest of the run.
        """
        with torch.enable_grad():
            loss = (self(z_t, t, question, told) - noise).square().mean()
            self.adam.zero_grad()
            loss.backward()
        gradients = [p.grad.sum() for p in self.parameters() if p.grad is not None]
        bad = 1 - torch.stack([loss.detach(), *gradients]).isfinite().all().float()
        self.adam.found_inf = bad  # type: ignore[attr-defined]  # as in ``Optimiser.step``
        self.adam.step()
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """Parameters and Adam's moments by name."""
        found = {name: p.detach() for name, p in self.named_parameters()}
        for name, p in self.named_parameters():
            found |= {f"{name}.{key}": value for key, value in self.adam.state[p].items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``state``."""
        for name, p in self.named_parameters():
            p.data.copy_(tensors[name])
            held = {k: tensors[f"{name}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq") if f"{name}.{k}" in tensors}
            self.adam.state[p] = {k: v.clone().to(p.device) for k, v in held.items()}


class SmallNetwork(Learner):
    """The prior's own e(y) and a correction: a small U-Net over (z_t, e(y)) with a style from time and camera.

    The correction starts at zero. It works with every prior and costs the prior one question.
    """

    def __init__(self, prior: Prior, settings: VsdSettings):
        super().__init__(prior, settings.learner_lr)
        if len(prior.noise_shape(1)) != 4:
            raise UserError(f"distillation.kind=vsd cannot learn in the space of {prior.id!r}; give it one prior")
        channels, width = prior.noise_shape(1)[1], settings.width
        self.inside = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.style = nn.Sequential(nn.Linear(2 * TIMES + CAMERA, 4 * width), nn.SiLU(), nn.Linear(4 * width, 8 * width))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(8))
        self.out = zeroed(nn.Conv2d(width, channels, 3, padding=1))
        self.ready()

    def forward(
        self, z_t: Tensor, t: Tensor, question: Question, told: Tensor, known: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        if known is None:
            with torch.no_grad():
                (known,) = self.prior.predict_noise(z_t, t, question, [question.words])
        seen = torch.cat([waves(t), camera_features(question).to(t) * told[:, None]], 1)
        styles = self.style(seen).unflatten(1, (4, 2, -1))
        x = self.inside(torch.cat([z_t, known], 1))
        first = x = self.block(x, 0, styles)
        x = self.block(avg_pool2d(x, 2, ceil_mode=True), 1, styles)
        x = self.block(x, 2, styles)
        x = first + interpolate(x, first.shape[-2:], mode="nearest")
        return known + self.out(silu(self.block(x, 3, styles)))

    def block(self, x: Tensor, k: int, styles: Tensor) -> Tensor:
        """x + conv(silu(conv(silu x) * (1 + scale) + shift))."""
        scale, shift = (broadcast_channels(s) for s in styles[:, k].unbind(1))
        one, two = self.convolutions[2 * k], self.convolutions[2 * k + 1]
        return x + two(silu(one(silu(x)) * (1 + scale) + shift))


class LowRankLearner(Learner):
    """The prior itself with low-rank updates of its attention, and the camera added to its time embedding (LoRA)."""

    def __init__(self, prior: Prior, settings: VsdSettings):
        super().__init__(prior, settings.learner_lr)
        network = prior.adaptable()
        assert network is not None
        self.updates = LowRank(network, settings.rank, CAMERA)
        self.ready()

    def forward(
        self, z_t: Tensor, t: Tensor, question: Question, told: Tensor, known: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        network = self.prior.adaptable()
        assert network is not None
        with self.updates.within(network, camera_features(question).to(t) * told[:, None]):
            return self.prior.predict_noise(z_t, t, question, [question.words])[0]


def broadcast_channels(x: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, 1)."""
    return x[:, :, None, None]


def waves(t: Tensor) -> Tensor:
    """Sines and cosines (B, 2 TIMES) of t (B,)."""
    angles = t[:, None] * torch.pi * 2.0 ** torch.arange(TIMES, device=t.device) / 2
    return torch.cat([angles.sin(), angles.cos()], 1)


def camera_features(question: Question) -> Tensor:
    """Where each look is from, (B, CAMERA): sines and cosines of azimuth and elevation, and the apparent distance."""
    azimuth, elevation, distance = question.view.cameras.condition().unbind(1)
    return torch.stack([azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos(), distance - 2.5], 1)


def make_learner(prior: Prior, settings: VsdSettings) -> Learner:
    """The learner of the settings, always with the same initial weights. UserError if the prior does not suit it."""
    kind, can = settings.learner, prior.adaptable() is not None
    if kind == "low_rank" and not can:
        raise UserError(f"the prior {prior.id!r} has no network to adapt; set distillation.learner to 'network'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "low_rank" or (kind == "auto" and can):
            return LowRankLearner(prior, settings)
        return SmallNetwork(prior, settings)
