"""Coarser versions: fewer triangles, the same shape, colours and place."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.export.formats import FileOptions, place, write_asset, write_lods
from dreamfusion.export.lods import Level, levels_of_detail, triangles_of
from dreamfusion.export.texture import bake, sample_texture, unwrap
from dreamfusion.geometry.mesh import Mesh, is_watertight


def colour(points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.4 * points


@pytest.fixture(scope="module")
def ball() -> tuple[Mesh, np.ndarray]:
    body = trimesh.creation.icosphere(subdivisions=5, radius=0.8)
    vertices = np.asarray(body.vertices)
    mesh = unwrap(Mesh(vertices, np.asarray(body.faces, np.int64), vertices / 0.8), 256)
    return mesh, bake(mesh, colour, 256)


@pytest.fixture(scope="module")
def levels(ball) -> list[Level]:
    return levels_of_detail(*ball, 3)


def test_each_level_is_a_fourth_of_the_one_before(ball, levels):
    faces = [len(mesh.faces) for mesh, *_ in (ball, *levels)]
    assert faces[0] == 20480
    assert [a / b for a, b in itertools.pairwise(faces)] == pytest.approx([4, 4, 4], rel=0.05)
    assert [len(level.texture) for level in levels] == [128, 128, 128]
    assert triangles_of(2000, 5) == [500, 125] and triangles_of(399, 3) == []


def test_they_have_the_shape_and_the_colours(levels):
    for mesh, texture, _ in levels:
        body = mesh.geometry()
        assert is_watertight(Mesh(np.asarray(body.vertices), np.asarray(body.faces)))
        radii = np.linalg.norm(mesh.vertices, axis=1)
        assert np.abs(radii - 0.8).max() < 0.02
        middles = mesh.vertices[mesh.faces].mean(1)
        seen = sample_texture(texture, mesh.uv[mesh.faces].mean(1))
        exact = 0.5 + 0.4 * middles * (0.8 / np.linalg.norm(middles, axis=1, keepdims=True))
        assert np.abs(seen - exact).mean() < 0.01


def test_files_stand_where_the_asset_stands(ball, tmp_path: Path):
    """A coarse ball is a little smaller; it is not blown up to the size of the fine one."""
    options = FileOptions(height=2.0)
    write_asset(tmp_path / "ball.glb", *ball, "a ball", {}, options)
    written = write_lods(tmp_path / "ball.glb", *ball, 2, "a ball", options)
    assert [path.name for _, files in written for path in files] == ["ball_lod1.glb", "ball_lod2.glb"]
    for triangles, (path,) in written:
        (body,) = trimesh.load_scene(path).geometry.values()
        assert len(body.faces) == triangles
        distance = np.linalg.norm(body.vertices - [0, 1, 0], axis=1)
        assert np.abs(distance - 1).max() < 0.025
    half = Mesh(ball[0].vertices * 0.5, ball[0].faces)
    assert np.allclose(np.ptp(place(half, 2.0, like=ball[0]).vertices, axis=0), 1.0, atol=1e-6)
