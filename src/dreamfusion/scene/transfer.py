"""A new stage's scene from the scene before it: sample the old one, whatever kind it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..adam import Adam
from ..errors import UserError

if TYPE_CHECKING:
    from .scene import Scene

STEPS, POINTS, RATE = 400, 4096, 0.02
DEPTH = 0.05  # world units; a surface is opaque over this distance


@runtime_checkable
class Volume(Protocol):
    """A scene with a density (N,) in 1 / world unit and an albedo (N, 3) at all points (N, 3) of the unit sphere."""

    def density(self, points: Tensor) -> Tensor: ...

    def albedo(self, points: Tensor) -> Tensor: ...


def resample(old: Scene, new: Volume, rng: torch.Generator) -> None:
    """Fit a fresh field to another volume by regression at random points, half of them where the old one is dense.

    The loss compares opacities over a short way, 1 - exp(-density * ``DEPTH``), and albedo weighted by opacity. UserError
    if the old scene is no volume.
    """
    if (volume := old.as_volume()) is None:
        raise UserError(f"a radiance field cannot start from {type(old).__name__}, which has no density")
    assert isinstance(new, nn.Module)
    parameters = list(new.parameters())
    device = parameters[0].device
    optimiser = Adam(parameters, lr=RATE)
    for _ in range(STEPS):
        with torch.no_grad():
            points, opacity = _points(volume, rng, device)
            albedo = volume.albedo(points)
        off = (_opacity(new, points) - opacity).square() + opacity * (new.albedo(points) - albedo).square().mean(-1)
        optimiser.zero_grad()
        off.mean().backward()
        optimiser.step()


def _opacity(volume: Volume, points: Tensor) -> Tensor:
    return -torch.expm1(-volume.density(points) * DEPTH)


def _points(old: Volume, rng: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Points (P, 3) of the unit ball and their opacities (P,): half anywhere, half drawn by opacity out of more."""
    direction = torch.nn.functional.normalize(torch.randn(4 * POINTS, 3, generator=rng), dim=-1)
    radius = torch.rand(4 * POINTS, 1, generator=rng) ** (1 / 3)
    points = (direction * radius * 0.999).to(device)
    opacity = _opacity(old, points)
    dense = torch.multinomial(opacity.cpu() + 1e-6, POINTS // 2, generator=rng).to(device)
    chosen = torch.cat([torch.arange(POINTS // 2, device=device), dense])
    return points[chosen], opacity[chosen]
