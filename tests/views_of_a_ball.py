"""Stored views of a ball, for tests of the prior's tools."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamfusion.view.cameras import Cameras

MIDDLE, RADIUS, COLOUR = torch.tensor([0.3, -0.2, 0.1]), 0.4, (0.8, 0.4, 0.2)


def views_of_a_ball(cameras: Tensor) -> NDArray[np.uint8]:
    """Stored views (V, 6, 64, 64) of a ball, by solving for where each pixel's ray meets it. The light is 30 degrees above."""
    azimuth, elevation, distance = cameras.unbind(-1)
    right, up, back = Cameras(azimuth, elevation, distance, distance).axes()
    across = ((torch.arange(64) + 0.5) / 32 - 1) * math.tan(math.radians(47) / 2)
    x, y = across[None, None, :, None], -across[None, :, None, None]
    ray = x * right[:, None, None] + y * up[:, None, None] - back[:, None, None]  # one unit along the axis
    away = (back * distance[:, None])[:, None, None] - MIDDLE
    a, b, c = (ray * ray).sum(-1), (ray * away).sum(-1), (away * away).sum(-1) - RADIUS**2
    inside = b.square() - a * c
    along = (-b - inside.clamp_min(0).sqrt()) / a
    cover = (inside > 0).float()
    normal = (away + ray * along[..., None]) / RADIUS
    light = (up * 0.5 + back * 3**0.5 / 2)[:, None, None]
    shading = 0.5 + 0.5 * (normal * light).sum(-1).clamp_min(0)
    depth = (along - distance[:, None, None] + 1) / 2
    views = torch.stack([*(c * cover for c in COLOUR), cover, shading * cover, depth * cover], 1)
    return (views * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def cameras_around(count: int = 24) -> Tensor:
    """Cameras (V, 3) of azimuth, elevation and distance, all round."""
    g = torch.Generator().manual_seed(0)
    turn, height = torch.rand(count, generator=g) * 2 * math.pi, torch.rand(count, generator=g) * 1.4 - 0.4
    return torch.stack([turn, height, 2.3 + 0.4 * torch.rand(count, generator=g)], 1)
