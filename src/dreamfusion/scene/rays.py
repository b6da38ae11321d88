"""Rays: how volumes look at themselves. Nothing outside the rooms of volumes sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..view.cameras import Cameras


@dataclass(frozen=True)
class Rays:
    """origins (N, 3), directions (N, 3) of unit length; ``pixel_radius`` is a pixel's half-width at distance 1."""

    origins: Tensor
    directions: Tensor
    pixel_radius: float


@dataclass(frozen=True)
class RayRendering:
    """What rays saw, with nothing behind. N = rays.

    colour (N, 3), or the latents (N, channels) that were asked for, premultiplied by opacity, opacity (N,), depth (N,)
    the expected distance (sum of w_i s_i, not divided by the opacity), normal (N, 3) sum of w_i n_i, orientation (N,) sum
    of w_i max(0, n_i . d)^2 (Ref-NeRF eq. 11).
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    orientation: Tensor


def camera_rays(cameras: Cameras, resolution: int, device: torch.device | str | None = None) -> Rays:
    """Rays through the pixel centres of all pictures, flattened to (B * H * W) row by row from the top left.

    Where lenses differ, ``pixel_radius`` is their mean. The cameras are on the CPU, the rays on ``device``.
    """
    pixel_radius = float(torch.tan(cameras.fov / 2).mean()) / resolution
    cameras = cameras.to(device)
    directions = cameras.directions(resolution)
    origins = cameras.positions()[:, None, None].expand_as(directions)
    return Rays(origins.reshape(-1, 3), directions.reshape(-1, 3), pixel_radius)


def to_pictures(flat: Tensor, resolution: int) -> Tensor:
    """What rays saw, (B * H * W, C) or (B * H * W,), as pictures (B, C, H, W)."""
    return flat.reshape(-1, resolution, resolution, flat.shape[1] if flat.ndim == 2 else 1).permute(0, 3, 1, 2)
