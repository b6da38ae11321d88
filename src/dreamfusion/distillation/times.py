"""Which noise levels a step asks about: random ones of a range, or one level that falls as the run goes on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..schema import scheduled
from .rule_settings import RuleSettings

ROWS = 1000


def draw_times(
    settings: RuleSettings,
    progress: float,
    count: int,
    rng: torch.Generator,
    alpha_sigma: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """Noise levels (count,) in [t_min, t_max] at ``progress``, as ``t_order`` says."""
    low, high = scheduled(settings.t_min, progress), scheduled(settings.t_max, progress)
    if settings.t_order == "random":  # one in each of ``count`` equal parts of the range
        return low + (high - low) * ((torch.arange(count) + torch.rand(count, generator=rng)) / count)
    if settings.t_order == "sqrt":
        return torch.full((count,), high - (high - low) * progress**0.5)
    return torch.full((count,), dreamtime(progress, low, high, alpha_sigma))


def dreamtime(
    progress: float, low: float, high: float, alpha_sigma: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> float:
    """t(i) of Huang et al. 2023 (DreamTime, eq. 6): the level above which the weights W add up to ``progress``.

    W = sigma / alpha * W_p, where W_p is 1 between 0.5 and 0.8 and falls as a Gaussian outside (deviations 0.1 below and
    0.3 above): much of the run is spent where content appears.
    """
    t = torch.linspace(high, low, ROWS, dtype=torch.float64)
    alpha, sigma = (x.double().cpu().reshape(ROWS, -1).mean(1) for x in alpha_sigma(t.float()))
    above, below = (t - 0.8).clamp_min(0) / 0.3, (0.5 - t).clamp_min(0) / 0.1
    weight = sigma / alpha.clamp_min(1e-4) * torch.exp(-0.5 * (above.square() + below.square()))
    share = weight.cumsum(0) / weight.sum()
    return float(t[int((share - progress).abs().argmin())])


def uniform_of(t: Tensor) -> Tensor:
    """Uniform numbers (B,) in [0, 1) out of random levels t (B,): where t lies between two thousandths.

    Rules get no generator of their own. These digits are as random as t and do not depend on its size.
    """
    return (t.double() * 1000 % 1).to(t.dtype)
