"""Directions of fronts, as benchmarks/directions.py measures them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


@pytest.mark.parametrize("wanted", [0.0, 30.0, 195.0, 345.0])
def test_a_belief_around_a_direction_points_there(wanted: float) -> None:
    from directions import direction_of

    turn = torch.arange(12) * 30.0 - wanted
    belief = torch.exp(4 * (turn.deg2rad().cos() - 1))  # von Mises
    away = (direction_of(belief) - wanted + 180) % 360 - 180
    assert abs(away) < 0.1


def test_directions_without_a_preference_have_a_uniform_p() -> None:
    """By Monte Carlo: the share of uniform samples with a p below x is x."""
    from directions import rayleigh, resultant

    rng = np.random.default_rng(0)
    found = np.array([rayleigh(resultant(list(rng.uniform(0, 360, 20))), 20) for _ in range(4000)])
    for x in (0.05, 0.25, 0.5):
        assert (found < x).mean() == pytest.approx(x, abs=4 * math.sqrt(x * (1 - x) / 4000))


def test_one_direction_is_a_preference() -> None:
    from directions import rayleigh, resultant

    assert resultant([40.0] * 20) == pytest.approx(1) and rayleigh(1.0, 20) < 1e-7
    assert resultant([0, 90, 180, 270]) == pytest.approx(0) and rayleigh(0.0, 20) == pytest.approx(1, abs=1e-6)


def test_the_page_says_what_was_found() -> None:
    from page.directions import directions

    fronts = {str(k): {"degrees": 18.0 * k, "janus": k == 3} for k in range(20)} | {
        "20": {"degrees": None, "janus": False}
    }
    page = {
        "prompt": "a toilet",
        "preset": "mvdream",
        "steps": 200,
        "fronts": fronts,
        "janus": 1,
        "resultant": 0.013,
        "p": 0.99,
    }
    said = "\n".join(directions(page | {"commit": "abc", "date": "2026-01-02", "machine": "a machine"}))
    assert (
        "0.01" in said
        and "p = 0.99" in said
        and "21 seeds" in said
        and "several fronts: 1. Runs that show none: 1." in said
    )
    assert "No result is kept yet." in "\n".join(directions(None))
