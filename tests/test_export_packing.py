"""Charts in a square: whole, apart from each other, and with little room between."""

import numpy as np
import pytest
import trimesh

from dreamfusion.export.packing import charts_of, packed
from dreamfusion.export.texture import cover, unwrap
from dreamfusion.geometry.mesh import Mesh
from dreamfusion.geometry.raster import rasterise


def shapes(count: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Discs, triangles and bars of many sizes, all in one place: uv, faces, chart."""
    rng = np.random.default_rng(0)
    uv, faces, chart, start = [], [], [], 0
    for k in range(count):
        corners = (3, 4, 16)[k % 3]
        angle = 2 * np.pi * np.arange(corners) / corners
        size = rng.uniform(20, 90) * np.array([1, rng.uniform(0.2, 1)])
        uv.append(np.stack([np.cos(angle), np.sin(angle)], 1) * size)
        faces.append(start + np.stack([np.zeros(corners - 2), np.arange(1, corners - 1), np.arange(2, corners)], 1))
        chart += [k] * corners
        start += corners
    return np.concatenate(uv), np.concatenate(faces).astype(np.int64), np.array(chart)


def areas(uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Signed areas, so that a mirrored triangle is seen."""
    a, b = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2


def test_charts_keep_their_shape_and_one_scale():
    uv, faces, chart = shapes()
    made = packed(uv, faces, chart, 1 / 512)
    assert made.min() >= 0 and made.max() <= 1
    ratio = areas(made, faces) / areas(uv, faces)
    assert ratio == pytest.approx(np.full(len(faces), ratio[0]), rel=1e-6) and ratio[0] > 0
    assert areas(made, faces).sum() > 0.6


def test_charts_stay_apart():
    """By distances of many points of their borders, which knows nothing of the horizon."""
    uv, faces, chart = shapes()
    made, apart = packed(uv, faces, chart, 4 / 512), 8 / 512
    borders = []
    for k in range(chart.max() + 1):
        corners = made[chart == k]
        share = np.linspace(0, 1, 9)[:, None, None]
        borders.append((corners * (1 - share) + np.roll(corners, -1, 0) * share).reshape(-1, 2))
        assert corners.min() >= 4 / 512 - 1e-9 and corners.max() <= 1 - 4 / 512 + 1e-9
    for k, one in enumerate(borders):
        for other in borders[:k]:
            assert np.linalg.norm(one[:, None] - other[None], axis=2).min() > 0.99 * apart


def test_what_cannot_fit_is_said():
    uv, faces, chart = shapes()
    assert packed(uv, faces, chart, 0.2) is None


def test_an_unwrapped_body_uses_its_texture():
    body = trimesh.creation.torus(0.6, 0.25, major_sections=60, minor_sections=30)
    mesh = unwrap(
        Mesh(np.asarray(body.vertices), np.asarray(body.faces, np.int64), np.asarray(body.vertex_normals)), 256
    )
    assert charts_of(mesh)[0] > 3
    corners = (mesh.uv[mesh.faces] * 256).astype(np.float32)
    filled = rasterise(corners, np.ones((len(corners), 3), np.float32), 256, 256, 0.0)[0] >= 0
    assert filled.mean() == pytest.approx(np.abs(areas(mesh.uv, mesh.faces)).sum(), rel=0.02)  # no chart on another
    assert (cover(mesh, 256)[0] >= 0).mean() > 0.45  # a torus is cut into arcs, the worst there is
