"""The prior's layout: where its rays go, what they add up to, what the words choose, what training it moves."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dreamfusion.priors.denoiser import SPREAD, Denoiser, around_layout
from dreamfusion.priors.layout import (
    INSTANCES,
    NO_SHARE,
    PLANE_WIDTH,
    POINT_WIDTH,
    Layout,
    Sizes,
    before,
    mixed,
    ray_points,
)
from dreamfusion.priors.prior import cosine_schedule
from dreamfusion.priors.solid import FIELDS, fields
from dreamfusion.view.cameras import orbit_cameras

SIZES = Sizes(names=5, shapes=8, looks=(3, 2), proportions=2, side=16)
CAMERAS = torch.tensor([[0.0, 0.0, 2.5], [1.0, 0.4, 2.3], [-2.0, -0.3, 2.7], [3.0, 1.5, 2.4]])


@pytest.fixture(scope="module")
def layout() -> Layout:
    torch.manual_seed(0)
    network = Layout(SIZES).eval().requires_grad_(False)
    network.shown[:] = torch.tensor([[1] * INSTANCES, [2] * INSTANCES, [0] * INSTANCES, [3, 5, 7] * 4, [4] * INSTANCES])
    network.stretches[1] = torch.tensor([1.0, 0.5, 1.0])
    for block in network.paint:  # fresh blocks end in zeros: make them do something
        torch.nn.init.normal_(block.conv2.weight, std=0.05)
    return network


def test_rays_cross_the_unit_sphere_from_side_to_side() -> None:
    points, spacing, depth = ray_points(CAMERAS, 16, 24)
    assert points.shape == (4, depth.shape[1], 256, 3)
    assert (points.norm(dim=-1) < 1).sum() > 0.7 * points[..., 0].numel()
    inside = spacing[:, 0] > 0.1
    entry = points[:, 0] - (points[:, 1] - points[:, 0]) / 2
    torch.testing.assert_close(entry.norm(dim=-1)[inside], torch.ones(int(inside.sum())), rtol=0, atol=1e-4)
    torch.testing.assert_close(depth.diff(dim=1), spacing.expand(-1, depth.shape[1] - 1, -1), rtol=0, atol=1e-5)


def test_a_point_lands_in_the_pixel_that_the_camera_says() -> None:
    cameras = orbit_cameras([0.0, 57.3, -114.6], elevation_deg=20.0)
    points, _, _ = ray_points(cameras.condition(), 16, 24)
    right, up, back = cameras.axes()
    relative = points - cameras.positions()[:, None, None]
    x, y, z = (torch.einsum("bsrk,bk->bsr", relative, axis) for axis in (right, up, back))
    half = math.tan(math.radians(47) / 2)
    column = ((x / -z / half + 1) * 8 - 0.5).unflatten(-1, (16, 16))
    row = ((1 - y / -z / half) * 8 - 0.5).unflatten(-1, (16, 16))
    centres = torch.arange(16.0)
    torch.testing.assert_close(column, centres.expand_as(column), rtol=0, atol=1e-3)
    torch.testing.assert_close(row, centres[:, None].expand_as(row), rtol=0, atol=1e-3)


def test_even_fog_has_the_opacity_of_beer_and_lambert(layout: Layout) -> None:
    density = layout.density.bias.item()
    planes = torch.zeros(1, 3 * PLANE_WIDTH * SIZES.side**2)
    weight = layout.point.weight.clone()
    try:
        layout.point.weight.zero_()
        layout.point.bias.fill_(-1e4)  # silu of it is 0: nothing but the density's bias is left
        found = layout.meet(planes, CAMERAS, 16)
    finally:
        layout.point.weight.copy_(weight)
        layout.point.bias.zero_()
    _, spacing, depth = ray_points(CAMERAS, 16, 16)
    chord = (spacing * depth.shape[1])[:, 0]
    expected = 1 - torch.exp(-F.softplus(torch.tensor(density)) * chord / 0.08)
    torch.testing.assert_close(found[:, POINT_WIDTH].flatten(1), expected, rtol=1e-4, atol=1e-5)
    assert not found[:, :POINT_WIDTH].any()


def ball(layout: Layout) -> torch.Tensor:
    """Planes (1, W) that are dense in the middle: every feature falls with the distance from it."""
    line = torch.linspace(-1, 1, SIZES.side)
    hill = 3 - 12 * (line[:, None] ** 2 + line**2)
    return hill.expand(1, 3 * PLANE_WIDTH, SIZES.side, SIZES.side).flatten(1)


def test_solid_textures_are_those_of_the_place_that_rays_meet(layout: Layout) -> None:
    """Rays through the middle of an opaque ball meet it on its near side, on the axis to the camera."""
    weight = layout.point.weight.clone(), layout.density.weight.clone()
    try:
        layout.point.weight.fill_(0.5)
        layout.density.weight.fill_(4.0)
        found = layout.meet(ball(layout), CAMERAS[:2], 32)
    finally:
        layout.point.weight.copy_(weight[0])
        layout.density.weight.copy_(weight[1])
    middle = found[:, :, 15:17, 15:17].mean((2, 3))
    assert (middle[:, POINT_WIDTH] > 0.99).all()
    place = middle[:, POINT_WIDTH + 2 : POINT_WIDTH + 5]
    azimuth, elevation, _ = CAMERAS[:2].unbind(-1)
    towards = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)
    assert (F.cosine_similarity(place, towards) > 0.99).all() and (place.norm(dim=1) > 0.2).all()
    torch.testing.assert_close(middle[:, POINT_WIDTH + 2 :][:, :4], fields(place)[:, :4], rtol=0, atol=0.1)
    assert found.shape[1] == POINT_WIDTH + 2 + len(FIELDS)


def test_a_stretched_thing_is_as_high_as_its_stretch_says(layout: Layout) -> None:
    weight = layout.point.weight.clone(), layout.density.weight.clone()
    try:
        layout.point.weight.fill_(0.5)
        layout.density.weight.fill_(4.0)
        whole, flat = (
            layout.meet(ball(layout), CAMERAS[:1], 32, stretch)[0, POINT_WIDTH]
            for stretch in (None, torch.tensor([[1.0, 0.5, 1.0]]))
        )
    finally:
        layout.point.weight.copy_(weight[0])
        layout.density.weight.copy_(weight[1])
    height = [float((x > 0.5).any(1).sum()) for x in (whole, flat)]
    width = [float((x > 0.5).any(0).sum()) for x in (whole, flat)]
    assert abs(height[1] / height[0] - 0.5) < 0.1 and abs(width[1] - width[0]) <= 1


def test_views_of_one_thing_are_what_each_would_be_alone(layout: Layout) -> None:
    planes, looks = layout.planes(torch.tensor([2, 5])), layout.looks(torch.tensor([0, 1]))
    together = layout.draw(planes, looks, CAMERAS)
    for k in range(4):
        row = slice(k // 2, k // 2 + 1)
        alone = layout.draw(planes[row], looks[row], CAMERAS[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-3, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert layout.draw(planes, looks, CAMERAS, rays=16).shape == (4, 4, 32, 32)


def test_coverage_puts_a_picture_before_any_colour() -> None:
    """Against the same picture composed over that colour in [0, 1]."""
    g = torch.Generator().manual_seed(0)
    shaded, cover, colour = torch.rand(2, 3, 8, 8, generator=g), torch.rand(2, 1, 8, 8, generator=g), torch.rand(2, 3)
    shaded = shaded * cover
    over_gray = (shaded + (1 - cover) * 0.5) * 2 - 1
    expected = (shaded + (1 - cover) * colour[:, :, None, None]) * 2 - 1
    answer = before(torch.cat([over_gray, cover], 1), colour * 2 - 1)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("instance", "shape"), [(0, 3), (1, 5), (2, 7), (4, 5), (INSTANCES, 3)])
def test_words_choose_a_shape_a_look_and_a_proportion(layout: Layout, instance: int, shape: int) -> None:
    """Name 3 has the shapes 3, 5 and 7; the look is paint 2 with second colour 1 (row 4), the proportion is the flat one."""
    g = torch.Generator().manual_seed(1)
    tokens, mask = torch.randn(1, 5, 384, generator=g), torch.ones(1, 5, dtype=torch.bool)
    heads = (layout.name.bias, 3), (layout.look.bias, 2), (layout.look.bias, 4), (layout.proportion.bias, 1)
    kept = [bias.clone() for bias, _ in heads]
    try:
        for bias, row in heads:
            bias[row] += 1e3
        said = layout(layout.understood(tokens, mask, torch.zeros(1, 4), instance), CAMERAS[:1])
    finally:
        for (bias, _), old in zip(heads[::-1], kept[::-1], strict=True):
            bias.copy_(old)
    style = layout.looks.weight[2:3] + layout.looks.weight[4:5]
    drawn = layout.draw(layout.planes.weight[shape : shape + 1], style, CAMERAS[:1], stretch=layout.stretches[1:])
    torch.testing.assert_close(said, drawn[:, :3], rtol=1e-4, atol=1e-5)


def test_what_words_mean_adds_up_part_by_part(layout: Layout) -> None:
    g = torch.Generator().manual_seed(1)
    said = layout.read(torch.randn(2, 5, 384, generator=g), torch.ones(2, 5, dtype=torch.bool))
    ones = torch.ones(2)
    for share in (said.name, *said.look.split(SIZES.looks, 1), said.proportion):
        torch.testing.assert_close(share.sum(1), ones)
    torch.testing.assert_close(layout.shape_share(said.name, 2).sum(1), ones)
    assert Sizes.of(layout.state_dict()) == SIZES


@pytest.mark.parametrize("sure", [0.0, 1.0, 20.0])
def test_leaving_out_what_weighs_nothing_changes_nothing(sure: float) -> None:
    g = torch.Generator().manual_seed(5)
    share = (torch.randn(3, 212, generator=g) * sure).softmax(-1)
    rows = torch.randn(212, 40, generator=g)
    kept = int((share > NO_SHARE).any(0).sum())
    assert kept == 212 if sure < 2 else kept < 60
    torch.testing.assert_close(mixed(share, rows), share @ rows, rtol=0, atol=2e-4)


def test_only_the_planes_of_shapes_that_were_drawn_move() -> None:
    torch.manual_seed(0)
    network = Layout(SIZES)
    torch.nn.init.normal_(network.out[-1].weight, std=0.05)
    pictures = network.draw(network.planes(torch.tensor([6])), network.looks(torch.tensor([1])), CAMERAS[1:2], 8)
    pictures.square().sum().backward()
    gradient = network.planes.weight.grad
    assert gradient is not None and gradient.coalesce().indices()[0].tolist() == [6]
    assert gradient.to_dense()[6].any()


def test_the_denoiser_starts_from_the_posterior_mean_around_the_layout() -> None:
    """Against the mean and variance of x | z found by quadrature over x, for Gaussian x around the layout."""
    t = torch.tensor([0.05, 0.4, 0.8])
    alpha, sigma = (x.double() for x in cosine_schedule(t))
    mean, z = 0.3, torch.tensor([0.5, 0.1, -1.2], dtype=torch.float64)
    x = torch.linspace(mean - 8 * SPREAD, mean + 8 * SPREAD, 20001, dtype=torch.float64)
    log = -((x - mean) ** 2) / (2 * SPREAD**2) - (z[:, None] - alpha[:, None] * x) ** 2 / (2 * sigma[:, None] ** 2)
    p = log.softmax(-1)
    posterior = (p * x).sum(-1)
    error = ((p * (x - posterior[:, None]) ** 2).sum(-1)).sqrt() / sigma
    shape = (3, 3, 64, 64)
    pictures = z.float()[:, None, None, None].expand(shape)
    surprise, guess, scale = around_layout(pictures, t, torch.full(shape, mean), SPREAD)
    expected = (z - alpha * mean) / (sigma**2 + SPREAD**2 * alpha**2).sqrt()
    torch.testing.assert_close(surprise[:, 0, 0, 0].double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guess[:, 0, 0, 0].double(), (alpha * z - posterior) / sigma, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scale.flatten().double(), error, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Denoiser()(pictures, t, torch.full(shape, mean)), guess)
