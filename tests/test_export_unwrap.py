"""Unwrapping that is ended in time, and the projection that takes its place."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.asset import Asset
from dreamfusion.errors import UserError
from dreamfusion.export import unwrap_limit
from dreamfusion.export.box_projection import box_projection, neighbours_from_corners, shelved
from dreamfusion.export.packing import charts_of
from dreamfusion.export.texture import bake, sample_texture, unwrap, unwrap_within
from dreamfusion.geometry.distance import surface_points
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.mesh import Mesh, with_normals
from dreamfusion.geometry.surface import Surface, volume_surface
from dreamfusion.reports import reporting

SIZE = 256


def mesh_of(body: trimesh.Trimesh) -> Mesh:
    return with_normals(Mesh(np.asarray(body.vertices, np.float64), np.asarray(body.faces, np.int64)))


def ramp() -> Mesh:
    """Three turns of a spiral ramp: all of it faces up, and seen from there it covers itself."""
    angle = np.linspace(0, 6 * np.pi, 121)
    rim = [np.stack([r * np.cos(angle), 0.08 * angle / np.pi, r * np.sin(angle)], 1) for r in (0.3, 0.8)]
    k = np.arange(120)[:, None]
    faces = np.concatenate([k + np.array([0, 1, 121]), k + np.array([1, 122, 121])])
    return with_normals(Mesh(np.concatenate(rim), faces[:, ::-1].copy()))


def knot() -> Mesh:
    body = trimesh.creation.torus(0.6, 0.2, major_sections=64, minor_sections=32)
    rng = np.random.default_rng(0)
    return mesh_of(trimesh.Trimesh(body.vertices + rng.normal(size=body.vertices.shape) * 0.004, body.faces))


def soup() -> Mesh:
    """600 triangles without any order: more charts than are packed closely."""
    corners = np.random.default_rng(1).normal(size=(600, 1, 3)) * 0.4
    corners = corners + np.random.default_rng(2).normal(size=(600, 3, 3)) * 0.1
    return with_normals(Mesh(corners.reshape(-1, 3), np.arange(1800).reshape(-1, 3)))


BODIES = {
    "ball": lambda: mesh_of(trimesh.creation.icosphere(subdivisions=4, radius=0.8)),
    "knot": knot,
    "ramp": ramp,
    "soup": soup,
}


def counted(mesh: Mesh, size: int) -> np.ndarray:
    """How many triangles each texel's centre lies in, (size, size), by a second rasteriser; edges belong to none."""
    out = np.zeros((size, size), int)
    for a, b, c in mesh.uv[mesh.faces] * size:
        low, high = (
            np.floor(np.minimum(np.minimum(a, b), c)).astype(int),
            np.ceil(np.maximum(np.maximum(a, b), c)).astype(int),
        )
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
        sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        out[low[1] : high[1], low[0] : high[0]] += np.min(sides, 0) > 1e-7
    return out


@pytest.mark.parametrize("name", BODIES)
def test_a_projection_nowhere_overlaps_and_is_the_same_surface(name: str):
    mesh = BODIES[name]()
    made = box_projection(mesh, 1 / SIZE)
    assert made.uv.min() >= 0 and made.uv.max() <= 1
    hits = counted(made, 1024)
    assert hits.max() == 1 and hits.sum() > 0.1 * 1024**2
    a, b = (made.uv[made.faces[:, k]] - made.uv[made.faces[:, 0]] for k in (1, 2))
    twice = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    assert twice.min() > 0  # no triangle is mirrored
    assert np.array_equal(made.vertices[made.faces], mesh.vertices[mesh.faces])
    assert np.array_equal(made.normals[made.faces], mesh.normals[mesh.faces])
    true = np.linalg.norm(
        np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]] for k in (1, 2))), axis=1
    )
    shrunk = twice / true
    assert shrunk.max() < 4 * np.median(shrunk) and shrunk.min() > 0.2 * np.median(shrunk)


def test_charts_are_few_and_a_ramp_is_cut():
    ball = box_projection(BODIES["ball"](), 1 / SIZE)
    assert 6 <= charts_of(ball)[0] <= 12
    assert charts_of(box_projection(ramp(), 1 / SIZE))[0] >= 3
    assert charts_of(box_projection(soup(), 1 / SIZE))[0] > 500


def test_charts_stay_apart():
    """Blown up by the padding, charts of many boxes still do not meet."""
    made = box_projection(soup(), 0.002)
    count, chart = charts_of(made)
    low = np.array([made.uv[chart == k].min(0) for k in range(count)])
    high = np.array([made.uv[chart == k].max(0) for k in range(count)])
    gap = np.maximum(low[:, None] - high[None], low[None] - high[:, None]).max(2)
    assert gap[~np.eye(count, dtype=bool)].min() > 0.004 - 1e-9
    many = np.repeat(np.arange(5000), 3)
    uv = np.tile([[0.0, 0], [1, 0], [0, 1]], (5000, 1))
    assert shelved(uv, many, 1.0).max() <= 1  # padding that cannot be had shrinks


def test_neighbours_are_those_of_trimesh():
    body = trimesh.creation.icosphere(subdivisions=2)
    found = neighbours_from_corners(np.asarray(body.faces))
    pairs = {tuple(sorted(p)) for p in body.face_adjacency.tolist()}
    assert {tuple(sorted((f, g))) for f in range(len(found)) for g in found[f].tolist()} == pairs
    begin, end = np.asarray(body.faces), np.roll(body.faces, -1, 1)  # edge k is from corner k on
    for corner in (begin, end):
        assert (np.asarray(body.faces)[found] == corner[:, :, None]).any(2).all()


def test_colours_of_a_projection_are_right():
    made, in_time = unwrap_within(knot(), SIZE, 0.0)
    assert not in_time
    texture = bake(made, lambda p, n: 0.5 + 0.5 * p, SIZE)
    face, weights = surface_points(made, 5000)
    at = lambda v: np.einsum("nk,nkc->nc", weights, v[made.faces[face]])  # noqa: E731
    error = np.abs(sample_texture(texture, at(made.uv)) - (0.5 + 0.5 * at(made.vertices)))
    assert error.mean() < 0.004 and np.quantile(error, 0.999) < 0.03


def test_a_process_makes_the_same_atlas(monkeypatch: pytest.MonkeyPatch):
    mesh = BODIES["ball"]()
    here = unwrap(mesh, SIZE)
    monkeypatch.setattr(unwrap_limit, "LARGE", 0)
    there, in_time = unwrap_within(mesh, SIZE, 60.0)
    assert in_time and np.array_equal(here.uv, there.uv) and np.array_equal(here.faces, there.faces)


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """Processes that never end, in place of xatlas."""
    made = []

    def begin(command: list[str], **options) -> subprocess.Popen:
        made.append(start([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return made[-1]

    start = subprocess.Popen
    monkeypatch.setattr(unwrap_limit, "LARGE", 0)
    monkeypatch.setattr(unwrap_limit.subprocess, "Popen", begin)
    return made


def test_what_takes_too_long_is_ended(sleeper: list[subprocess.Popen]):
    begin = time.monotonic()
    made, in_time = unwrap_within(BODIES["ball"](), SIZE, 0.3)
    assert not in_time and made.uv is not None and time.monotonic() - begin < 30
    assert [process.poll() for process in sleeper] == [-9]


def test_it_can_be_stopped_meanwhile(sleeper: list[subprocess.Popen]):
    class Halt(Exception):
        pass

    def stop(*_) -> None:
        if sleeper:
            raise Halt

    with pytest.raises(Halt), reporting(stop):
        unwrap_within(BODIES["ball"](), SIZE, 60.0)
    assert [process.poll() for process in sleeper] == [-9]


def test_a_process_that_fails_is_no_disaster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unwrap_limit, "LARGE", 0)
    monkeypatch.setattr(unwrap_limit.xatlas_process, "__file__", "nothing.py")
    assert not unwrap_within(BODIES["ball"](), SIZE, 60.0)[1]


class Ball:
    def surface(self, settings: ExportSettings) -> Surface:
        density = lambda p: 40 * torch.sigmoid((0.7 - p.norm(dim=-1)) * 60)  # noqa: E731
        return volume_surface(density, lambda p: torch.full_like(p, 0.5), settings)


def test_an_asset_says_that_its_texture_is_projected():
    settings = ExportSettings(resolution=32, texture_size=64, level=20, fit=False, unwrap_seconds=0)
    asset = Asset.from_scene(Ball(), settings)  # type: ignore[arg-type]
    assert asset.notes["unwrap_seconds"] == "export.unwrap_seconds = 0: the texture is projected from six sides"
    from dreamfusion.commands.made_lines import projected, shape_line

    assert shape_line(asset.geometry_report() | projected(asset)).endswith(", texture projected from six sides")
    with pytest.raises((UserError, ValueError)):
        ExportSettings(unwrap_seconds=-1)
