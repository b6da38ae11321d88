"""Normal maps and ambient occlusion, against closed forms and read by another reader."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from dreamfusion import cli
from dreamfusion.asset import Asset
from dreamfusion.export.dense_rays import DenseRays, plain_nearest
from dreamfusion.export.formats import place, write_asset, write_lods
from dreamfusion.export.occlusion import occlusion, plain_occlusion
from dreamfusion.export.packing import charts_of
from dreamfusion.export.relief import Dense, Relief, bake_relief
from dreamfusion.export.tangents import tangents
from dreamfusion.export.texture import bake, unwrap
from dreamfusion.geometry.distance import surface_points
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.mesh import Mesh, with_normals
from dreamfusion.geometry.surface import Surface, volume_surface


def sheet(origin: list[float], across: list[float], along: list[float], n: int, m: int) -> Mesh:
    """A flat sheet of 2 n m triangles; its normal is across x along."""
    s, t = np.meshgrid(np.linspace(0, 1, n + 1), np.linspace(0, 1, m + 1), indexing="ij")
    points = np.array(origin) + s.reshape(-1, 1) * np.array(across) + t.reshape(-1, 1) * np.array(along)
    a = (np.arange(n)[:, None] * (m + 1) + np.arange(m)).reshape(-1, 1)
    faces = np.concatenate([a + np.array([0, m + 1, m + 2]), a + np.array([0, m + 2, 1])])
    return with_normals(Mesh(points, faces, None, np.stack([s.ravel(), t.ravel()], 1)))


def ball(level: int) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=level, radius=0.8)
    vertices = np.asarray(body.vertices, np.float64)
    return Mesh(vertices, np.asarray(body.faces, np.int64), vertices / 0.8)


def rough_ball() -> Mesh:
    """A ball of few triangles of many shapes, whose own normals are poor."""
    points = np.random.default_rng(0).normal(size=(120, 3))
    body = trimesh.convex.convex_hull(0.8 * points / np.linalg.norm(points, axis=1, keepdims=True))
    return with_normals(Mesh(np.asarray(body.vertices, np.float64), np.asarray(body.faces, np.int64)))


def golf_ball(level: int = 5) -> Mesh:
    """A ball with dimples."""
    mesh = ball(level)
    wave = np.prod(np.cos(mesh.vertices * 14), 1, keepdims=True)
    return with_normals(Mesh(mesh.vertices * (1 + 0.02 * wave), mesh.faces))


@pytest.fixture(scope="module")
def low() -> Mesh:
    """A coarse ball, every second chart of which is mirrored."""
    mesh = unwrap(rough_ball(), 256)
    count, chart = charts_of(mesh)
    uv = mesh.uv.copy()
    twist = lambda f: np.linalg.det(np.stack([uv[f[:, 1]] - uv[f[:, 0]], uv[f[:, 2]] - uv[f[:, 0]]], 1))  # noqa: E731
    for k in range(count):
        if (twist(mesh.faces[chart[mesh.faces[:, 0]] == k]).sum() < 0) != (k % 2 == 0):
            uv[chart == k, 0] = np.ptp(uv[chart == k, 0]) + 2 * uv[chart == k, 0].min() - uv[chart == k, 0]
    return Mesh(mesh.vertices, mesh.faces, mesh.normals, uv)


@pytest.fixture(scope="module")
def dimpled() -> Dense:
    return Dense.of(golf_ball())


@pytest.fixture(scope="module")
def relief(low: Mesh, dimpled: Dense) -> Relief:
    return bake_relief(low, dimpled, 1024)


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    return np.degrees(np.arccos(np.clip((unit[0] * unit[1]).sum(1), -1, 1)))


def test_a_plane_has_a_flat_map_and_sees_the_whole_sky():
    plane = sheet([-1, 0, 1], [2, 0, 0], [0, 0, -2], 1, 1)
    found = bake_relief(plane, Dense.of(sheet([-1, 0, 1], [2, 0, 0], [0, 0, -2], 20, 20)), 128)
    assert found.normals.shape == (64, 64, 3) and (found.normals == [128, 128, 255]).all()
    assert (found.occlusion == 255).all()


def test_a_slope_leans_where_the_convention_says():
    """The dense surface rises towards +u: its normal leans to -u, so red falls. Towards +v: green falls. 45 degrees each."""
    plane = sheet([-1, 0, 1], [2, 0, 0], [0, 0, -2], 1, 1)
    for rise, texel in (
        (([2, 0.2, 0], [0, 0, -2]), 0),
        (([2, 0, 0], [0, 0.2, -2]), 1),
    ):
        found = bake_relief(plane, Dense.of(sheet([-1, -0.1, 1], *rise, 20, 20)), 128, "normal")
        expected = np.array([128.0, 128, 127.5 + 127.5 / np.sqrt(1.01)])
        expected[texel] = 127.5 - 127.5 * 0.1 / np.sqrt(1.01)
        assert np.abs(found.normals[16:48, 16:48] - expected).max() <= 1 and found.occlusion is None


def test_tangents_are_those_of_a_plane_mirrored_or_not():
    plane = sheet([-1, 0, 1], [2, 0, 0], [0, 0, -2], 3, 3)
    assert np.allclose(tangents(plane), [1, 0, 0, 1])
    mirrored = Mesh(plane.vertices, plane.faces, plane.normals, plane.uv * [-1, 1] + [1, 0])
    assert np.allclose(tangents(mirrored), [-1, 0, 0, -1])
    broken = Mesh(plane.vertices, plane.faces, plane.normals, np.zeros_like(plane.uv))
    found = tangents(broken)
    assert np.allclose(np.linalg.norm(found[:, :3], axis=1), 1) and np.allclose(found[:, 1], 0)


def test_a_coarse_ball_shades_like_the_true_one(low: Mesh):
    found = bake_relief(low, Dense.of(ball(5)), 512, "auto")
    assert found.normals is not None
    face, weights = surface_points(low, 4000)
    at = lambda v: np.einsum("nk,nkc->nc", weights, v[low.faces[face]])  # noqa: E731
    without = degrees(at(low.normals), at(low.vertices))
    with_map = degrees(shaded(low, found.normals, face, weights), at(low.vertices))
    assert without.mean() > 2 and with_map.mean() < 0.3 * without.mean()


def shaded(mesh: Mesh, normals: np.ndarray, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Normals as a renderer reads them (glTF 2.0, section 3.9.3), with uv from the bottom."""
    return decoded(mesh.normals, tangents(mesh), mesh.uv * [1, -1] + [0, 1], mesh.faces, normals, face, weights)


def decoded(normal, tangent, uv, faces, picture, face, weights) -> np.ndarray:
    at = lambda v: (weights[:, :, None] * v[faces[face]]).sum(1)  # noqa: E731
    size = len(picture)
    column, row = np.clip(at(uv) * size - 0.5, 0, size - 1.001).T
    c, r = column.astype(int), row.astype(int)
    fx, fy = (column - c)[:, None], (row - r)[:, None]
    p = picture.astype(float) / 255 * 2 - 1
    x, y, z = (
        (p[r, c] * (1 - fx) + p[r, c + 1] * fx) * (1 - fy) + (p[r + 1, c] * (1 - fx) + p[r + 1, c + 1] * fx) * fy
    ).T
    n, t = at(normal), at(tangent)
    b = np.cross(n, t[:, :3]) * t[:, 3:]
    return x[:, None] * t[:, :3] + y[:, None] * b + z[:, None] * n


def test_another_reader_finds_the_dimples_in_the_glb(low: Mesh, dimpled: Dense, relief: Relief, tmp_path: Path):
    pygltflib = pytest.importorskip("pygltflib")
    write_asset(tmp_path / "a.glb", low, np.full((64, 64, 3), 128, np.uint8), "x", {}, relief=relief)
    tree = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    blob = tree.binary_blob()

    def piece(view: int) -> bytes:
        found = tree.bufferViews[view]
        return blob[found.byteOffset : found.byteOffset + found.byteLength]

    def rows(index: int, width: int, kind: str = "<f4") -> np.ndarray:
        return np.frombuffer(piece(tree.accessors[index].bufferView), kind).reshape(-1, width)

    primitive, material = tree.meshes[0].primitives[0], tree.materials[0]
    normal, tangent = rows(primitive.attributes.NORMAL, 3), rows(primitive.attributes.TANGENT, 4)
    uv, faces = rows(primitive.attributes.TEXCOORD_0, 2), rows(primitive.indices, 3, "<u2").astype(int)
    assert np.allclose(np.linalg.norm(tangent[:, :3], axis=1), 1, atol=1e-5)
    assert np.allclose((tangent[:, :3] * normal).sum(1), 0, atol=1e-5)
    assert set(tangent[:, 3]) == {-1.0, 1.0}
    pictures = []
    for texture in (material.normalTexture, material.occlusionTexture):
        image = tree.images[tree.textures[texture.index].source]
        assert image.mimeType == "image/jpeg"
        pictures.append(np.asarray(Image.open(io.BytesIO(piece(image.bufferView)))))
    face, weights = surface_points(low, 4000)
    found = decoded(normal, tangent, uv, faces, pictures[0], face, weights)
    at = lambda v: np.einsum("nk,nkc->nc", weights, v[low.faces[face]])  # noqa: E731
    n = at(low.normals)
    truth, open = dimpled.met(at(low.vertices), n / np.linalg.norm(n, axis=1, keepdims=True))
    off, before = degrees(found, truth), degrees(n, truth)
    assert before.mean() > 4 and off.mean() < 1 and np.quantile(off, 0.99) < 6
    mirrored = (tangent[faces[face], 3] < 0).all(1)
    assert 0.2 < mirrored.mean() < 0.8 and off[mirrored].mean() < 1
    wrong = decoded(normal, tangent * [1, 1, 1, -1], uv, faces, pictures[0], face, weights)
    assert degrees(wrong, truth).mean() > 5  # the sign matters
    x, y = (np.clip((at(low.uv) * [1, -1] + [0, 1]) * 512, 0, 511).astype(int)).T
    assert pictures[1].ndim == 2 and np.abs(pictures[1][y, x] / 255 - open).mean() < 0.02


def test_rays_find_what_plain_ones_find():
    mesh = golf_ball(2)
    rng = np.random.default_rng(0)
    points, directions = rng.normal(size=(300, 3)) * 0.6, rng.normal(size=(300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:6] = np.concatenate([np.eye(3), -np.eye(3)])
    for reach in (0.3, 3.0):
        face, weights = DenseRays.of(mesh).nearest(points, directions, reach)
        plain, exact = plain_nearest(mesh, points, directions, reach)
        assert (face >= 0).sum() > 5 and np.array_equal(face, plain) and np.allclose(weights, exact, atol=1e-9)


def test_occlusion_in_a_groove_is_the_closed_form():
    """A place at distance s from the edge of a long groove of 90 degrees, whose other wall is L high, sees all but
    (1 - s / sqrt(s^2 + L^2)) / 2 of the sky, weighted by the cosine."""
    one, two = sheet([0, 0, -8], [0, 0, 16], [1, 0, 0], 160, 10), sheet([0, 0, -8], [0, 1, 0], [0, 0, 16], 10, 160)
    count = len(one.vertices)
    mesh = Mesh(np.concatenate([one.vertices, two.vertices]), np.concatenate([one.faces, two.faces + count]))
    s = np.linspace(0.1, 0.9, 9)
    points, normals = np.stack([s, 0 * s, 0 * s], 1), np.tile([0.0, 1, 0], (9, 1))
    exact = 1 - (1 - s / np.sqrt(s**2 + 1)) / 2
    found = occlusion(mesh, points, normals, 128, 512)
    assert np.abs(found - exact).max() < 0.025 and exact[0] < 0.56
    assert occlusion(mesh, points, -normals).min() > 0.99  # nothing is below


def test_occlusion_by_depth_maps_is_that_of_rays():
    """A box that is open on top: little light inside at the bottom, all of it outside."""
    walls = [
        sheet([-1, 0, 1], [2, 0, 0], [0, 0, -2], 8, 8), sheet([-1, 0, -1], [2, 0, 0], [0, 1, 0], 8, 4),
        sheet([-1, 0, 1], [0, 1, 0], [2, 0, 0], 4, 8), sheet([-1, 0, 1], [0, 0, -2], [0, 1, 0], 8, 4),
        sheet([1, 0, 1], [0, 1, 0], [0, 0, -2], 4, 8),
    ]  # fmt: skip
    first = np.cumsum([0] + [len(w.vertices) for w in walls])
    faces = np.concatenate([w.faces + k for w, k in zip(walls, first, strict=False)])
    box = Mesh(np.concatenate([w.vertices for w in walls]), faces)
    points = np.array([[x, 0, z] for x in (-0.9, -0.4, 0.03) for z in (-0.9, 0.3, 0.81)], float)
    up = np.tile([0.0, 1, 0], (len(points), 1))
    fast, plain = occlusion(box, points, up), plain_occlusion(box, points, up)
    assert np.abs(fast - plain).max() < 0.05 and np.abs(fast - plain).mean() < 0.025
    assert plain[0] < 0.45 < plain.max() and occlusion(box, points, -up).min() > 0.99


def test_the_default_adds_normals_only_where_they_help(low: Mesh, relief: Relief):
    fine = unwrap(ball(3), 256)
    alone = bake_relief(fine, Dense.of(ball(3)), 256, "auto")
    assert alone.normals is None and (alone.occlusion == 255).mean() > 0.99
    assert relief.normals is not None


class Knobs:
    """A ball with waves, coloured gray."""

    def surface(self, settings: ExportSettings) -> Surface:
        density = lambda p: 40 * torch.sigmoid((0.7 + 0.02 * (p * 16).cos().prod(-1) - p.norm(dim=-1)) * 60)  # noqa: E731
        return volume_surface(density, lambda p: torch.full_like(p, 0.5), settings)


def knobs(**settings) -> Asset:
    page = ExportSettings(resolution=64, texture_size=256, level=20, fit=False, **settings)
    return Asset.from_scene(Knobs(), page, "knobs")  # type: ignore[arg-type]


def test_an_asset_keeps_its_maps(tmp_path: Path):
    asset = knobs(faces=500)
    assert asset.relief.normals.shape == (128, 128, 3) and asset.relief.occlusion.shape == (128, 128)
    loaded = Asset.load(asset.save(tmp_path / "a.glb")[0])
    assert np.abs(loaded.relief.normals.astype(int) - asset.relief.normals).mean() < 2
    assert np.abs(loaded.relief.occlusion.astype(int) - asset.relief.occlusion).mean() < 2
    none = knobs(faces=500, maps="none")
    assert none.relief == Relief() and none.dense is None
    assert (tmp_path / "a.glb").stat().st_size > none.save(tmp_path / "b.glb")[0].stat().st_size
    assert Asset.load(tmp_path / "b.glb").relief == Relief()


def test_levels_of_detail_have_maps_of_the_dense_surface(tmp_path: Path):
    asset = knobs(faces=3000)
    picture = bake(asset.mesh, lambda p, n: torch.full_like(p, 0.5), 256)
    ((_, (path,)),) = write_lods(tmp_path / "a.glb", asset.mesh, picture, 1, "x", None, asset.dense)
    coarse = Asset.load(path)
    assert coarse.relief.normals is not None and coarse.relief.occlusion is not None
    assert (coarse.relief.normals[..., :2].astype(int) - 128).std() > 5
    ((_, (path,)),) = write_lods(
        tmp_path / "b.glb", asset.mesh, picture, 1, "x", None, asset.dense, ExportSettings(maps="occlusion")
    )
    assert Asset.load(path).relief.normals is None


def test_an_obj_names_the_maps(low: Mesh, relief: Relief, tmp_path: Path):
    write_asset(tmp_path / "a.obj", low, np.full((64, 64, 3), 128, np.uint8), "x", {}, relief=relief)
    names = ["a-normals.png", "a-occlusion.png", "a.mtl", "a.obj", "a.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    text = (tmp_path / "a.mtl").read_text().splitlines()
    assert {"map_Bump a-normals.png", "norm a-normals.png", "map_Kd a.png"} <= set(text)
    assert np.array_equal(np.asarray(Image.open(tmp_path / names[0])), relief.normals)
    assert np.array_equal(np.asarray(Image.open(tmp_path / names[1])), relief.occlusion)


@pytest.mark.parametrize("some", ["normals", "occlusion", "both"])
def test_usd_reads_the_maps(low: Mesh, relief: Relief, tmp_path: Path, some: str):
    usd, shade = pytest.importorskip("pxr.Usd"), pytest.importorskip("pxr.UsdShade")
    kept = Relief(relief.normals if some != "occlusion" else None, relief.occlusion if some != "normals" else None)
    write_asset(tmp_path / "a.usdz", low, np.full((64, 64, 3), 128, np.uint8), "x", {}, relief=kept)
    stage = usd.Stage.Open(str(tmp_path / "a.usdz"))
    surface = shade.Shader(stage.GetPrimAtPath("/Asset/Material/Surface"))
    for name, wanted, file in (("normal", "normals", "normals.jpg"), ("occlusion", "occlusion", "occlusion.jpg")):
        given = surface.GetInput(name)
        assert bool(given) == (some in (wanted, "both"))
        if given:
            source = shade.Shader(given.GetConnectedSources()[0][0].source.GetPrim())
            assert source.GetInput("file").Get().path == file and source.GetInput("sourceColorSpace").Get() == "raw"
    validation = pytest.importorskip("pxr.UsdValidation")
    rules = validation.ValidationRegistry().GetOrLoadAllValidators()
    complaints = validation.ValidationContext(rules).Validate(stage)
    assert [str(c.GetMessage()) for c in complaints] == []


def test_a_compressed_glb_has_the_maps_and_tangents_in_bytes(low: Mesh, relief: Relief, tmp_path: Path):
    """In the order of the vertices that a Draco decoder makes, each matched with the one that it was."""
    draco = pytest.importorskip("DracoPy")
    pygltflib = pytest.importorskip("pygltflib")
    from dreamfusion.export.formats import FileOptions

    texture = np.full((64, 64, 3), 128, np.uint8)
    write_asset(tmp_path / "a.glb", low, texture, "x", {}, FileOptions(compress=True), relief)
    tree = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    assert tree.materials[0].normalTexture.index == 1 and tree.materials[0].occlusionTexture.index == 2
    assert [image.mimeType for image in tree.images] == ["image/webp", "image/jpeg", "image/jpeg"]
    assert tree.textures[0].source is None and tree.textures[1].source == 1
    primitive, blob = tree.meshes[0].primitives[0], tree.binary_blob()
    accessor = tree.accessors[primitive.attributes.TANGENT]
    assert (accessor.componentType, accessor.normalized, accessor.type) == (pygltflib.BYTE, True, "VEC4")
    assert "KHR_mesh_quantization" in tree.extensionsRequired

    def piece(view: int) -> bytes:
        found = tree.bufferViews[view]
        return blob[found.byteOffset : found.byteOffset + found.byteLength]

    made = draco.decode(piece(primitive.extensions["KHR_draco_mesh_compression"]["bufferView"]))
    along = np.frombuffer(piece(accessor.bufferView), np.int8).reshape(-1, 4) / 127
    was = np.concatenate([place(low).vertices, low.uv * [1, -1] + [0, 1]], 1)
    off, index = cKDTree(was).query(np.concatenate([made.points, made.tex_coord], 1))
    assert len(along) == len(made.points) == len(low.vertices) and off.max() < 1e-3
    true = tangents(low)[index]
    assert np.array_equal(along[:, 3], true[:, 3]) and set(along[:, 3]) == {-1.0, 1.0}
    assert np.quantile(degrees(along[:, :3], true[:, :3]), 0.99) < 2


def test_maps_without_a_texture_are_refused(made_once: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["export", str(made_once), "--format", "stl", "--maps", "both"]) == 2
    assert "--maps has no effect on stl, which has no texture" in capsys.readouterr().err
    assert cli.main(["export", str(made_once), "--maps", "normals"]) == 2
    assert "must be one of auto, none, normal, occlusion, both" in capsys.readouterr().err
