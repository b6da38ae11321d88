"""Volumes carved by views, and the planes that start from them."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

from start import CARVED, SIDE, SLABS, Start, along_axes, carved, centres

from dreamfusion.priors.layout import PLANE_WIDTH

MIDDLE, RADIUS, COLOUR = torch.tensor([0.3, -0.2, 0.1]), 0.4, torch.tensor([0.8, 0.4, 0.2])


def views_of_a_ball(cameras: Tensor) -> Tensor:
    """Stored views (V, 6, 64, 64) of a ball, by solving for where each pixel's ray meets it."""
    azimuth, elevation, distance = cameras.unbind(-1)
    back = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)
    right = torch.stack([azimuth.cos(), torch.zeros_like(azimuth), -azimuth.sin()], -1)
    up = torch.linalg.cross(back, right)
    across = ((torch.arange(64) + 0.5) / 32 - 1) * math.tan(math.radians(47) / 2)
    x, y = across[None, None, :, None], -across[None, :, None, None]
    ray = x * right[:, None, None] + y * up[:, None, None] - back[:, None, None]  # one unit along the axis
    away = (back * distance[:, None])[:, None, None] - MIDDLE
    a, b, c = (ray * ray).sum(-1), (ray * away).sum(-1), (away * away).sum(-1) - RADIUS**2
    inside = b.square() - a * c
    along = (-b - inside.clamp_min(0).sqrt()) / a
    cover = (inside > 0).float()
    depth = (along - distance[:, None, None] + 1) / 2
    return torch.stack([*(c * cover for c in COLOUR), cover, 0.7 * cover, depth * cover], 1)


def cameras() -> Tensor:
    g = torch.Generator().manual_seed(0)
    turn, height = torch.rand(24, generator=g) * 2 * math.pi, torch.rand(24, generator=g) * 1.4 - 0.4
    return torch.stack([turn, height, 2.3 + 0.4 * torch.rand(24, generator=g)], 1)


def test_views_of_a_ball_carve_a_ball_in_its_colour() -> None:
    solid, surface = carved(views_of_a_ball(cameras()), cameras())
    away = (centres() - MIDDLE).norm(dim=-1)
    assert solid[away < RADIUS - 0.08].mean() > 0.98 and solid[away > RADIUS + 0.15].mean() < 0.02
    shell = (away - RADIUS).abs() < 0.03
    assert surface[3][shell].mean() > 0.4 and surface[3][away < RADIUS - 0.15].mean() < 0.02
    found = surface[:3].sum((1, 2, 3)) / surface[3].sum()
    torch.testing.assert_close(found, COLOUR, rtol=0, atol=0.03)


def test_planes_see_the_volume_along_their_axes() -> None:
    """The mean place of what is solid on each plane is the ball's: columns and rows are x and y, z and y, x and z."""
    seen = along_axes(*carved(views_of_a_ball(cameras()), cameras()))
    assert seen.shape == (3, CARVED, SIDE, SIDE)
    line = (torch.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    for plane, (column, row, axis) in enumerate(((0, 1, 2), (2, 1, 0), (0, 2, 1))):
        solid = seen[plane, :SLABS]
        total = solid.sum()
        assert abs(float((solid.sum((0, 1)) * line).sum() / total - MIDDLE[column])) < 0.04
        assert abs(float((solid.sum((0, 2)) * line).sum() / total - MIDDLE[row])) < 0.04
        slabs = (torch.arange(SLABS) + 0.5) * (2 / SLABS) - 1
        assert abs(float((solid.sum((1, 2)) * slabs).sum() / total - MIDDLE[axis])) < 0.06


def test_the_start_of_planes_is_shape_by_shape() -> None:
    torch.manual_seed(0)
    start = Start().eval()
    volumes = torch.rand(2, 3, CARVED, SIDE, SIDE)
    with torch.no_grad():
        both, one = start(volumes), start(volumes[1:])
    assert both.shape == (2, 3 * PLANE_WIDTH * SIDE**2)
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)
