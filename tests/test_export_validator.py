"""GLB files under the Khronos glTF validator: no errors, no warnings, no hints.

It needs node and the npm package gltf-validator: ``npm install --prefix DIR gltf-validator``, then ``NODE_PATH=DIR/node_modules``.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from dreamfusion.export import glb, splat_files
from dreamfusion.export.formats import FileOptions, write_asset, write_collider, write_lods
from dreamfusion.export.relief import Dense, Relief, bake_relief
from dreamfusion.export.texture import Picture, bake, unwrap, unwrap_within
from dreamfusion.geometry.mesh import Mesh, with_normals
from tests.test_export_splats import lively

NODE = shutil.which("node")
DRACO = "KHR_draco_mesh_compression"
UNKNOWN = {DRACO, "KHR_gaussian_splatting"}
"""Extensions that the validator says it does not know; it then looks at all the rest."""
SEVERITIES = ("error", "warning", "info", "hint")  # 0, 1, 2, 3 in a message
SCRIPT = """
const validator = require('gltf-validator');
const files = process.argv.slice(1);
const read = file => validator.validateBytes(new Uint8Array(require('fs').readFileSync(file)), {maxIssues: 0});
Promise.all(files.map(read)).then(reports => console.log(JSON.stringify(reports)));
"""


def has_validator() -> bool:
    given = [str(NODE), "-e", "require.resolve('gltf-validator')"]
    return NODE is not None and subprocess.run(given, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_validator(), reason="node does not find the npm package gltf-validator (NODE_PATH)"),
]


def reports(*files: Path) -> list[dict[str, Any]]:
    """What the validator says of each file."""
    done = subprocess.run([str(NODE), "-e", SCRIPT, *map(str, files)], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def complaints(report: dict[str, Any]) -> list[str]:
    """All that it says but that it does not know an extension in ``UNKNOWN``, and nothing else that would use what Draco packs:
    the first buffer view."""
    found = []
    for said in report["issues"]["messages"]:
        told = [said["code"], said.get("pointer", "")]
        unknown = told[0] == "UNSUPPORTED_EXTENSION" and any(name in said["message"] for name in UNKNOWN)
        packed = told == ["UNUSED_OBJECT", "/bufferViews/0"] and DRACO in report["info"]["extensionsUsed"]
        if not ((unknown or packed) and SEVERITIES[said["severity"]] == "info"):
            found.append(" ".join([SEVERITIES[said["severity"]], *told, said["message"]]))
    return found


def bumpy(level: int) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=level, radius=0.8)
    vertices = np.asarray(body.vertices)
    wave = np.prod(np.cos(vertices * 12), 1, keepdims=True)
    return with_normals(Mesh(vertices * (1 + 0.03 * wave), np.asarray(body.faces, np.int64)))


@pytest.fixture(scope="module")
def dense() -> Dense:
    return Dense.of(bumpy(5))


@pytest.fixture(scope="module")
def model() -> tuple[Mesh, Picture]:
    mesh = unwrap(bumpy(4), 256)
    return mesh, bake(mesh, lambda p, n: 0.5 + 0.5 * p, 256)


@pytest.fixture(scope="module")
def relief(model: tuple[Mesh, Picture], dense: Dense) -> Relief:
    return bake_relief(model[0], dense, 256, "both")


def test_the_validator_finds_what_is_wrong(model: tuple[Mesh, Picture], tmp_path: Path) -> None:
    """So its silence means something: a normal that is not of unit length, and a file that is cut off."""
    write_asset(tmp_path / "good.glb", *model, "x", {})
    data = bytearray((tmp_path / "good.glb").read_bytes())
    (tmp_path / "cut.glb").write_bytes(data[:-8])
    raw = glb.unit(model[0].normals).tobytes()
    at = data.index(raw[:48])
    data[at : at + 4] = np.float32(9).tobytes()
    (tmp_path / "long.glb").write_bytes(data)
    good, cut, long = map(complaints, reports(*(tmp_path / f"{name}.glb" for name in ("good", "cut", "long"))))
    assert good == [] and any(c.startswith("error") for c in cut) and any("UNIT" in c for c in long)


@pytest.mark.parametrize("name", ["a plain one", 'a "cup" — é\n{and} \\ more', ""])
def test_an_asset(model: tuple[Mesh, Picture], tmp_path: Path, name: str) -> None:
    write_asset(tmp_path / "a.glb", *model, name, {"seed": 7, "list": [1, {"deep": None}]})
    (report,) = reports(tmp_path / "a.glb")
    assert complaints(report) == [] and report["info"]["totalTriangleCount"] == len(model[0].faces)


def test_all_maps(model: tuple[Mesh, Picture], relief: Relief, tmp_path: Path) -> None:
    """Normals with tangents, occlusion, and roughness and metal: alone and together."""
    shiny = FileOptions(finish=model[1])
    files = {
        "normals": (None, Relief(relief.normals, None)),
        "occlusion": (None, Relief(None, relief.occlusion)),
        "both": (None, relief),
        "pbr": (shiny, None),
        "everything": (shiny, relief),
    }
    for name, (options, maps) in files.items():
        write_asset(tmp_path / f"{name}.glb", *model, name, {}, options, maps)
    for name, report in zip(files, reports(*(tmp_path / f"{name}.glb" for name in files)), strict=True):
        assert complaints(report) == [], name
    assert report["info"]["maxAttributes"] == 4  # the tangents are there


def test_coarser_versions_and_the_collider(model: tuple[Mesh, Picture], dense: Dense, tmp_path: Path) -> None:
    options = FileOptions(finish=model[1], height=0.3)
    written = [path for _, files in write_lods(tmp_path / "a.glb", *model, 2, "x", options, dense) for path in files]
    written.append(write_collider(tmp_path / "a-collider.glb", model[0], options))
    found = reports(*written)
    assert len(found) == 3 and [complaints(report) for report in found] == [[], [], []]


def test_many_vertices_and_a_projected_texture(tmp_path: Path) -> None:
    """Indices of four bytes; charts of a projection, with tangents."""
    large = bumpy(6)
    mesh, unwrapped = unwrap_within(Mesh(large.vertices, large.faces, large.normals), 512, 0)
    picture = bake(mesh, lambda p, n: 0.5 + 0.5 * p, 512)
    flat = Relief(np.full((64, 64, 3), (128, 128, 255), np.uint8), None)
    write_asset(tmp_path / "a.glb", mesh, picture, "x", {}, relief=flat)
    (report,) = reports(tmp_path / "a.glb")
    assert not unwrapped and report["info"]["totalTriangleCount"] > 65536 and complaints(report) == []


def test_a_compressed_file(model: tuple[Mesh, Picture], relief: Relief, tmp_path: Path) -> None:
    pytest.importorskip("DracoPy")
    small = FileOptions(compress=True, finish=model[1])
    write_asset(tmp_path / "maps.glb", *model, "x", {}, small, relief)
    write_asset(tmp_path / "plain.glb", *model, "x", {}, FileOptions(compress=True))
    for report in reports(tmp_path / "maps.glb", tmp_path / "plain.glb"):
        assert complaints(report) == [] and DRACO in report["info"]["extensionsUsed"]


@pytest.mark.parametrize("degree", [0, 3])
def test_splats(degree: int, tmp_path: Path) -> None:
    """The validator does not know the names of the extension's attributes, and says so. With names of an application's own,
    which begin with an underscore, all of the file is clean."""
    held = lively(degree).data()
    data = splat_files.glb(held, np.array([0.1, -0.4, 0.0]), 1.7, {"prompt": "a ball"}, "a")
    (tmp_path / "a.glb").write_bytes(data)
    length = struct.unpack_from("<I", data, 12)[0]
    renamed = json.loads(data[20 : 20 + length].replace(b"KHR_gaussian_splatting:", b"_"))
    (tmp_path / "b.glb").write_bytes(glb.container(renamed, data[28 + length :]))
    found, plain = reports(tmp_path / "a.glb", tmp_path / "b.glb")
    names = [c for c in complaints(found) if "MESH_PRIMITIVE_INVALID_ATTRIBUTE" in c]
    assert len(names) == 3 + (degree + 1) ** 2 and all("attributes/KHR_gaussian_splatting:" in c for c in names)
    assert complaints(found) == names and complaints(plain) == []
    assert plain["info"]["totalVertexCount"] == len(held.centres)
