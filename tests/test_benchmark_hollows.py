"""Hollow things, as benchmarks/hollows.py measures them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.scene.scene import Rendering
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import View

ROOT = Path(__file__).parents[1]
CAMERAS = orbit_cameras([30.0, 200.0], 20.0)


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


def test_what_is_a_tenth_behind_is_off_by_a_tenth() -> None:
    import hollows

    prior = load_prior("bundled")
    assert isinstance(prior, BundledPrior)
    away, cover = hollows.meant_distance(prior, "a red armchair", CAMERAS)
    assert 1.5 < away[cover > hollows.SURE].min() < away[cover > hollows.SURE].max() < 3.5

    class Behind:
        opacity = cover[:, None]

        def render(self, view: View) -> Rendering:
            assert view.size == hollows.SIZE and torch.equal(view.cameras.azimuth, CAMERAS.azimuth)
            return Rendering(torch.zeros(1), self.opacity, (away + 0.1)[:, None] * self.opacity, torch.zeros(1))

    scene: Any = Behind()
    assert hollows.distance_off(scene, prior, "a red armchair", CAMERAS) == pytest.approx(0.1, abs=1e-5)
    scene.opacity = torch.zeros_like(scene.opacity)
    assert hollows.distance_off(scene, prior, "a red armchair", CAMERAS) is None


def test_the_page_says_what_was_found() -> None:
    import hollows
    from page.hollows import hollows as said_of

    rows = {
        "without": {"a": {"distance_off": 0.1, "normals_off": 20.0}, "b": {"distance_off": 0.2, "normals_off": None}},
        "with": {"a": {"distance_off": 0.05, "normals_off": 12.0}, "b": {"distance_off": 0.05, "normals_off": 9.0}},
    }
    found = hollows.summary(rows)
    assert (
        found["change"]["distance_off"]["value"] == pytest.approx(-0.1) and found["with"]["normals_off"]["count"] == 1
    )
    page = {"what": "hollows", "preset": "balanced", "share": 0.5, "summary": found, "rows": rows}
    said = "\n".join(said_of(page | {"commit": "abc", "date": "2026-01-02", "machine": "a machine"}))
    assert (
        "| without depths | 0.150 (0.100 to 0.200) | 20.0" in said and "| change | -0.100 (" in said and "50%" in said
    )
    assert "No result is kept yet." in "\n".join(said_of(None))
