"""What every scene is: something that is optimised and can be rendered. It knows no prior, prompt or loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Shading = Literal["albedo", "lambertian", "textureless"]


@dataclass(frozen=True)
class Rays:
    """origins (N, 3), directions (N, 3) of unit length; ``pixel_radius`` is a pixel's half-width at distance 1."""

    origins: Tensor
    directions: Tensor
    pixel_radius: float


@dataclass(frozen=True)
class Rendering:
    """What the rays saw, before any background. N = rays.

    colour (N, 3), or the latents (N, channels) that were asked for, premultiplied by opacity, opacity (N,), depth (N,)
    the expected distance (sum of w_i s_i, not divided by the opacity), normal (N, 3) sum of w_i n_i, orientation (N,) sum
    of w_i max(0, n_i . d)^2 (Ref-NeRF eq. 11).
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    orientation: Tensor


class Scene(Protocol):
    """A learned scene inside the unit sphere; a torch.nn.Module in practice."""

    def render(
        self,
        rays: Rays,
        shading: Shading,
        light: Tensor,
        ambient: float,
        generator: torch.Generator | None = None,
        samples: int | None = None,
        latent: bool = False,
    ) -> Rendering:
        """Render rays. ``light`` (N, 3): unit direction towards the key light, for each ray. With a generator the
        samples are jittered (training), without it they stand in the middles of their intervals. ``latent``: see a
        field of latents (``scene.channels``) as the latents it holds, not in colours."""
        ...

    def density(self, points: Tensor) -> Tensor:
        """Density (N,) in 1 / world unit at points (N, 3)."""
        ...

    def albedo(self, points: Tensor) -> Tensor:
        """Albedo (N, 3) in [0, 1] at points (N, 3)."""
        ...

    def harden(self, factor: float) -> None:
        """Multiply the learned raw density, in place: what is dense gets denser, what is empty emptier."""
        ...

    def after_step(self, step: int) -> None:
        """Upkeep after an optimiser step (refresh the occupancy)."""
        ...
