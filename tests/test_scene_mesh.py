"""The mesh scene: topology of its surfaces, pictures against closed forms, stages, files, and bit-exact resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreamfusion import regularizers
from dreamfusion.errors import UserError
from dreamfusion.geometry import mesh_file
from dreamfusion.geometry.distance import filled, signed_distance
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.mesh import Mesh, with_normals
from dreamfusion.geometry.tetrahedra import body_centred_grid, marching_tetrahedra
from dreamfusion.geometry.topology import edge_pairs, laplacian, normal_consistency
from dreamfusion.scene import level_grid
from dreamfusion.scene import mesh_scene as mesh_scene_module
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.mesh_scene import MeshScene
from dreamfusion.scene.raster_nvdiffrast import NvDiffRast
from dreamfusion.scene.rasteriser import PLAIN
from dreamfusion.scene.scene_settings import MeshSettings
from dreamfusion.scene.shapes import Tetrahedra
from dreamfusion.settings.config import RegularizerSettings
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL, GrayBallPrior
from tests.resuming import resumes_bit_exactly

MESH: dict[str, Any] = {k: v for k, v in SMALL.items() if k not in ("scene.samples", "scene.fast")} | {
    "scene.kind": "mesh", "scene.levels": "4,8", "scene.shape_levels": "4,6", "scene.resolution": 8,
}  # fmt: skip


def mesh_scene(**settings: Any) -> MeshScene:
    given = {"resolution": 16, "levels": (6, 10), "shape_levels": (4, 8)} | settings
    scene = make_scene(MeshSettings(**given), torch.Generator().manual_seed(0))
    assert isinstance(scene, MeshScene)
    return scene


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.6


def torus(points: Tensor) -> Tensor:
    return torch.stack([points[:, [0, 2]].norm(dim=-1) - 0.6, points[:, 1]], -1).norm(dim=-1) - 0.25


def two_balls(points: Tensor) -> Tensor:
    one, other = torch.tensor([0.45, 0, 0]), torch.tensor([-0.4, 0.1, 0])
    return torch.minimum((points - one).norm(dim=-1) - 0.3, (points - other).norm(dim=-1) - 0.35)


def shell(points: Tensor) -> Tensor:
    return (points.norm(dim=-1) - 0.6).abs() - 0.15


@pytest.mark.parametrize(
    ("distance", "euler", "pieces", "volume"),
    [
        (ball, 2, 1, 4 / 3 * math.pi * 0.6**3),
        (torus, 0, 1, 2 * math.pi**2 * 0.6 * 0.25**2),
        (two_balls, 4, 2, 4 / 3 * math.pi * (0.3**3 + 0.35**3)),
        (shell, 4, 2, 4 / 3 * math.pi * (0.75**3 - 0.45**3)),
    ],
)
@pytest.mark.parametrize("cubes", [9, 20])
def test_topology_of_marched_surfaces(distance: Any, euler: int, pieces: int, volume: float, cubes: int) -> None:
    """Watertight, wound outwards, of the right genus, and of the volume in closed form."""
    points, tets = body_centred_grid(cubes)
    vertices, faces = marching_tetrahedra(points, distance(points), tets)
    body = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert body.is_watertight and body.is_winding_consistent
    assert (body.euler_number, body.body_count) == (euler, pieces)
    assert body.volume == pytest.approx(volume, rel=2.5 / cubes)


def test_any_signs_give_a_closed_surface() -> None:
    """All cases of the table, at random."""
    points, tets = body_centred_grid(6)
    distance = torch.randn(len(points), generator=torch.Generator().manual_seed(0))
    distance[points.norm(dim=-1) > 0.8] = 1
    vertices, faces = marching_tetrahedra(points, distance, tets)
    body = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert body.is_watertight and body.is_winding_consistent and body.volume > 0
    case = ((distance < 0)[tets] * torch.tensor([1, 2, 4, 8])).sum(1)
    assert len(case.unique()) == 16


def test_the_grid_is_filled_by_positive_tetrahedra() -> None:
    points, tets = body_centred_grid(5)
    a, b, c, d = points[tets].double().unbind(1)
    volume = (torch.linalg.cross(b - a, c - a) * (d - a)).sum(-1) / 6
    assert volume.min() > 0 and volume.max() / volume.min() < 1.0001
    # between 5 x 5 cubes there are 4 x 25 x 3 faces, of four tetrahedra of a twelfth of a cube each
    assert volume.sum().item() == pytest.approx(3 * 4 * 25 * 4 / 12 * 0.4**3, rel=1e-5)


def test_moves_turn_no_tetrahedron_over() -> None:
    scene = mesh_scene(resolution=8, shape_levels=(9, 17))
    shape = scene.shape
    assert isinstance(shape, Tetrahedra)
    with torch.no_grad():
        shape.grid.table.normal_(0, 5, generator=torch.Generator().manual_seed(1))
        shape.arrange()
        a, b, c, d = shape.placed(len(shape.points))[0][shape.tets].unbind(1)
    assert ((torch.linalg.cross(b - a, c - a) * (d - a)).sum(-1) > 0).all()


@pytest.mark.parametrize("size", [0.0, 0.01, 0.1])
def test_tetrahedra_out_of_reach_hold_no_surface(size: float) -> None:
    """The surface is that of all tetrahedra, one by one and in the lattice's own order."""
    shape = mesh_scene(resolution=12, radius=0.7).shape
    assert isinstance(shape, Tetrahedra)
    points, tets = body_centred_grid(12)
    with torch.no_grad():
        shape.grid.table.normal_(0, size, generator=torch.Generator().manual_seed(2))
        found, faces = shape.triangles()
        learned = torch.stack(shape.grid(points)).sum(0)
        moved = points + 0.2 / 6 * torch.tanh(learned[:, 1:] / (0.2 / 6))
        distance = torch.maximum(points.norm(dim=-1) - 0.7 + learned[:, 0], points.norm(dim=-1) - (1 - 1 / 6))
        true, true_faces = marching_tetrahedra(moved, distance, tets)
    looked_at = torch.searchsorted(shape.reach, shape.most(), right=True)
    assert looked_at < len(tets) * (0.5 if size < 0.1 else 1)

    def corners(vertices: Tensor, faces: Tensor) -> np.ndarray:
        """Each triangle as a row of nine numbers, from whichever corner comes first; the rows in order."""
        rows = [min(tuple(np.roll(t, k, 0).round(5).reshape(-1)) for k in range(3)) for t in vertices[faces].numpy()]
        return np.asarray(sorted(rows))

    np.testing.assert_allclose(corners(found, faces), corners(true, true_faces), atol=2e-5)


def test_gradients_of_the_surface_are_finite_differences() -> None:
    points, tets = body_centred_grid(8)
    points, distance = points.double(), torus(points).double()
    weight = torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(p: Tensor, s: Tensor) -> Tensor:
        vertices, faces = marching_tetrahedra(p, s, tets)
        return (
            (vertices.sin() @ weight).sum()
            + normal_consistency(vertices, faces, edge_pairs(faces))
            + laplacian(vertices, faces)
        )

    given = points.clone().requires_grad_(), distance.clone().requires_grad_()
    told = torch.autograd.grad(loss(*given), given)
    generator = torch.Generator().manual_seed(1)
    move = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (points, distance)]
    step = 1e-7
    ahead, behind = (loss(points + k * step * move[0], distance + k * step * move[1]).item() for k in (1, -1))
    length = sum((g * m).sum().item() for g, m in zip(told, move, strict=True))
    # the mean length of an edge in the Laplacian is held fixed
    assert length == pytest.approx((ahead - behind) / (2 * step), rel=2e-3)


def test_pictures_of_a_ball_are_its_closed_form() -> None:
    """Silhouette, depth, normals and clay of the first ball of a run, against rays that meet a sphere."""
    scene = mesh_scene(resolution=28, radius=0.6)
    size, cameras = 32, orbit_cameras([0.0, 130.0], 20.0)
    view = orbit_view(cameras, size, "textureless", light_above_deg=40.0)
    with torch.no_grad():
        seen = scene.render(view)
    origin, direction = cameras.rays(size)
    along = (origin * direction).sum(-1)
    root = along.square() - origin.square().sum(-1) + 0.36
    hit = (root > 0.12)[:, None]  # well inside of the silhouette
    t = -along - root.clamp_min(0).sqrt()
    normal = ((origin + t[..., None] * direction) / 0.6).permute(0, 3, 1, 2)
    clay = 0.8 * (0.5 + 0.5 * (normal * view.lights[:, :, None, None]).sum(1, keepdim=True).clamp_min(0))
    assert (seen.opacity[hit] == 1).all() and hit.sum() > 200
    assert (seen.opacity[(root < -0.1)[:, None]] == 0).all()
    assert ((seen.depth - t[:, None]).abs()[hit]).max() < 0.01
    assert ((seen.normal * normal).sum(1, keepdim=True)[hit]).min() > 0.985
    assert ((seen.colour - clay).abs()[hit.expand(-1, 3, -1, -1)]).max() < 0.06
    across = math.tan(math.asin(0.6 / 2.5)) / math.tan(math.radians(47 / 2))
    assert seen.opacity[0].sum().item() == pytest.approx(math.pi * (across * size / 2) ** 2, rel=0.03)


@pytest.mark.parametrize("shading", ["albedo", "lambertian", "textureless"])
def test_what_learns_gets_gradients(shading: Any) -> None:
    for learns in ("all", "shape", "texture"):
        scene = mesh_scene(learns=learns)
        view = orbit_view(orbit_cameras([10.0, 100.0]), 16, shading)
        picture = scene.render(view, torch.Generator().manual_seed(0)).over(torch.ones(2, 3, 1, 1))
        if picture.requires_grad:
            (picture - 0.3).square().sum().backward()
        shape, texture = (
            p.grad is not None and p.grad.abs().sum() > 0 for p in (scene.shape.grid.table, scene.texture.grid.table)
        )
        assert shape == (learns != "texture"), (learns, shading)
        assert texture == (learns != "shape" and shading != "textureless"), (learns, shading)


def test_it_learns_a_silhouette() -> None:
    """From a ball of radius 0.5 to one of 0.62, by pictures of its opacity alone."""
    scene = mesh_scene(resolution=12, lr_shape=0.02)
    goal = mesh_scene(resolution=12, radius=0.62)
    optimiser = torch.optim.Adam(scene.shape.parameters(), lr=0.01)
    view = orbit_view(orbit_cameras([0.0, 60, 120, 180, 240, 300], 10.0), 16, "textureless")
    with torch.no_grad():
        wanted = goal.render(view).opacity
    first = None
    for _ in range(25):
        off = (scene.render(view).opacity - wanted).square().mean()
        first = first or off.item()
        optimiser.zero_grad()
        off.backward()
        optimiser.step()
    assert off.item() < 0.1 * first


def test_eikonal_is_zero_for_a_distance_and_grows_with_its_slope() -> None:
    scene = mesh_scene(resolution=24)
    found = []
    for factor in (1.0, 2.0):
        with torch.no_grad():
            scene.shape.base *= factor
        found.append(scene.shape.eikonal().item())
    assert found[0] < 0.02 and found[1] == pytest.approx(1, abs=0.1)


def test_penalties_of_weight_0_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others are, once each."""
    asked = []
    for name in ("normal_consistency", "laplacian"):
        monkeypatch.setattr(mesh_scene_module, name, lambda *given, name=name: asked.append(name) or torch.tensor(2.0))
    monkeypatch.setattr(Tetrahedra, "eikonal", lambda self: asked.append("eikonal") or torch.tensor(2.0))
    seen = mesh_scene().render(orbit_view(orbit_cameras([0.0]), 8))
    names = ("normal_consistency", "laplacian", "eikonal")
    for weighed in ((), *((name,) for name in names), names):
        weights = {name: 0.5 * (name in weighed) for name in ("entropy", "orientation", "smoothness", *names)}
        loss, terms = regularizers.total(RegularizerSettings(**weights), seen, 0.0)
        assert sorted(asked) == sorted(weighed) and loss == len(weighed) and len(terms) == len(weighed)
        asked.clear()


def test_signed_distance_of_a_torus() -> None:
    body = trimesh.creation.torus(0.6, 0.25, transform=trimesh.transformations.rotation_matrix(math.pi / 2, [1, 0, 0]))
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    found = signed_distance(with_normals(Mesh(body.vertices, body.faces)), points)
    true = torus(torch.from_numpy(points)).numpy()
    assert np.abs(found - true).max() < 0.03
    clear = np.abs(true) > 0.02
    assert (np.sign(found) == np.sign(true))[clear].all()


def test_a_lattice_of_distances_is_filled_from_its_shell() -> None:
    axis = torch.linspace(-1, 1, 33)
    body = trimesh.creation.torus(0.6, 0.25, transform=trimesh.transformations.rotation_matrix(math.pi / 2, [1, 0, 0]))
    points, spacing = torch.cartesian_prod(axis, axis, axis).double(), 2 / 32
    near = signed_distance(with_normals(Mesh(body.vertices, body.faces)), points.numpy(), 2.5 * spacing)
    assert 0.2 < np.isnan(near).mean() < 0.9
    found, true = filled(near.reshape(33, 33, 33), spacing).reshape(-1), torus(points).numpy()
    assert (np.sign(found) == np.sign(true))[np.abs(true) > 0.02].all()
    assert np.abs(found - true).max() < 0.3 and np.abs(found - true)[~np.isnan(near)].max() < 0.03
    assert (filled(np.full((3, 3, 3), np.nan), spacing) > 0).all()


@pytest.mark.parametrize("shape", [pytest.param("tetrahedra", marks=pytest.mark.slow), "vertices"])
def test_a_mesh_begins_with_the_field_before_it(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silhouettes and colours of a field of two balls, and then of a second mesh that begins with the first."""
    from tests.test_stages import ball_grid

    monkeypatch.setattr(level_grid, "STEPS", 40)
    before = ball_grid()
    view = orbit_view(orbit_cameras([15, 135], 25), 24, "albedo")
    with torch.no_grad():
        old = before.render(view)
    for _ in range(2):
        scene = mesh_scene(shape=shape, resolution=24, levels=(16, 32))
        scene.begin_from(before, torch.Generator().manual_seed(0))
        with torch.no_grad():
            new = scene.render(view)
        one, other = old.opacity > 0.5, new.opacity > 0.5
        assert (one & other).sum() / (one | other).sum() > 0.9
        both = (old.opacity > 0.95) & (new.opacity > 0.95)
        assert (old.colour - new.colour).abs()[both.expand(-1, 3, -1, -1)].mean() < 0.06
        before = scene


def test_the_surface_is_the_mesh_with_its_colours() -> None:
    scene = mesh_scene(resolution=16)
    surface = scene.surface(ExportSettings(faces=400))
    body = surface.mesh.geometry()
    assert body.is_watertight and body.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.06)
    assert 100 < len(body.faces) < 500
    points = torch.from_numpy(surface.mesh.vertices)
    with torch.no_grad():
        torch.testing.assert_close(surface.colour(points, points), scene.texture(points.float()))


def box_with_a_hole(path: Path) -> Path:
    body = trimesh.creation.box((4, 2, 1))
    body.update_faces(np.arange(12) != 3)
    body.apply_translation((5, 0, 0))
    body.export(path)
    return path


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "glb", "off"])
def test_a_file_of_any_format_is_normalised(suffix: str, tmp_path: Path) -> None:
    """A box with a hole, far away and large: put into the middle, outward normals, and drawn, the hole too."""
    path = box_with_a_hole(tmp_path / f"box.{suffix}")
    mesh = mesh_file.read_mesh(path)
    assert len(mesh.faces) == 11 and len(mesh.vertices) == 8
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(mesh_file.FILLS)
    np.testing.assert_allclose(mesh.vertices.max(0) + mesh.vertices.min(0), 0, atol=1e-6)
    corners = mesh.vertices[mesh.faces]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * corners.mean(1)
    assert (outward.sum(1) > 0).all()
    for shape in ("vertices", "tetrahedra"):
        scene = mesh_scene(shape=shape, file=str(path), resolution=24)
        scene.begin()
        with torch.no_grad():
            seen = scene.render(orbit_view(orbit_cameras([0, 90, 180, 270], 0.0), 16))
        assert (seen.opacity.mean((1, 2, 3)) > 0.03).all()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.blend", b"BLENDER-v402", "glTF"),
        ("a.txt", b"x", "a mesh is a file of type glb"),
        ("none.obj", None, "none.obj"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        ("a.stl", b"\0" * 84, "no faces"),
        ("a.glb", b"glTF and then nothing", "cannot be read as a mesh"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", "cannot be read as a mesh"),
        ("flat.obj", b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "no face with an area"),
        ("nan.obj", b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "no faces"),
    ],
)
def test_files_that_are_no_meshes_end_in_one_line(name: str, data: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=said) as caught:
        mesh_file.read_mesh(path)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_too_many_triangles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_file, "MOST", 10)
    with pytest.raises(UserError, match="11 triangles; decimate it to at most 10"):
        mesh_file.read_mesh(box_with_a_hole(tmp_path / "box.obj"))
    monkeypatch.setattr(mesh_file, "LARGEST", 100)
    with pytest.raises(UserError, match="MiB"):
        mesh_file.read_mesh(tmp_path / "box.obj")


def test_vertices_without_a_mesh_say_so() -> None:
    given = {k: v for k, v in MESH.items() if k != "scene.resolution"} | {"scene.shape": "vertices"}
    with pytest.raises(UserError, match="--mesh FILE"):
        Trainer(resolve("balanced", given, "x"), GrayBallPrior())


@pytest.mark.parametrize("shape", [pytest.param("tetrahedra", marks=pytest.mark.slow), "vertices"])
def test_resume_is_bit_exact_in_a_stage_with_a_mesh(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid, then a mesh; the state after five steps, and after three and two with a restore between, also in stage 2."""
    monkeypatch.setattr(level_grid, "STEPS", 3)
    page = tmp_path / "two.yaml"
    page.write_text(
        f"stages: [{{steps: 2, scene: {{levels: [6, 10], samples: 12}}}}, {{steps: 3, scene: {{kind: mesh, shape: {shape}, "
        "levels: [4, 8], shape_levels: [4, 6]}, regularizers: {normal_consistency: 0.1, laplacian: 0.1}}]"
    )
    given = {k: v for k, v in SMALL.items() if k not in ("steps", "scene.fast", "scene.samples", "scene.levels")}
    config = resolve(str(page), given, "x")
    resumes_bit_exactly(config, GrayBallPrior, 5, (1, 4))


class FakeLibrary:
    """What nvdiffrast.torch documents, by the plain rasteriser: the lowest row first, faces counted from 1, (u, v, z / w, number)."""

    def rasterize(self, context: Any, place: Tensor, faces: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, None]:
        assert faces.dtype == torch.int32 and place.is_contiguous()
        assert (place[..., 2].abs() < place[..., 3]).all()  # between the near and the far plane
        face, weights = PLAIN.rasterise(place[..., [0, 1, 3]], faces.long(), resolution[0])
        zeros = torch.zeros_like(weights[..., 0])
        found = torch.stack([weights[..., 0], weights[..., 1], zeros, (face + 1).to(zeros)], -1)
        return found.flip(1), None


def test_the_adapter_to_nvdiffrast_gives_what_the_plain_one_gives() -> None:
    scene = mesh_scene(resolution=10)
    body, cameras = scene.body(), orbit_cameras([30.0, 200.0], 20.0)
    from dreamfusion.scene.mesh_camera import clip_positions

    clip = clip_positions(body.vertices, cameras)
    made = NvDiffRast(FakeLibrary(), None)
    face, weights = made.rasterise(clip, body.faces, 20)
    plain, shares = PLAIN.rasterise(clip, body.faces, 20)
    assert torch.equal(face, plain)
    torch.testing.assert_close(weights, shares, atol=1e-5, rtol=0)
