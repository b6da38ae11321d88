"""The layout made of planes (tools/prior): where its rays go, what they add up to, what training it moves."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dreamfusion.view.cameras import orbit_cameras

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))
from planes import Planes, ray_points

CAMERAS = torch.tensor([[0.0, 0.0, 2.5], [1.0, 0.4, 2.3], [-2.0, -0.3, 2.7], [3.0, 1.5, 2.4]])


@pytest.fixture(scope="module")
def layout() -> Planes:
    torch.manual_seed(0)
    network = Planes(atoms=8).eval().requires_grad_(False)
    for block in network.paint:  # fresh blocks end in zeros: make them do something
        torch.nn.init.normal_(block.conv2.weight, std=0.05)
    return network


def test_rays_cross_the_unit_sphere_from_side_to_side() -> None:
    points, spacing, depth = ray_points(CAMERAS, 16)
    assert points.shape == (4, depth.shape[1], 256, 3)
    assert (points.norm(dim=-1) < 1).sum() > 0.7 * points[..., 0].numel()
    inside = spacing[:, 0] > 0.1
    entry = points[:, 0] - (points[:, 1] - points[:, 0]) / 2
    torch.testing.assert_close(entry.norm(dim=-1)[inside], torch.ones(int(inside.sum())), rtol=0, atol=1e-4)
    torch.testing.assert_close(depth.diff(dim=1), spacing.expand(-1, depth.shape[1] - 1, -1), rtol=0, atol=1e-5)


def test_a_point_lands_in_the_pixel_that_the_camera_says() -> None:
    cameras = orbit_cameras([0.0, 57.3, -114.6], elevation_deg=20.0)
    points, _, _ = ray_points(cameras.condition(), 16)
    right, up, back = cameras.axes()
    relative = points - cameras.positions()[:, None, None]
    x, y, z = (torch.einsum("bsrk,bk->bsr", relative, axis) for axis in (right, up, back))
    half = math.tan(math.radians(47) / 2)
    column = ((x / -z / half + 1) * 8 - 0.5).unflatten(-1, (16, 16))
    row = ((1 - y / -z / half) * 8 - 0.5).unflatten(-1, (16, 16))
    centres = torch.arange(16.0)
    torch.testing.assert_close(column, centres.expand_as(column), rtol=0, atol=1e-3)
    torch.testing.assert_close(row, centres[:, None].expand_as(row), rtol=0, atol=1e-3)


def test_even_fog_has_the_opacity_of_beer_and_lambert(layout: Planes) -> None:
    density = layout.density.bias.item()
    planes = torch.zeros(1, 3, layout.point.in_features, 32, 32)
    weight = layout.point.weight.clone()
    try:
        layout.point.weight.zero_()
        layout.point.bias.fill_(-1e4)  # silu of it is 0: nothing but the density's bias is left
        found = layout.project(planes, CAMERAS, 16)
    finally:
        layout.point.weight.copy_(weight)
        layout.point.bias.zero_()
    _, spacing, depth = ray_points(CAMERAS, 16)
    chord = (spacing * depth.shape[1])[:, 0]
    expected = 1 - torch.exp(-F.softplus(torch.tensor(density)) * chord / 0.08)
    torch.testing.assert_close(found[:, -2].flatten(1), expected, rtol=1e-4, atol=1e-5)
    assert not found[:, :-2].any()


def test_views_that_share_words_are_what_each_would_be_alone(layout: Planes) -> None:
    g = torch.Generator().manual_seed(1)
    tokens, mask = torch.randn(2, 5, 384, generator=g), torch.ones(2, 5, dtype=torch.bool)
    told = torch.tensor([True, True, False, True])
    together = layout(tokens, mask, CAMERAS, told)
    for k in range(4):
        row = slice(k // 2, k // 2 + 1)
        alone = layout(tokens[row], mask[row], CAMERAS[k : k + 1], told[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-3, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert layout(tokens, mask, CAMERAS, told, coarse=True).shape == (4, 3, 32, 32)


def test_pictures_without_camera_do_not_move_the_planes() -> None:
    torch.manual_seed(0)
    network = Planes(atoms=8)
    tokens, mask = torch.randn(1, 4, 384), torch.ones(1, 4, dtype=torch.bool)
    for told in (False, True):
        network.zero_grad()
        network(tokens, mask, CAMERAS[1:2], torch.tensor([told]), coarse=True).square().sum().backward()
        gradient = network.atoms.grad
        assert (gradient is not None and bool(gradient.any())) == told
