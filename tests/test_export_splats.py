"""Splats as files: read back by other readers, drawn alike, and refused where there are none."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pygltflib
import pytest
import torch
import trimesh

from dreamfusion.asset import Asset
from dreamfusion.cli import main
from dreamfusion.export import splat_files
from dreamfusion.export.formats import place
from dreamfusion.generation import generate
from dreamfusion.geometry.splat_file import SplatData, read_cloud
from dreamfusion.scene.harmonics import basis, flat_colour
from dreamfusion.scene.splat_scene import SplatScene
from dreamfusion.settings.presets import resolve
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import GrayBallPrior
from tests.test_scene_splats import SPLATS, splat_scene

ATTRIBUTES = [f"KHR_gaussian_splatting:{name}" for name in ("ROTATION", "SCALE", "OPACITY", "SH_DEGREE_0_COEF_0")]


def lively(degree: int = 2) -> SplatScene:
    scene = splat_scene(degree=degree, opacity=0.5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, part in scene.parts().items():
            if name != "centres":
                part += 0.3 * torch.randn(part.shape, generator=generator)
    return scene


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_ply_begins_the_same_scene_again(degree: int, tmp_path: Path) -> None:
    scene = lively(degree)
    (tmp_path / "a.ply").write_bytes(splat_files.ply(scene.data()))
    other = splat_scene(degree=degree, file=str(tmp_path / "a.ply"))
    other.begin()
    for name, part in scene.parts().items():
        assert torch.equal(part, other.parts()[name]), name
    view = orbit_view(orbit_cameras([10.0, 130.0], 20.0), 24, "albedo")
    with torch.no_grad():
        assert torch.equal(scene.render(view).colour, other.render(view).colour)


def test_a_ply_has_the_layout_that_viewers_expect(tmp_path: Path) -> None:
    """The names in their order, all float, and a reader that did not write it."""
    held = lively(1).data()
    path = tmp_path / "a.ply"
    path.write_bytes(splat_files.ply(held))
    head = path.read_bytes().partition(b"end_header")[0].decode().split("\n")
    names = [
        "x",
        "y",
        "z",
        "nx",
        "ny",
        "nz",
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        *(f"f_rest_{k}" for k in range(9)),
        "opacity",
    ]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert head[3:-1] == [f"property float {name}" for name in names]
    rows = trimesh.load(path).metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(rows["f_rest_4"], held.harmonics[:, 2, 1])  # green of the second one above f_dc
    np.testing.assert_array_equal(rows["rot_0"], held.rotations[:, 0])
    assert (rows["nx"] == 0).all() and len(rows) == 200


def accessor(file: pygltflib.GLTF2, name: str) -> np.ndarray:
    entry = file.accessors[file.meshes[0].primitives[0].attributes.__dict__[name]]
    assert entry.componentType == pygltflib.FLOAT
    view = file.bufferViews[entry.bufferView]
    wide = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[entry.type]
    data = file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    return np.frombuffer(data, "<f4").reshape(entry.count, wide)


def test_a_glb_is_what_the_extension_says(tmp_path: Path) -> None:
    """KHR_gaussian_splatting: its required properties and attributes, their types, and what they mean."""
    scene = lively(2)
    foot, scale = np.array([0.1, -0.4, 0.0]), 1.7
    path = tmp_path / "a.glb"
    path.write_bytes(splat_files.glb(scene.data(), foot, scale, {"prompt": "a ball"}, "a"))
    file = pygltflib.GLTF2().load(path)
    assert file is not None and file.extensionsUsed == ["KHR_gaussian_splatting"] and not file.extensionsRequired
    (primitive,) = file.meshes[0].primitives
    assert primitive.mode == pygltflib.POINTS and primitive.indices is None
    said = primitive.extensions["KHR_gaussian_splatting"]
    assert (said["kernel"], said["colorSpace"]) == ("ellipse", "srgb_rec709_display")
    assert (said["projection"], said["sortingMethod"]) == ("perspective", "cameraDistance")
    names = {k for k, v in primitive.attributes.__dict__.items() if v is not None}
    harmonics = {f"KHR_gaussian_splatting:SH_DEGREE_{n}_COEF_{k}" for n in range(3) for k in range(2 * n + 1)}
    assert names == {"POSITION", "COLOR_0", *ATTRIBUTES} | harmonics

    centres = accessor(file, "POSITION")
    np.testing.assert_allclose(centres, (scene.data().centres - foot) * scale, atol=1e-6)
    bounds = file.accessors[primitive.attributes.POSITION]
    np.testing.assert_allclose([bounds.min, bounds.max], [centres.min(0), centres.max(0)])
    rotation, sizes, opacity = (accessor(file, name) for name in ATTRIBUTES[:3])
    np.testing.assert_allclose(np.linalg.norm(rotation, axis=1), 1, atol=1e-6)
    assert sizes.min() > 0 and 0 <= opacity.min() and opacity.max() <= 1 and opacity.shape == (200, 1)
    # the covariance of the specification's matrix C, with w last, is that of the scene, scaled
    x, y, z, w = rotation.T.astype(np.float64)
    turn = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]).transpose(2, 0, 1)  # fmt: skip
    matrix = turn * sizes[:, None]
    from dreamfusion.scene.splatting import covariances

    with torch.no_grad():
        mine = covariances(scene.rotations, scene.log_scales)[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    np.testing.assert_allclose(matrix @ matrix.transpose(0, 2, 1), mine.numpy() * scale**2, rtol=1e-3, atol=1e-6)
    # colours: 0.5 + sum of coefficients and harmonics, m from -l to l
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    stored = np.stack(
        [accessor(file, f"KHR_gaussian_splatting:SH_DEGREE_{n}_COEF_{k}") for n in range(3) for k in range(2 * n + 1)],
        1,
    )
    colour = 0.5 + (basis(2, directions).numpy()[..., None] * stored).sum(1)
    with torch.no_grad():
        expected = 0.5 + torch.einsum("nk,nkc->nc", basis(2, directions), scene.harmonics)
        plain = flat_colour(scene.harmonics).numpy()
    np.testing.assert_allclose(colour, expected.numpy(), atol=1e-5)
    points = accessor(file, "COLOR_0")
    back = np.where(points[:, :3] <= 0.0031308, points[:, :3] * 12.92, 1.055 * points[:, :3] ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(back, plain, atol=1e-4)
    np.testing.assert_allclose(points[:, 3], opacity[:, 0])
    assert all(view.byteOffset % 4 == 0 for view in file.bufferViews)
    assert file.asset.extras["dreamfusion"] == {"prompt": "a ball"}


@pytest.fixture(scope="module")
def run_of_splats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("splats") / "run"
    given = SPLATS | {"scene.opacity": 0.6, "scene.count": 150, "scene.degree": 1}
    generate(config=resolve("balanced", given, "a ball"), out=path, prior=GrayBallPrior())
    return path


def test_a_run_of_splats_has_all_its_files(run_of_splats: Path) -> None:
    assert Asset.load(run_of_splats / "asset.glb").geometry_report()["triangles"] > 50
    held = read_cloud(run_of_splats / "splats.ply")
    assert isinstance(held, SplatData) and held.harmonics.shape[1] == 4
    length, kind = struct.unpack("<I4s", (run_of_splats / "splats.glb").read_bytes()[12:20])
    tree = json.loads((run_of_splats / "splats.glb").read_bytes()[20 : 20 + length])
    assert kind == b"JSON" and tree["asset"]["extras"]["dreamfusion"]["prompt"] == "a ball"


def test_export_writes_the_splats_beside_the_asset(run_of_splats: Path, tmp_path: Path) -> None:
    assert main(["export", str(run_of_splats), "--splats", "--height", "2", "--out", str(tmp_path / "b.obj")]) == 0
    assert {"b.obj", "b-splats.ply", "b-splats.glb"} <= {p.name for p in tmp_path.iterdir()}
    assert (tmp_path / "b-splats.ply").read_bytes() == (run_of_splats / "splats.ply").read_bytes()
    one, two = (
        accessor(pygltflib.GLTF2().load(p), "POSITION")
        for p in (run_of_splats / "splats.glb", tmp_path / "b-splats.glb")
    )
    np.testing.assert_allclose(two, 2 * one, atol=1e-5)
    placed = place(Asset.load(run_of_splats / "asset.glb").mesh)
    middle = (one.min(0) + one.max(0)) / 2
    assert abs(middle[1] - 0.5) < 0.25 and (np.abs(middle[[0, 2]] - placed.vertices.mean(0)[[0, 2]]) < 0.2).all()


def test_splats_of_a_field_are_refused(made_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made_once, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--splats", "--out", str(tmp_path / "x.glb")]) == 2
    assert "is a grid, which has no splats" in capsys.readouterr().err
    assert not (tmp_path / "x.glb").exists()
