"""The prior's layout: where its rays go, what they add up to, what the words choose, how it is painted."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dreamfusion.kernels import hull_kernels
from dreamfusion.priors.appearance import CLAY, FACTORS, MAINS, PATTERNS
from dreamfusion.priors.layout import COVER, INSTANCES, LIT, Layout, Light, Sizes, Thing, before
from dreamfusion.priors.planes import (
    HULL,
    PLANE_WIDTH,
    SAMPLES,
    THICKNESS,
    cells,
    composited,
    marched,
    packed_hull,
    unpacked_hull,
)
from dreamfusion.priors.solid import FIELDS, fields
from dreamfusion.view.cameras import Cameras

SIZES = Sizes(names=5, shapes=8, looks=FACTORS, proportions=2, side=16)
CAMERAS = torch.tensor([[0.0, 0.0, 2.5], [1.0, 0.4, 2.3], [-2.0, -0.3, 2.7], [3.0, 1.5, 2.4]])
WHOLE = torch.ones(HULL**3, dtype=torch.bool)
PAINT = torch.tensor([0.0, 0.5, -1.0])


@pytest.fixture(scope="module")
def layout() -> Layout:
    torch.manual_seed(0)
    network = Layout(SIZES).eval().requires_grad_(False)
    network.name_shapes([[1], [2], [0], [3, 5, 7], [4]])
    network.stretches[1] = torch.tensor([1.0, 0.5, 1.0])
    return network


def look_of(main: str, second: int = 0, pattern: str = "") -> torch.Tensor:
    """A look (1, K) of one of each part."""
    rows = MAINS.index(main), len(MAINS) + second, FACTORS[0] + FACTORS[1] + PATTERNS.index(pattern)
    look = torch.zeros(1, sum(FACTORS))
    look[0, list(rows)] = 1
    return look


def fog(layout: Layout, density: float) -> Layout:
    """The same layout with one density everywhere."""
    network = Layout(SIZES).requires_grad_(False)
    network.load_state_dict(layout.state_dict())
    network.density.weight.zero_()
    network.density.bias.fill_(density)
    return network


def ball_hull(radius: float) -> torch.Tensor:
    """The cells whose middles are in a ball."""
    line = (torch.arange(HULL) + 0.5) * (2 / HULL) - 1
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).flatten(0, 2).norm(dim=-1) < radius


def test_even_fog_has_the_opacity_of_beer_and_lambert(layout: Layout) -> None:
    # With a gradient asked for, the plain version answers, which follows every ray to its end.
    thing = Thing(torch.zeros(3, 16, 16, PLANE_WIDTH, requires_grad=True), WHOLE, PAINT)
    found = fog(layout, -1.0).meet(thing, CAMERAS, 16)[:, COVER].detach()
    azimuth, elevation, distance = CAMERAS.unbind(-1)
    rays = Cameras(azimuth, elevation, distance, torch.full((4,), math.radians(47))).rays(16)
    closest = -(rays[0] * rays[1]).sum(-1)
    chord = 2 * (1 - (distance[:, None, None] ** 2 - closest**2)).clamp_min(0).sqrt()
    expected = 1 - torch.exp(-F.softplus(torch.tensor(-1.0)) * chord / THICKNESS)
    torch.testing.assert_close(found, torch.where(expected > 0.01, expected, 0.0), rtol=1e-4, atol=1e-5)


def test_nothing_is_met_outside_the_hull_and_places_are_on_its_near_side(layout: Layout) -> None:
    """Dense fog in a ball of cells: the ball is seen, and its middle at its near end."""
    thing = Thing(torch.zeros(3, 16, 16, PLANE_WIDTH), ball_hull(0.5), PAINT)
    met = fog(layout, 30.0).meet(thing, CAMERAS[:2], 64)
    half = math.tan(math.radians(47) / 2)
    for k, distance in enumerate(CAMERAS[:2, 2].tolist()):
        seen = 0.5 / math.sqrt(distance**2 - 0.25) / half * 32  # pixels
        assert float(met[k, COVER].sum()) == pytest.approx(math.pi * seen**2, rel=0.12)  # cells stick out
    azimuth, elevation, _ = CAMERAS[:2].unbind(-1)
    towards = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)
    place = met[:, LIT + 1 : LIT + 4, 31:33, 31:33].mean((2, 3))
    torch.testing.assert_close(place, 0.5 * towards, rtol=0, atol=0.06)
    torch.testing.assert_close(met[:, LIT + 1 :, 32, 32][:, :4], fields(met[:, LIT + 1 : LIT + 4, 32, 32])[:, :4])
    assert met.shape[1] == 5 + len(FIELDS)


def test_a_stretched_thing_is_as_high_as_its_stretch_says(layout: Layout) -> None:
    thing = Thing(torch.zeros(3, 16, 16, PLANE_WIDTH), ball_hull(0.6), PAINT)
    whole, flat = (
        fog(layout, 30.0).meet(thing, CAMERAS[:1], 64, stretch)[0, COVER] > 0.5
        for stretch in (None, torch.tensor([1.0, 0.5, 1.0]))
    )
    assert float(flat.any(1).sum() / whole.any(1).sum()) == pytest.approx(0.5, abs=0.06)
    assert abs(int(flat.any(0).sum()) - int(whole.any(0).sum())) <= 1


def test_the_kernel_marches_as_the_plain_version(layout: Layout) -> None:
    g = torch.Generator().manual_seed(0)
    origin, towards = torch.randn(200, 3, generator=g), F.normalize(torch.randn(200, 3, generator=g), dim=1)
    near, spacing = torch.rand(200, generator=g) - 1, torch.rand(200, generator=g) * 0.05
    inside, shape = torch.rand(3, HULL**3, generator=g) < 0.3, torch.randint(3, (200,), generator=g)
    ray, depth = marched(origin, towards, near, spacing, SAMPLES, inside, shape)
    found = hull_kernels.marched(
        *(x.numpy() for x in (origin, towards, near, spacing)), SAMPLES, inside.numpy(), shape.numpy()
    )
    ours = set(zip(*(x.tolist() for x in found), strict=True))
    plain = set(zip(ray.tolist(), depth.tolist(), strict=True))
    assert len(ours ^ plain) <= 0.002 * len(plain)  # a sample on the border of two cells may go either way
    assert (torch.from_numpy(found[0]).diff() >= 0).all()


@pytest.mark.parametrize("stretch", [(1.0, 1.0, 1.0), (0.6, 1.0, 0.8)])
def test_the_kernel_meets_what_the_plain_version_meets(layout: Layout, stretch: tuple[float, float, float]) -> None:
    thing = layout.thing(F.one_hot(torch.tensor(2), 8).float())
    thing = Thing(thing.planes * 10, ball_hull(0.7), PAINT)
    azimuth, elevation, distance = CAMERAS.unbind(-1)
    origin, towards = Cameras(azimuth, elevation, distance, torch.full((4,), math.radians(47))).rays(24)
    towards = towards.flatten(1, 2)
    origin = origin.flatten(1, 2).expand_as(towards)
    found = [meet(thing, origin, towards, torch.tensor(stretch)) for meet in (layout.plainly_met, layout.quickly_met)]
    assert 0.2 < found[0][:, -1].mean() < 0.9
    away = (found[0] - found[1]).abs().amax(1)
    assert (
        away.median() < 1e-4 and (away < 5e-3).float().mean() > 0.995
    )  # a ray ends early; a sample may change its cell


def test_compositing_is_that_of_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    ray = torch.tensor([0, 0, 0, 2, 2, 3])
    values, optical = torch.randn(6, 2, generator=g), torch.rand(6, generator=g) * 3
    found = composited(values, optical, ray, 5)
    for r in range(5):
        through, total = 1.0, torch.zeros(3)
        for v, o in zip(values[ray == r], optical[ray == r].tolist(), strict=True):
            share = through * (1 - math.exp(-o))
            through -= share
            total += share * torch.cat([v, torch.ones(1)])
        torch.testing.assert_close(found[r], total, rtol=1e-5, atol=1e-6)


def test_hulls_survive_packing() -> None:
    inside = torch.rand(3, HULL**3, generator=torch.Generator().manual_seed(0)) < 0.4
    packed = packed_hull(inside)
    assert packed.shape == (3, HULL**3 // 8) and packed.dtype == torch.uint8
    assert torch.equal(unpacked_hull(packed), inside)
    corner = cells(torch.tensor([[-1.0, -1.0, -1.0], [0.99, 0.99, 0.99], [2.0, -2.0, 0.01]])).tolist()
    assert corner == [0, HULL**3 - 1, (HULL - 1) * HULL * HULL + HULL // 2]


def test_views_of_one_thing_are_what_each_would_be_alone(layout: Layout) -> None:
    thing, look = layout.thing(F.one_hot(torch.tensor(2), 8).float()), look_of("red")
    together = layout.draw(thing, look, CAMERAS)
    for k in range(4):
        torch.testing.assert_close(
            together[k : k + 1], layout.draw(thing, look, CAMERAS[k : k + 1]), rtol=1e-3, atol=1e-4
        )
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert layout.draw(thing, look, CAMERAS, rays=16).shape == (4, 4, 16, 16)


def test_looks_change_colours_and_not_the_outline(layout: Layout) -> None:
    thing = layout.thing(F.one_hot(torch.tensor(2), 8).float())
    met = layout.meet(thing, CAMERAS[:1])
    red, clay, half = (
        layout.colour(met, look, PAINT)
        for look in (look_of("red"), look_of(CLAY), (look_of("red") + look_of(CLAY)) / 2)
    )
    assert torch.equal(red[:, 3], clay[:, 3])
    covered = red[0, 3] > 0.9
    assert (red[0, 0] - red[0, 2])[covered].mean() > 0.1
    assert (clay[0, 0] - clay[0, 2])[covered].abs().max() < 1e-5
    torch.testing.assert_close(
        half, (red + clay) / 2, rtol=0, atol=1e-5
    )  # no highlights: what is in between is the mean


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
    """Name 3 has the shapes 3, 5 and 7; the look is blue with a green second colour, the proportion is the flat one."""
    g = torch.Generator().manual_seed(1)
    tokens, mask = torch.randn(1, 5, 384, generator=g), torch.ones(1, 5, dtype=torch.bool)
    look = look_of("blue", 4)
    heads = [
        (layout.name.bias, 3),
        (layout.proportion.bias, 1),
        *((layout.look.bias, k) for k in look[0].nonzero()[:, 0].tolist()),
    ]
    kept = [bias.clone() for bias, _ in heads]
    try:
        for bias, row in heads:
            bias[row] += 1e3
        said = layout(layout.understood(tokens, mask, torch.zeros(1, 4), instance), CAMERAS[:1])
    finally:
        for (bias, _), old in zip(heads[::-1], kept[::-1], strict=True):
            bias.copy_(old)
    thing = layout.thing(F.one_hot(torch.tensor(shape), 8).float())
    drawn = layout.draw(thing, look, CAMERAS[:1], stretch=layout.stretches[1])
    torch.testing.assert_close(said, drawn[:, :3], rtol=1e-4, atol=1e-5)


def test_what_words_mean_adds_up_part_by_part(layout: Layout) -> None:
    g = torch.Generator().manual_seed(1)
    said = layout.read(torch.randn(2, 5, 384, generator=g), torch.ones(2, 5, dtype=torch.bool))
    ones = torch.ones(2)
    for share in (said.name, *said.look.split(SIZES.looks, 1), said.proportion):
        torch.testing.assert_close(share.sum(1), ones)
    torch.testing.assert_close(layout.shape_share(said.name, 2).sum(1), ones)
    assert Sizes.of(layout.state_dict()) == SIZES


def test_several_shapes_blend_their_planes_and_join_their_hulls(layout: Layout) -> None:
    network = Layout(SIZES).requires_grad_(False)
    network.hull.copy_(packed_hull(torch.stack([ball_hull(0.3), *[WHOLE] * 6, ball_hull(0.6)])))
    share = torch.tensor([0.25, 0, 0, 0, 0, 0, 0, 0.75])
    thing = network.thing(share)
    torch.testing.assert_close(thing.planes.flatten(), share @ network.planes.weight)
    assert torch.equal(thing.inside, ball_hull(0.6))


def test_told_the_light_it_shades_as_told(layout: Layout) -> None:
    """Lambert's law on what was met; without a key light, plain colours."""
    thing, look, camera = layout.thing(F.one_hot(torch.tensor(2), 8).float()), look_of("red"), CAMERAS[1:2]
    towards = F.normalize(torch.tensor([[0.3, 0.9, -0.2]]), dim=1)
    met = layout.meet(thing, camera, light=Light(towards))
    assert met[0, LIT].max() > 0.05 and (met[0, LIT] - layout.meet(thing, camera)[0, LIT]).abs().max() > 0.005
    plain = layout.draw(thing, look, camera, light=Light(towards, 1.0))[0]
    lit = layout.draw(thing, look, camera, light=Light(towards, 0.2))[0]
    solid = plain[3] > 0.98
    shaded, colour = (
        x[0, solid] + 1 - (1 - x[3, solid]) for x in (lit, plain)
    )  # without the gray behind; red alone is bright
    torch.testing.assert_close(shaded / colour, (0.2 + 0.8 * met[0, LIT])[solid], rtol=0, atol=1e-4)
