"""Surfaces that show what their volume shows: thin and faint parts, judged by silhouettes in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamfusion.asset import Asset, poor_note
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.mesh import Mesh, sample_grid
from dreamfusion.geometry.surface import Surface, clean_surface, volume_surface
from dreamfusion.scene import level_grid
from dreamfusion.scene.fitted import fitted_surface, seen_inside, showing_level
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.mesh_scene import MeshScene
from dreamfusion.scene.particles import Particles
from dreamfusion.scene.scene import Rendering, Scene
from dreamfusion.scene.scene_settings import GridSettings, MeshSettings
from dreamfusion.scene.silhouettes import Agreement, Silhouettes, looks_around
from dreamfusion.scene.transfer import Volume
from dreamfusion.view.backdrops import Groups
from dreamfusion.view.view import View

SETTINGS = ExportSettings(resolution=72, faces=20_000)
SIZE = 96


def density(p: Tensor) -> Tensor:
    """A ball of 40 and, beside it, a ring of 8 that is too faint for the default level."""
    ball = 40 * torch.sigmoid((0.3 - p.norm(dim=-1)) * 80)
    ring = torch.stack([p[:, [0, 2]].norm(dim=-1) - 0.7, p[:, 1]], -1).norm(dim=-1)
    return ball + 8 * torch.sigmoid((0.09 - ring) * 80)


def albedo(p: Tensor) -> Tensor:
    return torch.full_like(p, 0.5)


def march(cameras, size: int = SIZE) -> Tensor:
    """Opacity of every pixel, by many small steps."""
    origins, directions = cameras.rays(size)
    step = 2.4 / 160
    total = torch.zeros(directions.shape[:-1])
    for k in range(160):
        points = origins + directions * (1.3 + step * (k + 0.5))
        total += (density(points.reshape(-1, 3)) * step).reshape(total.shape)
    return -torch.expm1(-total)


class BallAndRing(Scene):
    """The ball and its ring as a scene that only shows its opacity."""

    def density(self, points: Tensor) -> Tensor:
        return density(points)

    def albedo(self, points: Tensor) -> Tensor:
        return albedo(points)

    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        opacity = march(view.cameras, view.size)[:, None]
        return Rendering(opacity.expand(-1, 3, -1, -1), opacity, opacity, opacity.expand(-1, 3, -1, -1))

    def groups(self) -> Groups:
        return {}

    def surface(self, settings: ExportSettings) -> Surface:
        return volume_surface(density, albedo, settings)

    def as_volume(self) -> Volume:
        return self


@pytest.fixture(scope="module")
def silhouettes() -> Silhouettes:
    cameras = looks_around()
    return Silhouettes(march(cameras), cameras)


def test_a_faint_part_is_kept(silhouettes: Silhouettes):
    before, _, _ = clean_surface(density, SETTINGS)
    lost = silhouettes.agreement(before)
    assert lost.pieces == 1 and lost.missing > 0.3  # else this tests nothing
    found = silhouettes.agreement(fitted_surface(density, albedo, SETTINGS, silhouettes).mesh)
    assert found.pieces == 2 and found.missing < 0.03 and found.iou > 0.93


def test_a_mesh_begins_with_what_its_scene_shows(silhouettes: Silhouettes, monkeypatch: pytest.MonkeyPatch):
    """The ring is fainter than the exporter's level. A mesh that begins with the ball and the ring has both."""
    monkeypatch.setattr(level_grid, "STEPS", 2)
    scene = make_scene(MeshSettings(resolution=28), torch.Generator().manual_seed(0))
    scene.begin_from(BallAndRing(), torch.Generator().manual_seed(0))
    assert isinstance(scene, MeshScene)
    with torch.no_grad():
        vertices, faces = scene.shape.triangles()
    found = silhouettes.agreement(Mesh(vertices.double().numpy(), faces.numpy()))
    assert found.pieces == 2 and found.missing < 0.05 and found.iou > 0.9


def test_the_level_is_one_that_the_rays_meet(silhouettes: Silhouettes):
    grid = sample_grid(density, 64, 1.0)
    assert 1.0 <= showing_level(grid, 10.0, silhouettes) < 8.0
    assert showing_level(grid, 0.5, silhouettes) == 0.5


def test_a_point_is_inside_where_all_views_are_solid(silhouettes: Silhouettes):
    grid = sample_grid(density, 41, 1.0)
    inside = seen_inside(np.ones(grid.shape, bool), silhouettes)
    assert inside[20, 20, 20] > 0.9 and inside[34, 20, 20] > 0  # the ball's middle, the ring's
    assert inside[20, 38, 20] == -1 and inside[2, 2, 2] == -1


def test_the_figures_of_an_agreement():
    cameras = looks_around()[:1]
    opacity = torch.zeros(1, 8, 8)
    opacity[0, 2:6, 2:6] = 1
    seen = np.zeros((1, 8, 8), bool)
    seen[0, 2:6, 3:7] = True
    found = Silhouettes(opacity, cameras).compare(seen)
    assert found == Agreement(iou=12 / 20, missing=4 / 16, extra=4 / 16, pieces=1)
    assert "agree to 0.60" in poor_note(found)["silhouettes"] and poor_note(Agreement(0.95, 0, 0, 1)) == {}


@pytest.mark.parametrize("volume", [True, False])
def test_the_scene_says_whether_a_surface_is_fitted_to_it(volume: bool, monkeypatch: pytest.MonkeyPatch):
    scene = make_scene(GridSettings(levels=(4, 8)), torch.Generator().manual_seed(0))
    assert scene.as_volume() is scene and Particles([scene, scene]).as_volume() is scene
    if not volume:
        monkeypatch.setattr(scene, "as_volume", lambda: None)
    fitted = []
    monkeypatch.setattr(
        "dreamfusion.scene.fitted.fitted_surface", lambda d, a, s, _: fitted.append(d) or scene.surface(s)
    )
    Asset.from_scene(scene, ExportSettings(resolution=24, faces=500, texture_size=64))
    assert fitted == ([scene.density] if volume else [])


def test_a_mesh_is_no_volume():
    scene = make_scene(MeshSettings(resolution=8), torch.Generator().manual_seed(0))
    assert scene.as_volume() is None and Particles([scene]).as_volume() is None


def test_restoring_the_ring_leaves_the_ball_smooth(silhouettes: Silhouettes):
    """The ball's normals are radial; what is restored for a ray must not be a bump on it."""
    mesh = fitted_surface(density, albedo, ExportSettings(resolution=72, faces=100_000), silhouettes).mesh
    radius = np.linalg.norm(mesh.vertices, axis=1)
    ball = radius < 0.45
    assert mesh.normals is not None and ball.sum() > 1000
    cosine = (mesh.normals[ball] * mesh.vertices[ball]).sum(1) / radius[ball]
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).mean() < 1.8  # 2.1 with the bumps
