"""``benchmarks/assets.py``: what is measured of an exported asset."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh


def test_bright_undersides_are_told_in_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cube whose underside is 153 and whose other faces are 127 bright: of the faces' luminances b and s (1 and 5 of them) and upward
    components -1, 1 and four of 0, the covariance is -(b - s) / 6 and the variances are 5 (b - s)^2 / 36 and 1 / 3."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import assets

    cube = trimesh.creation.box()
    normals = cube.face_normals.repeat(3, 0)
    texture = np.full((8, 8, 3), 127, np.uint8)
    texture[:, :4] = 153  # the left half
    uv = np.where(normals[:, 1:2] < -0.5, (0.2, 0.5), (0.8, 0.5))
    faces = np.arange(len(normals)).reshape(-1, 3)
    mesh = SimpleNamespace(vertices=cube.vertices[cube.faces].reshape(-1, 3), faces=faces, normals=normals, uv=uv)
    asset = SimpleNamespace(mesh=mesh, texture=texture)
    assert assets.undersides(asset) == pytest.approx(153 / 127)
    assert assets.albedo_slope(asset) == pytest.approx(-(1 / 6) / (5 / 36 / 3) ** 0.5, abs=1e-6)
    mesh.normals = np.zeros_like(normals)
    assert assets.undersides(asset) is None
