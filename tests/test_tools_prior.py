"""The prior's data set: vocabulary, captions, and how pictures are put together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

from captions import captions
from dataset import compose, kept, paint_rule, tint
from vocabulary import COLOURS, HELD_OUT_SHARE, MODELS, SYNONYMS, held_out, held_out_pairs


def test_vocabulary_is_large_and_consistent() -> None:
    assert len(MODELS) >= 130 and len(COLOURS) == 12
    assert len(set(MODELS.values())) == len(MODELS), "one model shows one name"
    assert set(SYNONYMS) <= set(MODELS)
    said = [s for more in SYNONYMS.values() for s in more]
    assert len(said) == len(set(said)) and not set(said) & set(MODELS), "a word may mean one thing only"


def test_held_out_pairs_are_a_fixed_share_of_all() -> None:
    pairs = held_out_pairs()
    assert abs(len(pairs) / (len(MODELS) * len(COLOURS)) - HELD_OUT_SHARE) < 0.02
    assert ("sofa", "red") in pairs and held_out("sofa", "red") and not held_out("armchair", "red")


def test_captions_have_their_articles() -> None:
    assert captions("armchair", "", "")[0] == "an armchair"
    assert captions("armchair", "red", "back")[0] == "a back view of a red armchair"
    assert captions("armchair", "orange", "overhead")[0] == "an overhead view of an orange armchair"
    assert captions("tulips", "red", "")[0] == "red tulips"
    clay = captions("sofa", "clay", "back")
    assert clay[0] == "a back view of a clay model of a sofa" and "a back view of a clay model of a red couch" in clay


def test_tint_keeps_light_and_dark_and_takes_the_hue() -> None:
    albedo = torch.linspace(0.05, 0.9, 16).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    painted = tint(albedo, torch.tensor([COLOURS["red"]]), torch.tensor([0.45]), torch.tensor([0]))
    luma = painted[0].mean(0).flatten()
    assert (luma[1:] >= luma[:-1] - 1e-6).all()
    assert (painted[0, 0] > painted[0, 1] + 0.05).all()


@pytest.mark.parametrize("cover", [0.0, 1.0])
def test_compose_puts_gray_behind_and_shades_before(cover: float) -> None:
    pixels = torch.cat([torch.tensor([0.2, 0.4, 0.6]) * cover, torch.tensor([cover, 0.75 * cover])]).reshape(1, 5, 1, 1)
    half, rule = torch.tensor([0.5]), torch.tensor([0])
    plain = compose(pixels, None, torch.tensor([False]), half, rule)
    expected = 2 * 0.75 * torch.tensor([0.2, 0.4, 0.6]) - 1 if cover else torch.zeros(3)
    torch.testing.assert_close(plain.flatten(), expected, rtol=0, atol=1e-6)
    clay = compose(pixels, None, torch.tensor([True]), half, rule)
    torch.testing.assert_close(
        clay.flatten(), torch.full((3,), 2 * 0.8 * 0.75 - 1 if cover else 0.0), rtol=0, atol=1e-6
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
