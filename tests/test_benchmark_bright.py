"""White things with two paints, as benchmarks/bright.py makes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreamfusion.priors import paint

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


def test_paint_is_changed_for_a_while() -> None:
    from bright import painting

    albedo, white = torch.full((1, 3, 2, 2), 0.9), torch.ones(1, 3)
    mean, rule, own = torch.tensor([0.6]), torch.tensor([0]), (paint.BRIGHTEST, paint.DIM)
    with pytest.raises(KeyboardInterrupt), painting(1.0, 0.0):
        assert paint.tint(albedo, white, mean, rule).max() > 0.99
        raise KeyboardInterrupt
    assert (paint.BRIGHTEST, paint.DIM) == own and paint.tint(albedo, white, mean, rule).max() <= own[0]


def test_contrast_is_of_what_is_opaque(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of an opaque square is of luminance 0.2 and half of 0.6: 0.2 over 0.4. Around it is something brighter, and fog."""
    import bright

    albedo, opacity = torch.ones(4, 3, 64, 64), torch.full((4, 1, 64, 64), 0.5)
    albedo[:, :, 16:32, 16:48], albedo[:, :, 32:48, 16:48], opacity[:, :, 16:48, 16:48] = 0.2, 0.6, 1.0
    pictures = {"albedo": albedo, "opacity": opacity}
    monkeypatch.setattr(bright, "render_view", lambda scene, view, kind: pictures[kind])
    assert bright.contrast(object()) == pytest.approx(0.5, abs=1e-3)
    opacity[:] = 0
    assert bright.contrast(object()) is None


def test_the_page_says_what_was_found() -> None:
    from page.bright import bright

    share = {"value": 0.75, "low": 0.3, "high": 0.95, "count": 4}
    row = {"normals_off": {"mean": 21.26}, "contrast": {"mean": 0.311}, "r1": share, "r1_textureless": share}
    page = {
        "what": "bright",
        "preset": "fast",
        "suite": "bundled-153",
        "paints": {"before": [1, 0], "now": [0.88, 0.12]},
    }
    page |= {"kinds": {"white": {"before": row, "now": row | {"normals_off": {"mean": None}}}}}
    said = "\n".join(bright(page | {"commit": "abc", "date": "2026-01-02", "machine": "a machine"}))
    assert "| white | before | 21.3° | 0.31 | 75.0 % (30 to 95) |" in said and "| white | now | – | 0.31 |" in said
    assert "No result is kept yet." in "\n".join(bright(None))
