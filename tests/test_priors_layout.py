"""The prior's layout: where its rays go, what they add up to, what the words choose, what training it moves."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dreamfusion.priors.denoiser import SPREAD, Denoiser, around_layout
from dreamfusion.priors.layout import NO_SHARE, PLANE_SIDE, PLANE_WIDTH, Layout, before, mixed, ray_points
from dreamfusion.priors.prior import cosine_schedule
from dreamfusion.view.cameras import orbit_cameras

CAMERAS = torch.tensor([[0.0, 0.0, 2.5], [1.0, 0.4, 2.3], [-2.0, -0.3, 2.7], [3.0, 1.5, 2.4]])


@pytest.fixture(scope="module")
def layout() -> Layout:
    torch.manual_seed(0)
    network = Layout(things=8, looks=3).eval().requires_grad_(False)
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
    planes = torch.zeros(1, 3, PLANE_WIDTH, PLANE_SIDE, PLANE_SIDE)
    weight = layout.point.weight.clone()
    try:
        layout.point.weight.zero_()
        layout.point.bias.fill_(-1e4)  # silu of it is 0: nothing but the density's bias is left
        found = layout.project(planes, CAMERAS, 16)
    finally:
        layout.point.weight.copy_(weight)
        layout.point.bias.zero_()
    _, spacing, depth = ray_points(CAMERAS, 16, 16)
    chord = (spacing * depth.shape[1])[:, 0]
    expected = 1 - torch.exp(-F.softplus(torch.tensor(density)) * chord / 0.08)
    torch.testing.assert_close(found[:, -2].flatten(1), expected, rtol=1e-4, atol=1e-5)
    assert not found[:, :-2].any()


def test_views_of_one_thing_are_what_each_would_be_alone(layout: Layout) -> None:
    planes, looks = layout.planes(torch.tensor([2, 5])), layout.looks(torch.tensor([0, 1]))
    told = torch.tensor([True, True, False, True])
    together = layout.draw(planes, looks, CAMERAS, told)
    for k in range(4):
        row = slice(k // 2, k // 2 + 1)
        alone = layout.draw(planes[row], looks[row], CAMERAS[k : k + 1], told[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-3, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert layout.draw(planes, looks, CAMERAS, told, rays=16).shape == (4, 4, 32, 32)


def test_coverage_puts_a_picture_before_any_colour() -> None:
    """Against the same picture composed over that colour in [0, 1]."""
    g = torch.Generator().manual_seed(0)
    shaded, cover, colour = torch.rand(2, 3, 8, 8, generator=g), torch.rand(2, 1, 8, 8, generator=g), torch.rand(2, 3)
    shaded = shaded * cover
    over_gray = (shaded + (1 - cover) * 0.5) * 2 - 1
    expected = (shaded + (1 - cover) * colour[:, :, None, None]) * 2 - 1
    answer = before(torch.cat([over_gray, cover], 1), colour * 2 - 1)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)


def test_words_choose_a_thing_and_a_look(layout: Layout) -> None:
    g = torch.Generator().manual_seed(1)
    tokens, mask = torch.randn(1, 5, 384, generator=g), torch.ones(1, 5, dtype=torch.bool)
    told = torch.ones(1, dtype=torch.bool)
    thing, look = layout.thing.bias.clone(), layout.look.bias.clone()
    try:
        layout.thing.bias[3] += 1e3
        layout.look.bias[2] += 1e3
        said = layout(tokens, mask, CAMERAS[:1], told)
    finally:
        layout.thing.bias.copy_(thing)
        layout.look.bias.copy_(look)
    drawn = layout.draw(layout.planes.weight[3:4], layout.looks.weight[2:3], CAMERAS[:1], told)
    torch.testing.assert_close(said, drawn[:, :3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sure", [0.0, 1.0, 20.0])
def test_leaving_out_what_weighs_nothing_changes_nothing(sure: float) -> None:
    g = torch.Generator().manual_seed(5)
    share = (torch.randn(3, 212, generator=g) * sure).softmax(-1)
    rows = torch.randn(212, 40, generator=g)
    kept = int((share > NO_SHARE).any(0).sum())
    assert kept == 212 if sure < 2 else kept < 60
    torch.testing.assert_close(mixed(share, rows), share @ rows, rtol=0, atol=2e-4)


def test_only_the_planes_of_things_seen_with_their_camera_move() -> None:
    torch.manual_seed(0)
    network = Layout(things=8, looks=3)
    torch.nn.init.normal_(network.out[-1].weight, std=0.05)
    for told in (False, True):
        network.zero_grad()
        pictures = network.draw(
            network.planes(torch.tensor([6])), network.looks(torch.tensor([1])), CAMERAS[1:2], torch.tensor([told]), 8
        )
        pictures.square().sum().backward()
        gradient = network.planes.weight.grad
        moved = set() if gradient is None else set(gradient.coalesce().indices()[0].tolist())
        moved = {k for k in moved if gradient.to_dense()[k].any()}
        assert moved == ({6} if told else set())


@pytest.mark.parametrize(("words", "camera"), [(True, True), (True, False), (False, False)])
def test_the_denoiser_starts_from_the_posterior_mean_around_the_layout(words: bool, camera: bool) -> None:
    """Against the mean and variance of x | z found by quadrature over x, for Gaussian x around the layout."""
    spread = SPREAD["nothing"] if not words else SPREAD["words and camera" if camera else "words"]
    t = torch.tensor([0.05, 0.4, 0.8])
    alpha, sigma = (x.double() for x in cosine_schedule(t))
    mean, z = 0.3, torch.tensor([0.5, 0.1, -1.2], dtype=torch.float64)
    x = torch.linspace(mean - 8 * spread, mean + 8 * spread, 20001, dtype=torch.float64)
    log = -((x - mean) ** 2) / (2 * spread**2) - (z[:, None] - alpha[:, None] * x) ** 2 / (2 * sigma[:, None] ** 2)
    p = log.softmax(-1)
    posterior = (p * x).sum(-1)
    error = ((p * (x - posterior[:, None]) ** 2).sum(-1)).sqrt() / sigma
    shape = (3, 3, 64, 64)
    pictures = z.float()[:, None, None, None].expand(shape)
    has_text, has_camera = torch.full((3,), words), torch.full((3,), camera)
    surprise, guess, scale = around_layout(pictures, t, torch.full(shape, mean), torch.full((3,), spread))
    expected = (z - alpha * mean) / (sigma**2 + spread**2 * alpha**2).sqrt()
    torch.testing.assert_close(surprise[:, 0, 0, 0].double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guess[:, 0, 0, 0].double(), (alpha * z - posterior) / sigma, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scale.flatten().double(), error, rtol=1e-4, atol=1e-5)
    fresh = Denoiser()(
        pictures, t, torch.full(shape, mean), torch.randn(3, 4, 384), torch.ones(3, 4, dtype=torch.bool), CAMERAS[:3], has_text, has_camera
    )  # fmt: skip
    torch.testing.assert_close(fresh, guess)
