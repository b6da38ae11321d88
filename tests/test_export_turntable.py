"""Pictures of a ball that is drawn in closed form, and films of it."""

import math
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from dreamfusion.export.drawing import Drawable
from dreamfusion.export.pictures import Kind, render_view
from dreamfusion.export.texture import bake, unwrap
from dreamfusion.export.turntable import mesh_frames, orbit_azimuths, preview_sheet, turntable, write_film
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.mesh import Mesh
from dreamfusion.geometry.surface import Surface, volume_surface
from dreamfusion.scene.rays import camera_rays, to_pictures
from dreamfusion.scene.scene import Rendering, Scene
from dreamfusion.view.backdrops import Groups
from dreamfusion.view.cameras import Cameras, orbit_cameras
from dreamfusion.view.view import View, orbit_view

RADIUS = 0.6


def albedo(points: Tensor) -> Tensor:
    return 0.5 + 0.4 * points / RADIUS


class Ball(Scene):
    """An opaque ball, met by rays in closed form."""

    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        rays, light = camera_rays(view.cameras, view.size), view.lights.repeat_interleave(view.size**2, 0)
        along = -(rays.origins * rays.directions).sum(-1)
        square = along**2 - rays.origins.square().sum(-1) + RADIUS**2
        hit = (square > 0).float()
        depth = along - square.clamp_min(0).sqrt()
        normal = (rays.origins + depth[:, None] * rays.directions) / RADIUS
        base = torch.full_like(normal, 0.8) if view.shading == "textureless" else albedo(normal * RADIUS)
        if view.shading != "albedo":
            base = base * (view.ambient + (1 - view.ambient) * (normal * light).sum(-1, keepdim=True).clamp_min(0))
        h = hit[:, None]
        return Rendering(*(to_pictures(x, view.size) for x in (base * h, hit, depth * hit, normal * h)))

    def groups(self) -> Groups:
        return {}

    def surface(self, settings: ExportSettings) -> Surface:
        return volume_surface(self.density, self.albedo, settings)

    def density(self, points: Tensor) -> Tensor:
        return 100.0 * (points.norm(dim=-1) < RADIUS)

    def albedo(self, points: Tensor) -> Tensor:
        return albedo(points)


@pytest.fixture(scope="module")
def textured() -> tuple[Mesh, np.ndarray]:
    body = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    mesh = Mesh(np.asarray(body.vertices), np.asarray(body.faces), np.asarray(body.vertices) / RADIUS)
    mesh = unwrap(mesh, 256)
    return mesh, bake(mesh, lambda p, n: albedo(p), 256)


def pictures(cameras: Cameras, size: int, kind: Kind, **look: float) -> Tensor:
    return render_view(Ball(), orbit_view(cameras, size, **look), kind)


def test_pictures_show_the_right_place_and_side():
    """From +X: albedo's red is high; the silhouette has the angle asin(r / d); a gray background."""
    (picture,) = pictures(orbit_cameras([90], 0), 101, "albedo")
    assert torch.allclose(picture[:, 50, 50], torch.tensor([0.9, 0.5, 0.5]), atol=0.01)
    assert (picture[:, 0, 0] == 0.5).all()
    assert picture[2, 50, 30] > 0.6 > 0.4 > picture[2, 50, 70]  # +Z lies to the left of a viewer at +X
    assert picture[1, 35, 50] > 0.6  # +Y is up
    covered = (picture[0] != 0.5).float().sum().item()
    pixels = math.tan(math.asin(RADIUS / 2.5)) / math.tan(math.radians(23.5)) * 101 / 2
    assert covered == pytest.approx(math.pi * pixels**2, rel=0.01)


def test_normals_are_in_camera_axes_and_depth_is_near_white():
    cameras = orbit_cameras([0, 130], 30)
    for picture in pictures(cameras, 65, "normal"):
        assert torch.allclose(picture[:, 32, 32], torch.tensor([0.5, 0.5, 1.0]), atol=0.02)
        assert picture[0, 32, 44] > 0.7 and picture[1, 20, 32] > 0.7
    depth = pictures(cameras, 65, "depth", background=0.0)
    assert depth[0, :, 32, 32] == pytest.approx((1 + RADIUS) / 2, abs=1e-3)
    assert depth[0, 0, 32, 42] < depth[0, 0, 32, 32] and depth[0, 0, 0, 0] == 0


def test_opacity_is_the_same_over_every_background():
    camera = orbit_cameras([90], 0)
    (picture,) = pictures(camera, 101, "opacity", background=0.7)
    over_black = pictures(camera, 101, "albedo", background=0.0)[0]
    over_white = pictures(camera, 101, "albedo", background=1.0)[0]
    assert torch.allclose(picture, 1 - (over_white - over_black), atol=1e-6)
    assert picture[0, 50, 50] == pytest.approx(1, abs=1e-3) and picture[0, 0, 0] == 0


def test_light_is_above_the_camera():
    (picture,) = pictures(orbit_cameras([200], 10), 65, "textureless", background=0.0)
    assert picture[0].max() == pytest.approx(0.8, abs=0.002)
    row = int(picture[0].argmax()) // 65
    assert 18 < row < 30  # sin(30 deg) of the ball's radius above the middle
    assert picture[0, 46, 32] < picture[0, 20, 32]


@pytest.mark.parametrize("shading", ["albedo", "lambertian", "textureless"])
def test_the_mesh_is_drawn_as_the_field_is(textured, shading):
    """Two renderers that share no code: rays in closed form, and triangles."""
    camera = orbit_cameras([-35], 25, 2.3)
    exact = pictures(camera, 128, shading)[0].permute(1, 2, 0).numpy()
    drawn = Drawable.of(*textured).draw(orbit_view(camera, 128, shading)) / 255
    difference = np.abs(exact - drawn)
    assert difference.mean() < 0.005
    assert np.quantile(difference, 0.97) < 0.02  # only the rim, which the mesh smooths, differs


def test_edges_are_soft(textured):
    """Against 8 x 8 rays a pixel: the rim has in-between colours, so it is twice as near as hard edges are."""
    camera = orbit_cameras([10], 20)
    fine = pictures(camera, 8 * 64, "albedo")[0].permute(1, 2, 0).numpy()
    exact = fine.reshape(64, 8, 64, 8, 3).mean((1, 3))
    hard = fine[4::8, 4::8]
    rim = np.abs(exact - hard).max(-1) > 0.02
    drawn = Drawable.of(*textured).draw(orbit_view(camera, 64, "albedo")) / 255
    assert rim.sum() > 50
    assert np.abs(drawn - exact)[rim].mean() < 0.55 * np.abs(hard - exact)[rim].mean()


def test_a_film_has_all_frames_and_the_animation_fewer(textured, tmp_path: Path):
    assert turntable(tmp_path, Ball(), frames=64, size=33) == "field"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["turntable.gif", "turntable.mp4"]
    with imageio.get_reader(tmp_path / "turntable.mp4") as film:
        details = film.get_meta_data()
        frames = [np.asarray(frame) for frame in film]
    assert len(frames) == 64 and frames[0].shape == (34, 34, 3)
    assert details["codec"] == "h264" and details["pix_fmt"].startswith("yuv420p") and details["fps"] == 30
    # Blue at the front (+Z), red a quarter of a turn later (+X), no blue behind.
    first, quarter, half = (frames[i][12:22, 12:22].mean((0, 1)) for i in (0, 16, 32))
    assert first[2] > first[0] + 30 and quarter[0] > quarter[2] + 30 and half[2] < half[0] - 30
    with Image.open(tmp_path / "turntable.gif") as animation:
        assert animation.n_frames == 32 and animation.info["loop"] == 0
        assert animation.info["duration"] == 70  # 2 frames of 1/30 s, in hundredths


def test_a_slow_field_gives_way_to_the_mesh(textured, tmp_path: Path):
    assert turntable(tmp_path, Ball(), *textured, frames=4, size=32, seconds=0) == "mesh"
    assert turntable(tmp_path, Ball(), *textured, frames=4, size=32, seconds=1e9) == "field"
    assert turntable(tmp_path, Ball(), *textured, frames=4, size=32, source="mesh") == "mesh"
    assert turntable(tmp_path, Ball(), *textured, frames=4, size=32, source="field", seconds=0) == "field"
    assert turntable(tmp_path, Ball(), frames=4, size=32, seconds=0) == "field"
    assert turntable(tmp_path, Ball(), frames=4, size=32, faithful=True) == "field"
    assert turntable(tmp_path, None, *textured, frames=1, size=32) == "mesh"


def test_a_faithful_mesh_is_filmed(textured, tmp_path: Path):
    assert turntable(tmp_path, Ball(), *textured, frames=4, size=32, faithful=True, seconds=1e9) == "mesh"
    assert turntable(tmp_path, Ball(), *textured, frames=4, size=32, faithful=True, source="field") == "field"
    cameras = orbit_cameras(orbit_azimuths(12))
    one_by_one = [Drawable.of(*textured).draw(orbit_view(cameras[i : i + 1], 32)) for i in range(12)]
    assert np.array_equal(list(mesh_frames(*textured, cameras, 32)), one_by_one)


def test_no_frames_no_file(tmp_path: Path):
    assert turntable(tmp_path / "none", Ball(), frames=0) == "none"
    assert not (tmp_path / "none").exists()


def test_a_film_that_fails_leaves_nothing(tmp_path: Path):
    def frames():
        yield np.zeros((32, 32, 3), np.uint8)
        raise RuntimeError("the renderer died")

    with pytest.raises(RuntimeError, match="the renderer died"):
        write_film(tmp_path, frames(), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_turn_closes_without_a_doubled_frame():
    assert orbit_azimuths(4) == [0, 90, 180, 270]


def test_the_sheet_shows_every_view_in_its_place():
    sheet = preview_sheet(Ball(), size=48, views=4, kinds=("albedo", "depth"))
    left, top = sheet.shape[1] - 4 * 48, sheet.shape[0] - 2 * 48
    (front,) = pictures(orbit_cameras([0]), 48, "albedo")
    (side,) = pictures(orbit_cameras([270]), 48, "depth")
    for picture, row, column in ((front, 0, 0), (side, 1, 3)):
        cell = sheet[top + 48 * row :, left + 48 * column :][:48, :48]
        assert np.abs(cell / 255 - picture.permute(1, 2, 0).numpy()).max() < 0.01
    assert sheet[:top].min() < 128 and sheet[:, :left].min() < 128  # labels
