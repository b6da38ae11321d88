import math

import numpy as np
import pytest
import torch

from dreamfusion.errors import UserError
from dreamfusion.scene.rays import camera_rays, to_pictures
from dreamfusion.view.cameras import orbit_cameras, sample_cameras
from dreamfusion.view.lights import camera_lights, sample_lights
from dreamfusion.view.view_settings import ViewSettings


def opengl_pixel(point, azimuth_deg, elevation_deg, distance, fov_deg, size):
    """Where OpenGL draws a world point: (column, row) from the top left, by 4x4 matrices."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    back = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = np.stack([right, np.cross(back, right), back])
    view[:3, 3] = -view[:3, :3] @ (back * distance)
    f = 1 / math.tan(math.radians(fov_deg) / 2)
    x, y, z, _ = np.diag([f, f, 1, 1]) @ view @ np.append(point, 1.0)
    return (x / -z + 1) / 2 * size, (1 - y / -z) / 2 * size


@pytest.mark.parametrize("azimuth,elevation", [(0, 0), (90, 0), (-120, 35), (180, -30), (45, 80)])
def test_rays_match_the_opengl_picture(azimuth, elevation):
    cameras = orbit_cameras([azimuth], elevation, 2.4, 50).to(dtype=torch.float64)
    rays = camera_rays(cameras, 16)
    for row, column in [(0, 0), (3, 12), (15, 7)]:
        i = row * 16 + column
        point = (rays.origins[i] + 1.7 * rays.directions[i]).numpy()
        x, y = opengl_pixel(point, azimuth, elevation, 2.4, 50, 16)
        assert (x, y) == pytest.approx((column + 0.5, row + 0.5), abs=1e-4)


def test_axes_of_the_world():
    cameras = orbit_cameras([0, 90], 0, 2.0)
    torch.testing.assert_close(cameras.positions(), torch.tensor([[0, 0, 2.0], [2, 0, 0]]), atol=1e-6, rtol=0)
    up = orbit_cameras([0], 90, 2.0).positions()
    torch.testing.assert_close(up, torch.tensor([[0, 2.0, 0]]), atol=1e-6, rtol=0)


def test_pixel_radius_is_half_the_pitch_at_the_centre():
    rays = camera_rays(orbit_cameras([20], 10), 64)
    middle = rays.directions.reshape(64, 64, 3)[31:33, 31:33]
    pitch = (middle[0, 1] - middle[0, 0]).norm()
    assert rays.pixel_radius == pytest.approx(float(pitch) / 2, rel=1e-3)


def test_fitted_cameras_are_filled_by_the_unit_sphere():
    settings = ViewSettings(radius=(1.2, 3.0), fit=True, fov_deg=47)
    cameras = sample_cameras(settings, 200, torch.Generator().manual_seed(0))
    near = cameras.fov > math.radians(47.0001)
    # the ray at half the field of view grazes the sphere: its distance to the origin is radius * sin(fov / 2)
    miss = cameras.radius * torch.sin(cameras.fov / 2)
    torch.testing.assert_close(miss[near], torch.ones(int(near.sum())), atol=1e-5, rtol=0)
    assert near.any() and (~near).any() and (miss[~near] >= 1 - 1e-5).all()
    with pytest.raises(UserError, match="radius"):
        sample_cameras(ViewSettings(radius=(0.9, 2), fit=True), 1, torch.Generator())


def test_samples_stay_in_range_and_repeat():
    settings = ViewSettings(azimuth_deg=(-90, 30), elevation_deg=(-10, 20), radius=(1.5, 2.5))
    a = sample_cameras(settings, 500, torch.Generator().manual_seed(3))
    b = sample_cameras(settings, 500, torch.Generator().manual_seed(3))
    assert torch.equal(a.azimuth, b.azimuth) and torch.equal(a.radius, b.radius)
    for value, (low, high) in [
        (torch.rad2deg(a.azimuth), settings.azimuth_deg),
        (torch.rad2deg(a.elevation), settings.elevation_deg),
        (a.radius, settings.radius),
    ]:
        assert low - 1e-3 <= value.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < value.max() <= high + 1e-3


def test_condition_is_the_apparent_distance():
    same = orbit_cameras([30], 10, 2.5, 47.0).condition()[0]
    torch.testing.assert_close(same, torch.tensor([math.radians(30), math.radians(10), 2.5]))
    wide = orbit_cameras([30], 10, 2.5, 94.0).condition()[0, 2]
    assert wide == pytest.approx(2.5 * math.tan(math.radians(47)) / math.tan(math.radians(23.5)))


def test_key_light_stands_above_the_camera():
    cameras = sample_cameras(ViewSettings(), 20, torch.Generator().manual_seed(1))
    light = sample_lights(ViewSettings(), cameras, torch.Generator().manual_seed(1))
    right, up, back = cameras.axes()
    inside = torch.stack([(light * axis).sum(-1) for axis in (right, up, back)], -1)
    torch.testing.assert_close(inside, torch.tensor([[0, 0.5, math.sqrt(0.75)]]).expand(20, 3), atol=1e-6, rtol=0)


def test_light_turned_a_quarter_is_at_the_right():
    cameras = orbit_cameras([0], 0)
    light = camera_lights(cameras, torch.zeros(1), torch.full((1,), math.pi / 2))
    torch.testing.assert_close(light, torch.tensor([[1.0, 0, 0]]), atol=1e-6, rtol=0)


def test_to_pictures_puts_the_top_left_first():
    cameras = orbit_cameras([0, 0], 0)
    height = camera_rays(cameras, 4).directions
    pictures = to_pictures(height, 4)
    assert pictures.shape == (2, 3, 4, 4)
    assert (pictures[:, 1, 0] > 0).all() and (pictures[:, 0, :, 0] < 0).all()
