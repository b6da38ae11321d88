"""What splats begin with: a surface, other splats, a file; and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.errors import UserError
from dreamfusion.geometry import splat_file
from dreamfusion.geometry.splat_file import PointCloud, SplatData, read_cloud
from dreamfusion.scene.harmonics import flat_colour, of_degree
from dreamfusion.scene.splatting import axes_of
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.test_scene_splats import splat_scene

FIELDS = [
    "x",
    "y",
    "z",
    *(f"f_dc_{k}" for k in range(3)),
    "opacity",
    *(f"scale_{k}" for k in range(3)),
    *(f"rot_{k}" for k in range(4)),
]


def ply(
    names: list[str], rows: np.ndarray, kind: str = "binary_little_endian", dtype: str = "float", **more: Any
) -> bytes:
    count = more.get("count", len(rows))
    lines = ["ply", f"format {kind} 1.0", "comment made by a test", f"element vertex {count}"]
    lines += [f"property {dtype} {name}" for name in names]
    head = "\n".join([*lines, "end_header", ""]).encode()
    if kind == "ascii":
        return head + "\n".join(" ".join(map(str, row)) for row in rows.tolist()).encode() + b"\n"
    order = "<" if "little" in kind else ">"
    return head + rows.astype(order + {"float": "f4", "double": "f8"}[dtype]).tobytes()


def some_splats(count: int = 20, rest: int = 0) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    names = FIELDS + [f"f_rest_{k}" for k in range(rest)]
    rows = rng.normal(size=(count, len(names)))
    rows[:, :3] *= 0.2
    rows[:, names.index("scale_0") : names.index("scale_0") + 3] -= 3
    return names, rows


@pytest.mark.parametrize(
    ("kind", "dtype"), [("binary_little_endian", "float"), ("binary_big_endian", "double"), ("ascii", "float")]
)
@pytest.mark.parametrize("rest", [0, 9, 45])
def test_files_of_splats_are_read(kind: str, dtype: str, rest: int, tmp_path: Path) -> None:
    names, rows = some_splats(rest=rest)
    path = tmp_path / "a.ply"
    path.write_bytes(ply(names, rows, kind, dtype))
    found = read_cloud(path)
    assert isinstance(found, SplatData)
    at = {name: rows[:, k] for k, name in enumerate(names)}
    np.testing.assert_allclose(found.centres[:, 1], at["y"], rtol=1e-6)
    np.testing.assert_allclose(found.log_scales[:, 2], at["scale_2"], rtol=1e-6)
    np.testing.assert_allclose(found.rotations[:, 3], at["rot_3"], rtol=1e-6)
    np.testing.assert_allclose(found.logits, at["opacity"], rtol=1e-6)
    np.testing.assert_allclose(found.harmonics[:, 0, 2], at["f_dc_2"], rtol=1e-6)
    if rest:  # all coefficients of red, then those of green, then those of blue
        np.testing.assert_allclose(found.harmonics[:, 2, 1], at[f"f_rest_{rest // 3 + 1}"], rtol=1e-6)
    for degree in (0, 3):
        scene = splat_scene(file=str(path), degree=degree)
        scene.begin()
        assert len(scene) == 20 and scene.harmonics.shape[1] == (degree + 1) ** 2
        torch.testing.assert_close(scene.centres.detach(), torch.from_numpy(found.centres))


def test_a_point_cloud_gets_its_colours_and_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points, colours = rng.uniform(-3, 3, (50, 3)) + np.array([9, 0, 0]), rng.integers(0, 256, (50, 3))
    trimesh.PointCloud(points, np.concatenate([colours, np.full((50, 1), 255)], 1)).export(tmp_path / "p.ply")
    found = read_cloud(tmp_path / "p.ply")
    assert isinstance(found, PointCloud) and np.linalg.norm(found.centres, axis=1).max() <= 0.851
    scene = splat_scene(file=str(tmp_path / "p.ply"))
    scene.begin()
    assert len(scene) == len(found.centres) >= 40
    torch.testing.assert_close(
        flat_colour(scene.harmonics.detach()), torch.from_numpy(found.colours).float(), atol=1e-5, rtol=0
    )
    assert set(np.round(found.colours * 255).astype(int).ravel()) <= set(colours.ravel())
    assert 0.05 < scene.log_scales.exp().mean() < 0.3


def test_a_large_scene_is_scaled_and_its_strays_are_left_out(tmp_path: Path) -> None:
    names, rows = some_splats(1000)
    rows[:, :3] = rows[:, :3] * 20 + 100
    rows[0, :3] = 1e5
    (tmp_path / "a.ply").write_bytes(ply(names, rows))
    found = read_cloud(tmp_path / "a.ply")
    assert isinstance(found, SplatData) and 900 < len(found.centres) < 1000
    radius = np.linalg.norm(found.centres, axis=1)
    assert radius.max() == pytest.approx(0.85, abs=1e-3)
    pair = [int(np.argmin(np.abs(rows[:, 6] - found.logits[k]))) for k in (3, 700)]
    scale = np.linalg.norm(found.centres[3] - found.centres[700]) / np.linalg.norm(
        rows[pair[0], :3] - rows[pair[1], :3]
    )
    assert np.exp(found.log_scales[3, 1] - rows[pair[0], 8]) == pytest.approx(scale, rel=1e-3)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 50, 100])
def test_a_small_cloud_keeps_all_its_points(count: int, tmp_path: Path) -> None:
    """It has no strays to leave out. Its box's centre is moved to the origin and its farthest point to 0.85."""
    points = np.random.default_rng(count).uniform(-30, 30, (count, 3)).astype(np.float32) + np.float32(100)
    (tmp_path / "a.ply").write_bytes(ply(["x", "y", "z"], points))
    found = read_cloud(tmp_path / "a.ply").centres
    expected = points - (points.min(0) + points.max(0)) / 2
    expected *= 0.85 / np.linalg.norm(expected, axis=1).max()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 150])
def test_splats_at_one_place_are_moved_and_keep_their_size(count: int, tmp_path: Path) -> None:
    names, rows = some_splats(count)
    rows[:, :3] = [7, -8, 9]
    (tmp_path / "a.ply").write_bytes(ply(names, rows))
    found = read_cloud(tmp_path / "a.ply")
    assert isinstance(found, SplatData) and found.centres.tolist() == [[0, 0, 0]] * count
    np.testing.assert_allclose(found.log_scales, rows[:, names.index("scale_0") :][:, :3], rtol=1e-6)


def test_a_mesh_file_is_covered_by_flat_splats(tmp_path: Path) -> None:
    trimesh.creation.icosphere(3).export(tmp_path / "ball.ply")
    scene = splat_scene(file=str(tmp_path / "ball.ply"), count=1500)
    scene.begin()
    with torch.no_grad():
        centres = torch.nn.functional.normalize(scene.centres, dim=1)
        axes = axes_of(scene.rotations, scene.log_scales)
        thin = torch.nn.functional.normalize(axes[:, :, 2], dim=1)
        assert ((thin * centres).sum(1) > 0.98).all()  # outward, and the shortest
        assert (axes[:, :, 2].norm(dim=1) < 0.8 * axes[:, :, 0].norm(dim=1)).all()
        seen = scene.render(orbit_view(orbit_cameras([0.0, 90]), 24))
    assert seen.opacity.mean() > 0.4 and seen.opacity.max() > 0.97


def test_splats_begin_with_the_field_or_the_mesh_before_them() -> None:
    from tests.test_scene_mesh import mesh_scene
    from tests.test_stages import ball_grid

    view = orbit_view(orbit_cameras([15, 135], 25), 64, "albedo")
    for before in (ball_grid(), mesh_scene(resolution=20)):
        with torch.no_grad():
            old = before.render(view)
        scene = splat_scene(count=3000)
        scene.begin_from(before, torch.Generator().manual_seed(0))
        with torch.no_grad():
            new = scene.render(view)
        one, other = old.opacity > 0.5, new.opacity > 0.5
        assert (one & other).sum() / (one | other).sum() > 0.88
        both = (old.opacity > 0.95) & (new.opacity > 0.95)
        assert (old.colour - new.colour).abs()[both.expand(-1, 3, -1, -1)].mean() < 0.06


def test_splats_begin_with_other_splats() -> None:
    before = splat_scene(degree=2)
    with torch.no_grad():
        before.harmonics.normal_(generator=torch.Generator().manual_seed(0))
    for degree in (0, 1, 3):
        scene = splat_scene(degree=degree, count=7)
        scene.begin_from(before, torch.Generator())
        assert torch.equal(scene.centres, before.centres)
        assert torch.equal(scene.harmonics, of_degree(before.harmonics, degree))
    assert torch.equal(of_degree(of_degree(before.harmonics, 3), 2), before.harmonics)


PACKED = b"ply\nformat ascii 1.0\nelement chunk 1\nproperty float x\nelement vertex 1\nend_header\n"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.splat", b"x" * 64, "antimatter15's format cannot be read"),
        ("a.spz", b"x", "Niantic's format cannot be read"),
        ("a.ply", b"", "a.ply is empty"),
        ("a.ply", b"PK\x03\x04 something else", "is not a PLY file"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n", "holds no splats and no points"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "lack x, y and z"),
        ("a.ply", PACKED, "compressed one of SuperSplat"),
        ("a.ply", b"ply\nformat odd 1.0\nelement vertex 1\nend_header\n", "names no format"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n", "which no splats have"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float x\nend_header\n1 1\n", "twice"),
        ("a.ply", ply(FIELDS, some_splats()[1])[:-30], "truncated: it holds 1,090 bytes of vertices, expected 1,120"),
        ("a.ply", ply(FIELDS, some_splats()[1], "ascii", count=30), "holds 20 whole vertices, expected 30"),
        ("a.ply", ply(FIELDS, some_splats()[1], count=2_000_000), "prune them to at most 1,000,000"),
        ("a.ply", ply([*FIELDS[:-1], "w"], some_splats()[1]), "vertices lack rot_3"),
        ("a.ply", ply([*FIELDS, "f_rest_0"], np.ones((3, 15))), "1 f_rest values"),
        ("a.ply", ply(FIELDS, np.full((3, 14), np.nan)), "values that are not numbers"),
        ("a.ply", ply(FIELDS, np.zeros((3, 14))), "rotations of length 0"),
        ("a.ply", ply(FIELDS, np.full((3, 14), 0.5)), "log and logit"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\nword\n", "not numbers"),
    ],
)  # fmt: skip
def test_files_that_hold_no_splats_end_in_one_line(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=said) as caught:
        splat_scene(file=str(path)).begin()
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_missing_or_huge_file_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="No such file"):
        splat_scene(file=str(tmp_path / "none.ply")).begin()
    monkeypatch.setattr(splat_file, "LARGEST", 10)
    (tmp_path / "a.ply").write_bytes(ply(*some_splats()))
    with pytest.raises(UserError, match="GiB"):
        splat_scene(file=str(tmp_path / "a.ply")).begin()
