"""Density from a signed distance (Yariv et al. 2021, "Volume Rendering of Neural Implicit Surfaces", VolSDF), as TextMesh has
it (Tsalicoglou et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

UNIT = 0.1
"""World units of distance that a learned value of 1 stands for, so that rates that suit densities suit distances."""
POINTS = 2048
"""Points at which the slope is looked at: half of them anywhere, half of them near the surface."""
DRAWN = 8
"""Points drawn for each that is near the surface."""


def laplace_cdf(x: Tensor) -> Tensor:
    """Psi(x), the distribution function of a Laplace variable of mean 0 and scale 1: exp(x) / 2 for x <= 0, else
    1 - exp(-x) / 2 (VolSDF, eq. 3)."""
    half = 0.5 * torch.exp(-x.abs())
    return torch.where(x <= 0, half, 1 - half)


def points_of_ball(rng: torch.Generator | None = None) -> Tensor:
    """(1 + ``DRAWN``) ``POINTS`` / 2 points (N, 3), uniform in the unit ball."""
    rng = rng or torch.Generator().manual_seed(0)
    drawn = (1 + DRAWN) * POINTS // 2
    direction = torch.nn.functional.normalize(torch.randn(drawn, 3, generator=rng), dim=-1)
    return direction * torch.rand(drawn, 1, generator=rng) ** (1 / 3)


def slope_points(distance: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """``POINTS`` of the points of a ball (P, 3): half of them as they come, half the nearest to the surface of all others."""
    anywhere, rest = points[: POINTS // 2], points[POINTS // 2 :]
    with torch.no_grad():
        near = distance(rest).abs().argsort()[: POINTS // 2]
    return torch.cat([anywhere, rest[near.cpu()]])


def eikonal(distance: Callable[[Tensor], Tensor], step: float, ball: Tensor | None = None) -> Tensor:
    """Mean of (|slope| - 1)^2 of a signed distance (Gropp et al. 2020, eq. 3), at some of the ``points_of_ball``. The slope is by
    central differences over ``step``, one spacing of the grid, so that neighbouring cells learn together (Li et al. 2023,
    Neuralangelo, eq. 3)."""
    points = slope_points(distance, points_of_ball() if ball is None else ball)
    ends = torch.cat([points + sign * step * axis for axis in torch.eye(3) for sign in (1, -1)])
    ahead, behind = distance(ends).reshape(3, 2, -1).unbind(1)
    slope = ((ahead - behind).square().sum(0) + 1e-12).sqrt() / (2 * step)
    return (slope - 1).square().mean()
