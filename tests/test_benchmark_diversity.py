"""Distances between the assets of several seeds, as benchmarks/diversity.py measures them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


def towards(degrees: float) -> torch.Tensor:
    """An embedding of four sides that all point there."""
    turn = math.radians(degrees)
    return torch.tensor([[math.cos(turn), math.sin(turn)]]).expand(4, 2)


def test_the_spread_is_the_mean_distance_of_all_pairs() -> None:
    from diversity import spread

    expected = ((1 - 0.5) + (1 - 0.0) + (1 - math.cos(math.radians(30)))) / 3
    assert spread([towards(0), towards(60), towards(90)]) == pytest.approx(expected, abs=1e-6)
    assert spread([towards(0)]) is None


def test_an_asset_counts_as_the_model_that_it_is_nearest_to() -> None:
    from diversity import figures, summary

    models = {3: towards(0), 5: towards(90), 8: towards(180)}
    found = figures([towards(10), towards(-20), towards(80), towards(100)], models)
    assert found["nearest"] == [3, 3, 5, 5] and found["shapes"] == 2
    assert found["models"] == pytest.approx((1 + 1 + 2) / 3, abs=1e-4)
    whole = summary({"a": found, "b": found | {"shapes": 3}})
    assert whole["shapes"]["value"] == 2.5 and whole["three_or_more"] == 1 and whole["count"] == 2


def test_models_of_one_name_differ_for_the_judge() -> None:
    from diversity import distance, seen_shape

    from dreamfusion.evaluation.facing import shapes_meant

    one, other = (seen_shape(k) for k in shapes_meant("a chair")[:2])
    assert one.shape[0] == 4 and distance(one, one) == pytest.approx(0, abs=1e-5)
    assert distance(one, other) > 0.01


def test_the_page_has_a_row_for_each_preset_that_was_measured() -> None:
    from page.diversity import diversity

    figure = {"value": 0.25, "low": 0.2, "high": 0.3}
    shapes = {"value": 3.5, "low": 3.25, "high": 3.75}
    found = {"assets": figure, "models": figure, "shapes": shapes, "three_or_more": 20, "count": 24}
    page = {"seeds": 4, "summary": found, "commit": "abc", "date": "2026-01-02", "machine": "a machine"}
    said = "\n".join(diversity({"fast": page, "words": None}))
    assert "| `fast` | 24 | 3.50 (3.25 to 3.75) of 4 | 20 | 0.250 (0.200 to 0.300)" in said and "| `words`" not in said
    assert "No result is kept yet." in "\n".join(diversity({"fast": None}))
