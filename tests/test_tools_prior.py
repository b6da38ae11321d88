"""The prior's data set: vocabulary, looks, captions, and how pictures are painted."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

from captions import Caption, draw_caption, usual
from looks import HELD_OUT_SHARE, Look, draw_look, held_out
from models import read_names
from paint import compose, paint_rule, parts_of, places
from vocabulary import COLOURS as FIRST_COLOURS
from vocabulary import MODELS, SYNONYMS, held_out_pairs
from vocabulary import held_out as first_held_out

from dreamfusion.priors.appearance import CLAY, COLOURS, FACTORS, MAINS, MATERIALS, PATTERNS, PROPORTIONS, WHOLE
from dreamfusion.priors.paint import BRIGHTEST, kept, tint
from dreamfusion.priors.solid import FIELDS, STRIPE, fields
from dreamfusion.view.cameras import orbit_cameras

NAMES = read_names()


def test_the_first_vocabulary_is_consistent() -> None:
    assert len(MODELS) == 212 and len(FIRST_COLOURS) == 12
    assert len(set(MODELS.values())) == len(MODELS), "one model shows one name"
    assert set(SYNONYMS) <= set(MODELS) <= set(NAMES)
    said = [s for more in SYNONYMS.values() for s in more]
    assert len(said) == len(set(said)) and not set(said) & set(MODELS), "a word may mean one thing only"


def test_there_are_enough_looks_and_every_part_has_its_number() -> None:
    assert set(FIRST_COLOURS) <= set(COLOURS)
    assert len(COLOURS) + len(MATERIALS) + len(PATTERNS) - 1 >= 40
    assert Look("red", "white", "striped").numbers == (MAINS.index("red"), 1 + list(COLOURS).index("white"), 1)
    assert FACTORS == (2 + len(COLOURS) + len(MATERIALS), 1 + len(COLOURS), len(PATTERNS))
    assert all(max(stretch) <= 1 for stretch in PROPORTIONS.values()), "else shapes would leave the unit sphere"


def test_held_out_looks_are_a_fixed_share_and_never_drawn() -> None:
    pairs = [(name, main) for name in NAMES for main in (*COLOURS, *MATERIALS)]
    share = sum(held_out(name, Look(main)) for name, main in pairs) / len(pairs)
    assert abs(share - HELD_OUT_SHARE) < 0.01
    for name, colour in held_out_pairs():  # what was held out of the first vocabulary still is
        assert held_out(name, Look(colour)) and first_held_out(name, colour)
    rng = np.random.default_rng(0)
    drawn = [draw_look("sofa", rng) for _ in range(400)]
    assert not any(held_out("sofa", look) for look in drawn) and held_out("sofa", Look("red"))
    assert {look.pattern for look in drawn} == set(PATTERNS) - {
        p for p in PATTERNS if p and held_out("sofa", Look("", "", p))
    }
    assert all(not look.second or look.second != look.main for look in drawn)


def test_usual_captions_have_their_articles() -> None:
    assert usual(NAMES["armchair"]) == "an armchair"
    assert usual(NAMES["armchair"], Look("orange")) == "an orange armchair"
    assert usual(NAMES["armchair"], Look("red", "blue", "striped")) == "a red and blue striped armchair"
    assert usual(NAMES["armchair"], Look("", "white", "dotted")) == "a dotted armchair"
    assert usual(NAMES["tulips"], Look("red")) == "red tulips"
    assert usual(NAMES["sofa"], Look(CLAY)) == "a clay model of a sofa"


def test_drawn_captions_say_what_they_mean() -> None:
    rng = np.random.default_rng(1)
    captions = [draw_caption(NAMES, rng) for _ in range(1500)]
    for caption in captions:
        words = (caption.name, *NAMES[caption.name].synonyms)
        assert any(word in caption.text for word in words), caption
        if caption.look.main in COLOURS:
            assert caption.look.main in caption.text, caption
        if caption.look.main == CLAY:
            assert "clay model of" in caption.text
        if caption.look.main and caption.look.second not in ("", "white"):  # white is often left out
            assert caption.look.second in caption.text, caption
    clay = [c.text for c in captions if c.look.main == CLAY]
    assert any("stripe" in text or "dot" in text for text in clay) and any(m in t for t in clay for m in MATERIALS)
    assert len({c.name for c in captions}) > 800 and len({c.text for c in captions}) > 1450
    assert draw_caption(NAMES, np.random.default_rng(3), "sofa") == draw_caption(
        NAMES, np.random.default_rng(3), "sofa"
    )
    assert isinstance(captions[0], Caption)


def test_solid_textures_have_their_periods_and_stay_in_range() -> None:
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = fields(points)
    assert found.shape == (2000, len(FIELDS)) and found.abs().max() <= 1
    torch.testing.assert_close(found[:, :3], points, rtol=0, atol=0)
    up = points + torch.tensor([0.3, STRIPE, -0.2])
    stripes = FIELDS.index("stripes")
    torch.testing.assert_close(fields(up)[:, stripes], found[:, stripes], rtol=0, atol=1e-4)
    assert (found[:, 3:].std(0) > 0.2).all(), "every field says something"
    assert torch.equal(fields(points), found)


def test_a_depth_and_a_pixel_are_the_place_that_the_camera_saw() -> None:
    """Against points that are projected with the package's own cameras."""
    cameras = orbit_cameras([33.0, -140.0], elevation_deg=25.0)
    points = torch.tensor([[0.3, -0.2, 0.4], [-0.5, 0.6, 0.1]])
    right, up, back = cameras.axes()
    relative = points - cameras.positions()
    x, y, z = ((relative * axis).sum(-1) for axis in (right, up, back))
    half = math.tan(math.radians(47) / 2)
    column, row = ((x / -z / half + 1) * 32 - 0.5).round().long(), ((1 - y / -z / half) * 32 - 0.5).round().long()
    depth = torch.zeros(2, 64, 64)
    for k in range(2):
        depth[k, row[k], column[k]] = (-z[k] - (cameras.radius[k] - 1)) / 2
    found = places(depth, cameras.condition())
    for k in range(2):
        torch.testing.assert_close(found[k, row[k], column[k]], points[k], rtol=0, atol=0.04)  # a pixel is 0.03 wide


def test_noise_of_a_nearly_black_thing_is_no_pattern_of_its_paint() -> None:
    """A black piano, whose stored albedo is 0.026 give or take 0.02, becomes brown and not brown and black."""

    def dark_over_light(mean: float) -> float:
        albedo = torch.tensor([mean - 0.02, mean + 0.02]).expand(1, 3, 1, 2)
        painted = tint(albedo, torch.tensor([COLOURS["brown"]]), torch.tensor([mean]), torch.tensor([0]))[0, 0, 0]
        return float(painted[0] / painted[1])

    assert dark_over_light(0.026) > 0.8
    assert dark_over_light(0.5) == pytest.approx((0.48 / 0.52) ** 0.6, abs=0.02)


def test_tint_keeps_light_and_dark_and_takes_the_hue() -> None:
    albedo = torch.linspace(0.05, 0.9, 16).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    painted = tint(albedo, torch.tensor([COLOURS["red"]]), torch.tensor([0.45]), torch.tensor([0]))
    luma = painted[0].mean(0).flatten()
    assert (luma[1:] >= luma[:-1] - 1e-6).all() and painted.max() <= BRIGHTEST
    assert (painted[0, 0] > painted[0, 1] + 0.05).all()


def seen(albedo: list[float], cover: float = 1.0, depth: float = 0.5, shade: float = 0.75) -> torch.Tensor:
    """A stored view (1, 6, 8, 8) of one colour."""
    layers = [*(c * cover for c in albedo), cover, shade * cover, depth * cover]
    return torch.tensor(layers).reshape(1, 6, 1, 1).expand(1, 6, 8, 8)


def painted(pixels: torch.Tensor, look: Look, parts: float = float("nan"), rule: int = 0) -> torch.Tensor:
    """That view in a look, (3, 8, 8) in [-1, 1]."""
    camera, numbers = torch.tensor([[0.0, 0.0, 2.5]]), torch.tensor([look.numbers])
    return compose(pixels, camera, numbers, torch.tensor([0.4]), torch.tensor([rule]), torch.tensor([parts]))[0]


@pytest.mark.parametrize("cover", [0.0, 0.4, 1.0])
def test_compose_puts_gray_behind_and_shades_before(cover: float) -> None:
    own = painted(seen([0.2, 0.4, 0.6], cover), Look())
    expected = 2 * (cover * 0.75 * torch.tensor([0.2, 0.4, 0.6]) + (1 - cover) * 0.5) - 1
    torch.testing.assert_close(own.mean((1, 2)), expected, rtol=0, atol=1e-5)
    clay = painted(seen([0.2, 0.4, 0.6], cover), Look(CLAY))
    torch.testing.assert_close(
        clay.mean((1, 2)), torch.full((3,), 2 * (cover * 0.8 * 0.75 + (1 - cover) * 0.5) - 1), rtol=0, atol=1e-5
    )


def test_patterns_show_both_colours_and_materials_shine() -> None:
    for pattern in PATTERNS:
        if pattern in WHOLE:
            continue
        picture = painted(seen([0.4, 0.4, 0.4]), Look("red", "blue", pattern))
        red, blue = picture[0] > picture[2] + 0.3, picture[2] > picture[0] + 0.3
        assert 0.1 < red.float().mean() < 0.9 and 0.1 < blue.float().mean() < 0.9, pattern
    for pattern in WHOLE:
        assert painted(seen([0.4, 0.4, 0.4]), Look("", "", pattern)).flatten(1).std(1).max() > 0.05
    for name, material in MATERIALS.items():
        lit, dark = (painted(seen([0.4, 0.4, 0.4], shade=s), Look(name)) for s in (1.0, 0.5))
        excess = (lit + 1) / 2 - (dark + 1)  # half of the light without a highlight would be half of the picture
        assert (float(excess.amin()) > 0.1) == (material.highlight > 0.1), name


def test_light_and_dark_parts_take_the_two_colours() -> None:
    two = torch.cat([seen([0.1, 0.1, 0.1])[..., :4], seen([0.6, 0.6, 0.6])[..., 4:]], -1)
    edge = parts_of(two[:, :3], two[:, 3:4])
    assert 0.1 < edge < 0.6 and math.isnan(parts_of(seen([0.4, 0.4, 0.4])[:, :3], two[:, 3:4]))
    picture = painted(two, Look("red", "blue"), edge)
    assert (picture[2, :, :4] > picture[0, :, :4]).all() and (picture[0, :, 4:] > picture[2, :, 4:]).all()
    assert (painted(seen([0.4, 0.4, 0.4]), Look("red", "blue"))[0].diff(dim=0) <= 0.01).all(), (
        "else the lower part is the second"
    )


RED, BLACK, GRAY, WHITE = ([0.8, 0.0, 0.0], [0.05, 0.05, 0.05], [0.5, 0.5, 0.55], [0.9, 0.9, 0.9])


@pytest.mark.parametrize(
    ("thing", "rule", "stays"),
    [
        (
            [RED, RED, RED, BLACK, GRAY],
            2,
            [False, False, False, True, True],
        ),  # a car: neither tyres nor chrome are painted
        ([WHITE, WHITE, GRAY, BLACK, RED], 1, [False, False, False, True, False]),  # a bus: windows stay black
        ([BLACK, BLACK, BLACK, WHITE, RED], 0, [False] * 5),  # a piano: else little would be left to paint
    ],
)
def test_paint_goes_on_what_a_painter_would_paint(thing: list[list[float]], rule: int, stays: list[bool]) -> None:
    albedo = torch.tensor(thing).T.reshape(1, 3, 1, 5)
    found, luma = paint_rule(albedo, torch.ones(1, 1, 1, 5))
    assert found == rule
    assert kept(albedo, torch.tensor([rule])).flatten().bool().tolist() == stays
    weight = torch.tensor([0.299, 0.587, 0.114])
    wanted = (albedo[0, :, 0].T @ weight)[[not x for x in stays]].mean()
    assert luma == pytest.approx(float(wanted), abs=1e-6)
    blue = tint(albedo, torch.tensor([COLOURS["blue"]]), torch.tensor([luma]), torch.tensor([rule]))[0, :, 0].T
    for k, same in enumerate(stays):
        assert torch.equal(blue[k], albedo[0, :, 0, k]) if same else float(blue[k, 2] - blue[k, 0]) > 0.02
