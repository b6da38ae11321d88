"""Rays: how volumes are rendered. Only volumes and their kernels use them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..view.cameras import Cameras
from .scene import Rendering


@dataclass(frozen=True)
class Rays:
    """origins (N, 3), directions (N, 3) of unit length; ``pixel_radius`` is a pixel's half-width at distance 1."""

    origins: Tensor
    directions: Tensor
    pixel_radius: float


@dataclass(frozen=True)
class RayRendering:
    """What rays saw, without a background. N = rays.

    colour (N, 3), or latents (N, channels) if those were asked for, premultiplied by opacity, opacity (N,), depth (N,)
    the expected distance (sum of w_i s_i, not divided by the opacity), normal (N, 3) sum of w_i n_i, orientation (N,) sum
    of w_i max(0, n_i . d)^2 (Ref-NeRF eq. 11). emptiness and depth_variance (N,): see ``volume``; None in renderers that do not
    look at the samples one by one, and without gradients.
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    orientation: Tensor
    emptiness: Tensor | None = None
    depth_variance: Tensor | None = None

    def as_pictures(self, size: int) -> Rendering:
        """The same as pictures of ``size`` pixels per side; N = B * size^2, row by row."""
        penalties = {
            "orientation": self.orientation,
            "emptiness": self.emptiness,
            "depth_variance": self.depth_variance,
        }
        seen = (self.colour, self.opacity, self.depth, self.normal)
        colour, opacity, depth, normal = (to_pictures(flat, size) for flat in seen)
        own = {name: value.mean() for name, value in penalties.items() if value is not None}
        return Rendering(colour, opacity, depth, normal, own)


def camera_rays(cameras: Cameras, size: int, device: torch.device | str | None = None) -> Rays:
    """Rays through the pixel centres of all pictures, flattened to (B * size^2) row by row from the top left.

    If lenses differ, ``pixel_radius`` is their mean. The cameras are on the CPU, the rays on ``device``.
    """
    pixel_radius = float(torch.tan(cameras.fov / 2).mean()) / size
    origins, directions = cameras.to(device).rays(size)
    return Rays(origins.expand_as(directions).reshape(-1, 3), directions.reshape(-1, 3), pixel_radius)


def to_pictures(flat: Tensor, size: int) -> Tensor:
    """What rays saw, (B * size^2, C) or (B * size^2,), as pictures (B, C, size, size)."""
    return flat.reshape(-1, size, size, flat.shape[1] if flat.ndim == 2 else 1).permute(0, 3, 1, 2)
