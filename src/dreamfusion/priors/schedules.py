"""Noise schedules and prediction types of diffusers' checkpoints as one continuous alpha_t, sigma_t.

Two kinds exist. *Variance preserving* (DDPM, DDIM, PNDM, Euler, DPM-Solver, LCM …): alpha^2 + sigma^2 = 1, from the
table of cumulative products that every such scheduler keeps (Ho et al. 2020). *Rectified flow* (SD3, FLUX):
alpha = 1 - sigma (Liu et al. 2022). In both, t in [0, 1] runs along the scheduler's own training steps: step k of T is at
t = k / T, so that t ~ U(0.02, 0.98) means for every checkpoint what it means in the papers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError
from .prior import broadcast

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True)
class Schedule:
    """alpha, sigma, time: (rows,) float32 in growing noise, row k at t = k / steps; ``time`` is the network's timestep."""

    alpha: Tensor
    sigma: Tensor
    time: Tensor
    prediction: Prediction
    steps: int

    def _lookup(self, table: Tensor, t: Tensor) -> Tensor:
        place = (t.float() * self.steps).clamp(0, len(table) - 1)
        low = place.floor().long().clamp_max(len(table) - 2)
        table = table.to(t.device)
        return torch.lerp(table[low], table[low + 1], place - low)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha (B,), sigma (B,) at t (B,): linear between the rows, put back on the circle (or the line) of its kind."""
        alpha, sigma = self._lookup(self.alpha, t), self._lookup(self.sigma, t)
        length = alpha + sigma if self.prediction == "flow" else torch.hypot(alpha, sigma)
        return alpha / length, sigma / length

    def network_time(self, t: Tensor) -> Tensor:
        """The network's timestep (B,) float32 at t (B,); fractions between the training steps are kept."""
        return self._lookup(self.time, t)

    def noise(self, output: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The noise e (B, C, h, w) that a network's output at z_t means."""
        alpha, sigma = (broadcast(x, z_t) for x in self.alpha_sigma(t))
        if self.prediction == "epsilon":
            return output
        if self.prediction == "v_prediction":  # v = alpha e - sigma x (Salimans & Ho 2022, appendix D)
            return alpha * output + sigma * z_t
        if self.prediction == "flow":  # v = e - x and alpha + sigma = 1, so alpha v + z_t = e
            return alpha * output + z_t
        return (z_t - alpha * output) / sigma.clamp_min(1e-4)


def schedule_of(scheduler: Any, image_tokens: int | None = None) -> Schedule:
    """The schedule of a diffusers scheduler (an object, as loaded from a checkpoint).

    ``image_tokens``: the length of the transformer's picture sequence, for flow schedulers whose shift depends on it
    (FLUX). UserError for a kind or a prediction type that is not known here.
    """
    config = scheduler.config
    name = type(scheduler).__name__
    prediction: Any = config.get("prediction_type") or ("flow_prediction" if "FlowMatch" in name else "epsilon")
    if prediction == "flow_prediction":
        return _flow(config, image_tokens)
    if not hasattr(scheduler, "alphas_cumprod") or config.get("prediction_type") is None:
        raise UserError(
            f"the scheduler {name} has no noise schedule that is known here; use a DDPM- or flow-type scheduler"
        )
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise UserError(
            f"the prediction type {prediction!r} of {name} is not known (known: epsilon, v_prediction, sample, flow)"
        )
    kept = scheduler.alphas_cumprod.detach().cpu().double()
    time = torch.arange(len(kept), dtype=torch.float32)
    return Schedule(kept.sqrt().float(), (1 - kept).clamp_min(0).sqrt().float(), time, prediction, len(kept))


def _flow(config: Any, image_tokens: int | None) -> Schedule:
    """Rectified flow: steps s = k / T, shifted towards noise, sigma = c s / (1 + (c - 1) s) (Esser et al. 2024, eq. 23)."""
    steps = config["num_train_timesteps"]
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if config.get("use_dynamic_shifting"):
        shift = dynamic_shift(config, image_tokens or config["base_image_seq_len"])
    s = torch.arange(steps + 1, dtype=torch.float64) / steps  # the scheduler's rows, and clean data before them
    sigma = shift * s / (1 + (shift - 1) * s)
    return Schedule((1 - sigma).float(), sigma.float(), (sigma * steps).float(), "flow", steps)


def dynamic_shift(config: Any, image_tokens: int) -> float:
    """The shift for a picture of so many tokens: mu is linear in them, the shift exp(mu) (FLUX) or mu itself."""
    low, high = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (high - low)
    mu = config["base_shift"] + slope * (image_tokens - low)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
