"""Every format by a reader that did not write it: axes, unit, colours and pieces, against the geometry that is known."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dreamfusion.export.formats import FORMATS, PRINTED, FileOptions, write_asset
from dreamfusion.export.texture import Picture, bake, unwrap
from dreamfusion.geometry.mesh import Mesh


@dataclass(frozen=True)
class Ball:
    centre: tuple[float, float, float]
    radius: float
    colour: tuple[int, int, int]


BALLS = (
    Ball((0, 0, 0), 0.35, (128, 128, 128)),
    Ball((0, -0.1, 0.7), 0.2, (255, 0, 0)),  # in front
    Ball((0.65, 0.3, 0), 0.15, (0, 0, 255)),  # at +X, and the highest
)
FOOT, HEIGHT = np.array([(-0.35 + 0.8) / 2, -0.35, (-0.35 + 0.9) / 2]), 0.45 + 0.35
"""The point that is put at the origin, and the height, by arithmetic."""


@pytest.fixture(scope="module")
def model() -> tuple[Mesh, Picture]:
    bodies = [trimesh.creation.icosphere(subdivisions=3, radius=ball.radius) for ball in BALLS]
    normals = np.concatenate([body.vertices / ball.radius for body, ball in zip(bodies, BALLS, strict=True)])
    for body, ball in zip(bodies, BALLS, strict=True):
        body.apply_translation(ball.centre)
    whole = trimesh.util.concatenate(bodies)
    mesh = unwrap(Mesh(np.asarray(whole.vertices), np.asarray(whole.faces, np.int64), normals), 256)

    def colour(points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        red, blue = points[:, 2:] > 0.45, points[:, :1] > 0.45
        front, side, rest = (torch.tensor(ball.colour) / 255 for ball in (BALLS[1], BALLS[2], BALLS[0]))
        return torch.where(red, front, torch.where(blue, side, rest))

    return mesh, bake(mesh, colour, 256)


@dataclass(frozen=True)
class Found:
    """What a reader finds: points (V, 3) as they stand in the file, faces (F, 3), and the colours (V, 3) of 0 to 255, if any."""

    points: np.ndarray
    faces: np.ndarray
    colours: np.ndarray | None


def at(picture: Image.Image, u: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The texels (V, 3) nearest to coordinates (V,) to the right and downwards."""
    rgb = np.asarray(picture.convert("RGB"))
    row, column = (np.clip((x * len(rgb)).astype(int), 0, len(rgb) - 1) for x in (down, u))
    return rgb[row, column]


def read_glb(path: Path) -> Found:
    """By pygltflib, and DracoPy where that has packed it."""
    tree = pygltflib.GLTF2().load(str(path))
    blob = tree.binary_blob()

    def piece(index: int) -> bytes:
        view = tree.bufferViews[index]
        return blob[view.byteOffset : view.byteOffset + view.byteLength]

    (primitive,) = tree.meshes[0].primitives
    packed = (primitive.extensions or {}).get("KHR_draco_mesh_compression")
    texture = tree.textures[tree.materials[primitive.material].pbrMetallicRoughness.baseColorTexture.index]
    source = texture.extensions["EXT_texture_webp"]["source"] if packed else texture.source
    picture = Image.open(io.BytesIO(piece(tree.images[source].bufferView)))
    if packed:
        made = pytest.importorskip("DracoPy").decode(piece(packed["bufferView"]))
        return Found(made.points, made.faces, at(picture, *made.tex_coord.T))

    def rows(index: int, kind: str, wide: int) -> np.ndarray:
        return np.frombuffer(piece(tree.accessors[index].bufferView), kind).reshape(-1, wide)

    uv = rows(primitive.attributes.TEXCOORD_0, "<f4", 2)
    points, faces = rows(primitive.attributes.POSITION, "<f4", 3), rows(primitive.indices, "<u2", 3)
    return Found(points, faces, at(picture, *uv.T))  # v grows downwards


def read_obj(path: Path) -> Found:
    rows = [line.split() for line in path.read_text().splitlines() if line and line[0] != "#"]
    table = {name: np.array([r[1:] for r in rows if r[0] == name], float) for name in ("v", "vt")}
    corners = np.array([[c.split("/")[:2] for c in r[1:]] for r in rows if r[0] == "f"], int) - 1
    (library,) = (r[1] for r in rows if r[0] == "mtllib")
    said = dict(line.split(None, 1) for line in (path.parent / library).read_text().splitlines() if " " in line)
    u, v = table["vt"][corners[..., 1].ravel(), :2].T
    points = table["v"][corners[..., 0].ravel(), :3]
    with Image.open(path.parent / said["map_Kd"]) as picture:
        return Found(points, np.arange(len(points)).reshape(-1, 3), at(picture, u, 1 - v))  # v grows upwards


def read_ply(path: Path) -> Found:
    """Its header names the columns."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    words = [line.split() for line in head.decode().splitlines()]
    assert ["format", "binary_little_endian", "1.0"] in words
    count, triangles = (int(w[2]) for w in words if w[0] == "element")
    kinds = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4", "uint": "<u4"}
    columns = [(w[-1], kinds[w[1]]) for w in words if w[0] == "property" and w[1] != "list"]
    vertex = np.frombuffer(body, columns, count)
    (listed,) = (w for w in words if w[:2] == ["property", "list"])
    face = np.frombuffer(body, [("n", kinds[listed[2]]), ("v", kinds[listed[3]], 3)], triangles, vertex.nbytes)
    assert (face["n"] == 3).all() and vertex.nbytes + face.nbytes == len(body)
    points, colours = (np.stack([vertex[k] for k in names], 1) for names in ("xyz", ("red", "green", "blue")))
    return Found(points, face["v"], colours)


def read_stl(path: Path) -> Found:
    """A header of 80 bytes, the count, and 50 bytes for each triangle."""
    data = path.read_bytes()
    triangles = np.frombuffer(data, [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("more", "<u2")], offset=84)
    assert len(triangles) == int.from_bytes(data[80:84], "little")
    points = triangles["v"].reshape(-1, 3)
    return Found(points, np.arange(len(points)).reshape(-1, 3), None)


def read_3mf(path: Path) -> Found:
    with zipfile.ZipFile(path) as archive:
        target = ElementTree.fromstring(archive.read("_rels/.rels"))[0].get("Target")
        root = ElementTree.fromstring(archive.read(str(target).lstrip("/")))
    assert root.get("unit") == "millimeter"
    space = "{http://schemas.microsoft.com/3dmanufacturing/core/2015/02}"
    points = [[float(v.get(k)) for k in "xyz"] for v in root.iter(f"{space}vertex")]
    faces = [[int(t.get(k)) for k in ("v1", "v2", "v3")] for t in root.iter(f"{space}triangle")]
    return Found(np.array(points), np.array(faces), None)


def read_usdz(path: Path) -> Found:
    """By USD's own libraries; points in metres, whatever the unit of the stage."""
    usd, geometry, shade = (pytest.importorskip(f"pxr.{name}") for name in ("Usd", "UsdGeom", "UsdShade"))
    stage = usd.Stage.Open(str(path))
    assert geometry.GetStageUpAxis(stage) == "Y"
    (mesh,) = (geometry.Mesh(prim) for prim in stage.Traverse() if prim.IsA(geometry.Mesh))
    points = np.array(mesh.GetPointsAttr().Get()) * geometry.GetStageMetersPerUnit(stage)
    faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    material, _ = shade.MaterialBindingAPI(mesh).ComputeBoundMaterial()
    surface, _, _ = material.ComputeSurfaceSource()
    source = surface.GetInput("diffuseColor").GetConnectedSources()[0][0].source
    file = shade.Shader(source.GetPrim()).GetInput("file").Get().path
    with zipfile.ZipFile(path) as archive:
        picture = Image.open(io.BytesIO(archive.read(file)))
    u, v = np.array(geometry.PrimvarsAPI(mesh).GetPrimvar("st").Get()).T
    return Found(points, faces, at(picture, u, 1 - v))


READERS: dict[str, Callable[[Path], Found]] = {
    "glb": read_glb, "obj": read_obj, "ply": read_ply, "stl": read_stl, "3mf": read_3mf, "usdz": read_usdz,
}  # fmt: skip


def pieces(found: Found) -> list[np.ndarray]:
    """The vertices of each piece; those in one place count as one."""
    _, same = np.unique(np.round(found.points, 5), axis=0, return_inverse=True)
    faces = same.reshape(-1)[found.faces]
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    size = same.max() + 1
    count, label = connected_components(coo_matrix((np.ones(len(edges)), edges.T), (size, size)), directed=False)
    return [np.flatnonzero(label[same.reshape(-1)] == k) for k in range(count)]


def volume(found: Found) -> float:
    """Above 0 if the faces look outwards."""
    a, b, c = (found.points[found.faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def check(found: Found, height: float, printed: bool) -> None:
    """Three balls, each where it belongs, as large as it is and in its colour, in a file whose unit is that of the height."""
    x, y, z = found.points.T
    upright = Found(np.stack([x, z, -y] if printed else [x, y, z], 1), found.faces, found.colours)
    scale = height / HEIGHT
    assert volume(upright) == pytest.approx(sum(4 / 3 * np.pi * (b.radius * scale) ** 3 for b in BALLS), rel=0.03)
    found_pieces = pieces(upright)
    assert len(found_pieces) == len(BALLS)
    for ball in BALLS:
        middle = (np.array(ball.centre) - FOOT) * scale
        boxes = [(upright.points[p].min(0), upright.points[p].max(0)) for p in found_pieces]
        k = int(np.argmin([np.linalg.norm((low + high) / 2 - middle) for low, high in boxes]))
        low, high = boxes[k]
        assert np.allclose((low + high) / 2, middle, atol=0.002 * height)
        assert np.allclose((high - low) / 2, ball.radius * scale, atol=0.002 * height)
        if upright.colours is not None:
            assert np.abs(upright.colours[found_pieces[k]].mean(0) - ball.colour).max() < 6


def test_every_format_has_a_reader() -> None:
    assert set(READERS) == set(FORMATS)


@pytest.mark.parametrize("kind", sorted(READERS))
def test_another_reader_finds_the_same_thing(model: tuple[Mesh, Picture], tmp_path: Path, kind: str) -> None:
    write_asset(tmp_path / f"a.{kind}", *model, "three balls", {}, FileOptions(height=1.6, height_mm=60))
    found = READERS[kind](tmp_path / f"a.{kind}")
    check(found, 60 if kind in PRINTED else 1.6, kind in PRINTED)
    assert (found.colours is None) == (kind in PRINTED)


@pytest.mark.parametrize("kind", ["glb", "usdz"])
def test_and_in_a_compressed_file(model: tuple[Mesh, Picture], tmp_path: Path, kind: str) -> None:
    pytest.importorskip("DracoPy" if kind == "glb" else "pxr.Sdf")
    write_asset(tmp_path / f"a.{kind}", *model, "three balls", {}, FileOptions(compress=True))
    check(READERS[kind](tmp_path / f"a.{kind}"), 1.0, False)
