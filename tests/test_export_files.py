"""Files, read back by other readers than the one that wrote them."""

import io
import json
import struct
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dreamfusion.errors import UserError
from dreamfusion.export import formats as files
from dreamfusion.export import usdz
from dreamfusion.export.formats import FileOptions, place, plain_stem, write_asset, write_collider
from dreamfusion.export.texture import bake, sample_texture, unwrap
from dreamfusion.export.vertex_order import in_cache_order
from dreamfusion.geometry.mesh import Mesh, extract_surface, with_normals

RED, BLUE, GREY = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0]), torch.tensor([0.5, 0.5, 0.5])


def density(p: torch.Tensor) -> torch.Tensor:
    """A body with a knob at its front, +Z, and one at +X, higher up."""
    knobs = ((0, 0, 0, 0.45), (0, -0.1, 0.5, 0.25), (0.5, 0.3, 0, 0.25))
    distances = [r - (p - torch.tensor([x, y, z])).norm(dim=-1) for x, y, z, r in knobs]
    return 40 * torch.sigmoid(torch.stack(distances).amax(0) * 60)


def colour(p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    front, side = (p[:, 2:] > 0.48), (p[:, :1] > 0.48)
    return torch.where(front, RED, torch.where(side, BLUE, GREY))


@pytest.fixture(scope="module")
def model() -> tuple[Mesh, np.ndarray]:
    mesh = unwrap(with_normals(extract_surface(density, 40, 20.0)), 256)
    return mesh, bake(mesh, colour, 256)


def save(model: tuple[Mesh, np.ndarray], path: Path) -> Path:
    write_asset(path, *model, "a knobbly thing", {"seed": 7})
    return path


def check_glb(data: bytes) -> tuple[dict, dict[str, np.ndarray], bytes]:
    """A strict reader of the part of glTF 2.0 that is used here, written from the specification: the JSON tree,
    the attributes (and 'indices') of the one primitive, and the image."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    tree = json.loads(data[20 : 20 + size].decode())
    binary_size, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0" and binary_size % 4 == 0 and 28 + size + binary_size == length
    binary = data[28 + size :]
    (buffer,) = tree["buffers"]
    assert "uri" not in buffer and 0 <= binary_size - buffer["byteLength"] < 4
    assert tree["asset"]["version"] == "2.0"

    def view(index: int) -> bytes:
        v = tree["bufferViews"][index]
        start = v.get("byteOffset", 0)
        assert v["buffer"] == 0 and start + v["byteLength"] <= buffer["byteLength"] and "byteStride" not in v
        return binary[start : start + v["byteLength"]]

    def accessor(index: int) -> np.ndarray:
        a = tree["accessors"][index]
        dtype = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[a["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[a["type"]]
        offset, raw = a.get("byteOffset", 0), view(a["bufferView"])
        start = tree["bufferViews"][a["bufferView"]].get("byteOffset", 0) + offset
        assert start % np.dtype(dtype).itemsize == 0
        assert offset + a["count"] * width * np.dtype(dtype).itemsize <= len(raw)
        values = np.frombuffer(raw, dtype, a["count"] * width, offset).reshape(-1, width)
        for key, reduce in (("min", np.min), ("max", np.max)):
            if key in a:
                assert np.allclose(a[key], reduce(values, axis=0), rtol=1e-6)
        return values

    (scene,) = tree["scenes"]
    (mesh,) = tree["meshes"]
    (primitive,) = mesh["primitives"]
    assert primitive.get("mode", 4) == 4 and scene["nodes"]
    assert not any({"matrix", "rotation", "scale", "translation"} & set(n) - {"matrix"} for n in tree["nodes"])
    assert all(np.allclose(np.reshape(n.get("matrix", np.eye(4)), (4, 4)), np.eye(4)) for n in tree["nodes"])
    position = tree["accessors"][primitive["attributes"]["POSITION"]]
    assert {"min", "max"} <= set(position)
    found = {k: accessor(i) for k, i in primitive["attributes"].items()}
    found["indices"] = accessor(primitive["indices"])
    assert found["indices"].max() < position["count"] and len(found["indices"]) % 3 == 0
    assert all(len(v) == position["count"] for k, v in found.items() if k != "indices")
    (image,) = tree["images"]
    assert image["mimeType"] == "image/png"
    return tree, found, view(image["bufferView"])


def test_a_glb_is_valid_and_says_what_it_is(model, tmp_path: Path):
    tree, found, image = check_glb(save(model, tmp_path / "a.glb").read_bytes())
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= set(found)
    assert np.allclose(np.linalg.norm(found["NORMAL"], axis=1), 1, atol=1e-5)
    assert len(found["indices"]) == 3 * len(model[0].faces)
    material = tree["materials"][tree["meshes"][0]["primitives"][0]["material"]]["pbrMetallicRoughness"]
    assert material["metallicFactor"] == 0 and material["roughnessFactor"] == pytest.approx(0.9)
    assert material["baseColorTexture"]["index"] == 0 and material.get("baseColorFactor", [1] * 4) == [1] * 4
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")), model[1])
    for extras in (tree["asset"]["extras"], tree["scenes"][0]["extras"]):
        assert extras["dreamfusion"] == {"prompt": "a knobbly thing", "seed": 7}
    assert tree["meshes"][0]["name"] == "a knobbly thing"


def test_a_glb_stands_on_the_ground_facing_z_with_its_colours_in_place(model, tmp_path: Path):
    """Red at +Z and blue at +X: read by the hand-written reader, with glTF's convention that v = 0 is the top."""
    _, found, image = check_glb(save(model, tmp_path / "a.glb").read_bytes())
    position, uv = found["POSITION"].astype(np.float64), found["TEXCOORD_0"].astype(np.float64)
    assert position[:, 1].min() == pytest.approx(0, abs=1e-6) and position[:, 1].max() == pytest.approx(1, abs=1e-6)
    for axis in (0, 2):
        assert position[:, axis].min() == pytest.approx(-position[:, axis].max(), abs=1e-6)
    texture = np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)
    size = len(texture)
    columns = np.clip((uv[:, 0] * size).astype(int), 0, size - 1)
    rows = np.clip((uv[:, 1] * size).astype(int), 0, size - 1)
    seen = texture[rows, columns]
    red, blue = (seen[:, 0] > 200) & (seen[:, 2] < 50), (seen[:, 2] > 200) & (seen[:, 0] < 50)
    front = position[:, 2] > position[:, 2].max() * 0.75
    side = position[:, 0] > position[:, 0].max() * 0.75
    assert red[front].mean() > 0.98 and blue[side].mean() > 0.98
    assert red[position[:, 2] < 0].mean() == 0 and blue[position[:, 0] < 0].mean() == 0
    assert position[side, 1].mean() > position[front, 1].mean()  # the blue knob is higher: Y is up
    a, b, c = (position[found["indices"].reshape(-1, 3)[:, i]] for i in range(3))
    assert (a * np.cross(b, c)).sum() > 0  # outward winding


def test_a_glb_read_by_trimesh_is_the_same_object(model, tmp_path: Path):
    (body,) = trimesh.load_scene(save(model, tmp_path / "a.glb")).geometry.values()
    assert np.allclose(body.bounds, place(model[0]).geometry().bounds, atol=1e-6)
    assert np.array_equal(np.asarray(body.visual.material.baseColorTexture.convert("RGB")), model[1])
    body.merge_vertices(merge_tex=True, merge_norm=True)
    assert body.is_watertight


def test_a_glb_read_by_pygltflib(model, tmp_path: Path):
    pygltflib = pytest.importorskip("pygltflib")
    tree = pygltflib.GLTF2().load(str(save(model, tmp_path / "a.glb")))
    primitive = tree.meshes[0].primitives[0]
    accessor = tree.accessors[primitive.attributes.POSITION]
    start = tree.bufferViews[accessor.bufferView].byteOffset or 0
    values = np.frombuffer(tree.binary_blob(), "<f4", accessor.count * 3, start).reshape(-1, 3)
    assert np.allclose(values.max(0), place(model[0]).vertices.max(0), atol=1e-6)


def test_an_obj_brings_its_material_and_texture(model, tmp_path: Path):
    path = save(model, tmp_path / "my thing.obj")
    stem = plain_stem(path)
    assert stem.startswith("my_thing-") and stem != plain_stem(tmp_path / "my_thing.obj") == "my_thing"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my thing.obj", f"{stem}.mtl", f"{stem}.png"]
    text = path.read_text()
    assert f"mtllib {stem}.mtl" in text and text.startswith("# a knobbly thing")
    assert f"map_Kd {stem}.png" in (tmp_path / f"{stem}.mtl").read_text()
    rows = [line.split() for line in text.splitlines()]
    vertices = np.array([r[1:4] for r in rows if r and r[0] == "v"], float)
    uv = np.array([r[1:3] for r in rows if r and r[0] == "vt"], float)
    assert sum(r[0] == "vn" for r in rows if r) > 0
    corners = [c.split("/") for r in rows if r and r[0] == "f" for c in r[1:]]
    at, where = (np.array([int(c[i]) - 1 for c in corners]) for i in (0, 1))
    texture = np.asarray(Image.open(tmp_path / f"{stem}.png").convert("RGB"))
    seen = sample_texture(texture, uv[where])  # v = 0 is the bottom
    front = vertices[at][:, 2] > vertices[:, 2].max() * 0.8
    assert np.allclose(seen[front].mean(0), [1, 0, 0], atol=0.03)


def test_ply_has_vertex_colours_and_no_seams(model, tmp_path: Path):
    body = trimesh.load_mesh(save(model, tmp_path / "a.ply"), process=False)
    assert body.is_watertight and len(body.vertices) < len(model[0].vertices)
    side = body.vertices[:, 0] > body.vertices[:, 0].max() * 0.75
    assert (body.visual.vertex_colors[side, :3] == [0, 0, 255]).all(1).mean() > 0.95


def test_stl_is_in_millimetres_with_z_up(model, tmp_path: Path):
    body = trimesh.load_mesh(save(model, tmp_path / "a.stl"))
    assert body.is_watertight and len(body.faces) == len(model[0].faces)
    assert body.volume == pytest.approx(place(model[0]).geometry().volume * 1e6, rel=1e-4)  # 100 mm for 1 m: (100)^3
    x, y, z = place(model[0]).geometry().bounds.T * 100
    assert np.allclose(body.bounds.T, [x, -z[::-1], y], atol=1e-3)  # the front, +Z, is at -Y


def read_3mf(path: Path) -> tuple[str, trimesh.Trimesh]:
    """Unit and mesh of a 3MF file, by a second reader."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and "[Content_Types].xml" in archive.namelist()
        target = ElementTree.fromstring(archive.read("_rels/.rels"))[0].get("Target")
        root = ElementTree.fromstring(archive.read(target.lstrip("/")))
    space = "{http://schemas.microsoft.com/3dmanufacturing/core/2015/02}"
    vertices = [[float(v.get(k)) for k in "xyz"] for v in root.iter(f"{space}vertex")]
    faces = [[int(t.get(k)) for k in ("v1", "v2", "v3")] for t in root.iter(f"{space}triangle")]
    return root.get("unit"), trimesh.Trimesh(vertices, faces, process=False)


def test_3mf_holds_the_unit_and_the_shape_of_the_stl(model, tmp_path: Path):
    unit, body = read_3mf(save(model, tmp_path / "a.3mf"))
    stl = trimesh.load_mesh(save(model, tmp_path / "a.stl"))
    assert unit == "millimeter" and body.is_watertight
    assert body.volume == pytest.approx(stl.volume, rel=1e-4) and np.allclose(body.bounds, stl.bounds, atol=1e-2)


def test_a_flat_base_of_a_given_height(model, tmp_path: Path):
    write_asset(tmp_path / "a.stl", *model, "", {}, FileOptions(height_mm=60))
    write_asset(tmp_path / "b.stl", *model, "", {}, FileOptions(height_mm=60, flat_base=True))
    round_, flat = (trimesh.load_mesh(tmp_path / name) for name in ("a.stl", "b.stl"))
    assert round_.extents[2] == pytest.approx(60, abs=1e-3) and flat.extents[2] == pytest.approx(60 * 0.98, abs=1e-3)
    down = flat.area_faces[(flat.triangles[:, :, 2] < 1e-4).all(1)].sum()
    assert flat.is_watertight and flat.bounds[0, 2] == 0
    assert down > 60 > round_.area_faces[(round_.triangles[:, :, 2] < 1e-4).all(1)].sum()


def test_a_real_height_in_metres(model, tmp_path: Path):
    write_asset(tmp_path / "a.glb", *model, "", {}, FileOptions(height=0.4))
    found = check_glb((tmp_path / "a.glb").read_bytes())[1]["POSITION"]
    assert found[:, 1].max() == pytest.approx(0.4, abs=1e-6)


def test_a_glb_is_lean_and_named(model, tmp_path: Path):
    tree, found, _ = check_glb(save(model, tmp_path / "a.glb").read_bytes())
    assert found["indices"].dtype == np.uint16
    targets = [v.get("target") for v in tree["bufferViews"]]
    assert sorted(t for t in targets if t) == [34962, 34962, 34962, 34963]
    assert tree["samplers"][0]["wrapS"] == tree["samplers"][0]["wrapT"] == 33071
    for kind in ("nodes", "meshes", "materials", "images"):
        assert tree[kind][0]["name"].startswith("a knobbly thing")
    for kind in ("nodes", "meshes"):
        assert tree[kind][0]["extras"]["dreamfusion"]["seed"] == 7


def test_a_compressed_glb_is_the_same_shape(model, tmp_path: Path):
    draco = pytest.importorskip("DracoPy")
    write_asset(tmp_path / "a.glb", *model, "x", {}, FileOptions(compress=True))
    data = (tmp_path / "a.glb").read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    tree, binary = json.loads(data[20 : 20 + size]), data[28 + size :]
    packed = tree["meshes"][0]["primitives"][0]["extensions"]["KHR_draco_mesh_compression"]
    view = tree["bufferViews"][packed["bufferView"]]
    made = draco.decode(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
    body = trimesh.Trimesh(made.points, made.faces, process=False)
    assert body.volume == pytest.approx(place(model[0]).geometry().volume, rel=1e-3)
    assert sorted(packed["attributes"]) == ["NORMAL", "POSITION", "TEXCOORD_0"]
    assert len(data) < 0.5 * len(save(model, tmp_path / "b.glb").read_bytes())


def test_a_collider_is_a_convex_hull_of_few_faces(model, tmp_path: Path):
    (body,) = trimesh.load_scene(write_collider(tmp_path / "c.glb", model[0])).geometry.values()
    body.merge_vertices(merge_tex=True, merge_norm=True)
    exact = place(model[0]).geometry().convex_hull
    assert body.is_watertight and body.is_convex and len(body.faces) <= 255
    assert 0.93 < body.volume / exact.volume <= 1.0 + 1e-6


def misses(faces: np.ndarray, size: int = 16) -> float:
    """Vertices transformed per triangle with a first-in-first-out cache."""
    cache: list[int] = []
    count = 0
    for v in faces.ravel().tolist():
        if v not in cache:
            count += 1
            cache = [*cache[-size + 1 :], v]
    return count / len(faces)


def test_cache_order_keeps_the_triangles_and_reuses_vertices():
    body = trimesh.creation.icosphere(subdivisions=4)
    shuffled = np.random.default_rng(0).permutation(np.asarray(body.faces)).astype(np.int64)
    ordered = in_cache_order(Mesh(np.asarray(body.vertices), shuffled))
    same = lambda v, f: np.unique(np.round(v[f], 6).reshape(len(f), -1), axis=0)  # noqa: E731
    turned = [np.roll(ordered.faces, k, 1) for k in range(3)]
    assert any(np.array_equal(same(ordered.vertices, f), same(body.vertices, shuffled)) for f in turned)
    assert misses(ordered.faces) < 0.8 < 2.5 < misses(shuffled)


def test_usdz_is_an_aligned_uncompressed_zip(model, tmp_path: Path):
    path = save(model, tmp_path / "a.usdz")
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["asset.usda", "texture.png"]  # the first file is the stage
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
        texture = np.asarray(Image.open(io.BytesIO(archive.read("texture.png"))).convert("RGB"))
        text = archive.read("asset.usda").decode()
    assert np.array_equal(texture, model[1])
    assert text.startswith("#usda 1.0\n") and text.count("{") == text.count("}") and text.count("[") == text.count("]")


@pytest.mark.parametrize("length", range(1, 130, 7))
def test_usdz_alignment_for_any_length(length: int):
    data = usdz.package({"n" * (length % 64 + 1): bytes(length), "second": b"x"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
            assert (entry.header_offset + 30 + name + extra) % 64 == 0 and archive.testzip() is None


def test_usdz_opens_in_usd(model, tmp_path: Path):
    usd = pytest.importorskip("pxr.Usd")
    geometry = pytest.importorskip("pxr.UsdGeom")
    stage = usd.Stage.Open(str(save(model, tmp_path / "a.usdz")))
    assert stage.GetDefaultPrim().GetName() == "Asset"
    assert geometry.GetStageUpAxis(stage) == "Y" and geometry.GetStageMetersPerUnit(stage) == 1
    mesh = geometry.Mesh(stage.GetPrimAtPath("/Asset/Mesh"))
    assert np.allclose(np.array(mesh.GetPointsAttr().Get()), place(model[0]).vertices, atol=1e-5)
    assert len(mesh.GetFaceVertexCountsAttr().Get()) == len(model[0].faces)
    st = geometry.PrimvarsAPI(mesh).GetPrimvar("st")
    assert np.allclose(np.array(st.Get()), model[0].uv, atol=1e-5)
    validation = pytest.importorskip("pxr.UsdValidation")
    rules = validation.ValidationRegistry().GetOrLoadAllValidators()
    complaints = validation.ValidationContext(rules).Validate(stage)
    assert len(rules) > 10 and [str(c.GetMessage()) for c in complaints] == []


def test_a_prompt_with_quotes_and_lines_stays_data(model, tmp_path: Path):
    prompt = 'a "cup"\n{and} a \\ saucer — é'
    for kind in ("glb", "obj", "usdz"):
        write_asset(tmp_path / f"a.{kind}", *model, prompt, {})
    assert check_glb((tmp_path / "a.glb").read_bytes())[0]["asset"]["extras"]["dreamfusion"]["prompt"] == prompt
    assert (tmp_path / "a.obj").read_text(encoding="utf-8").splitlines()[0] == '# a "cup" {and} a \\ saucer — é'
    usd = pytest.importorskip("pxr.Usd")
    assert usd.Stage.Open(str(tmp_path / "a.usdz")).GetRootLayer().documentation == prompt


def test_a_flat_object_is_not_blown_up():
    plate = Mesh(np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0.01, 1]]), np.array([[0, 1, 2]]))
    size = np.ptp(place(plate).vertices, axis=0)
    assert size.max() == pytest.approx(3) and size[1] == pytest.approx(0.015)


def test_an_unknown_format_names_the_nearest(model, tmp_path: Path):
    with pytest.raises(UserError, match=r"'\.gbl' is no known format \(did you mean 'glb'\? choices: glb, obj"):
        save(model, tmp_path / "a.gbl")
    with pytest.raises(UserError, match="without a suffix"):
        save(model, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", sorted(files.FORMATS))
def test_a_failure_leaves_the_old_file_and_no_rest(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="disk full"):
        save(model, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_one_line(model, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save(model, tmp_path / "file" / "a.glb")


def test_the_same_asset_is_the_same_bytes(model, tmp_path: Path):
    for kind in sorted(files.FORMATS):
        assert save(model, tmp_path / f"a.{kind}").read_bytes() == save(model, tmp_path / f"a.{kind}").read_bytes()
