import math
import time

import pytest
import torch
from fakes import SMALL, GrayBallPrior
from scenes import FIELDS, ball_picture, random_grid, scene_settings

from dreamfusion.scene.field import SHARPNESS, SHIFT
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.rays import camera_rays, to_pictures
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import Cameras, orbit_cameras
from dreamfusion.view.view import orbit_view

SMALL_MLP = {"kind": "mlp", "hidden": 64, "depth": 3, "samples": 48, "frequencies": 5}


@pytest.mark.parametrize("kind", ["grid", "mlp"])
def test_a_fresh_scene_is_an_opaque_blob_in_clear_space(kind):
    scene = make_scene(scene_settings(kind=kind, hidden=32), torch.Generator().manual_seed(0))
    with torch.no_grad():
        centre, shell, edge = scene.density(torch.tensor([[0.0, 0, 0], [0, 0.3, 0], [0.9, 0, 0]])).tolist()
    assert 40 < centre < 110 and 5 < shell < 20 and edge < 0.1
    albedo = scene.albedo(torch.rand(50, 3) - 0.5)
    assert ((albedo > 0.1) & (albedo < 0.9)).all()


def test_blob_in_closed_form():
    scene = make_scene(scene_settings(levels=(4,), density_bias=3, density_bias_width=0.2), torch.Generator())
    with torch.no_grad():
        scene.table.zero_()
        raw = 3 * math.exp(-0.09 / 0.08)
        expected = 20 * math.log1p(math.exp(SHARPNESS * raw - SHIFT))
        assert scene.density(torch.tensor([[0.0, 0.3, 0.0]])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["grid", "mlp"])
def test_hardening_multiplies_what_was_learned_and_nothing_else(kind):
    scene = make_scene(scene_settings(kind=kind, levels=(4, 9), hidden=16), torch.Generator().manual_seed(0))
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    with torch.no_grad():
        (raw, albedo), blob = scene.query(points), scene.blob(points)
        scene.harden(2.5)
        harder, same = scene.query(points)
    torch.testing.assert_close(harder - blob, 2.5 * (raw - blob), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same, albedo)


def test_a_run_hardens_by_its_schedule():
    """With no learning the density's table is multiplied by what the schedule says, step by step."""
    settings = SMALL | {"steps": 8, "scene.lr": 1e-30, "scene.lr_head": 1e-30}
    trainer = Trainer(resolve("fast", settings | {"scene.hardening": [[0.25, 1], [1, 4]]}, "x"), GrayBallPrior())
    first = trainer.scene.table.detach().clone()
    for done, factor in enumerate((1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0), 1):
        trainer.step()
        table = trainer.scene.table.detach()
        torch.testing.assert_close(table[:, 0], factor * first[:, 0], rtol=1e-5, atol=0, msg=f"step {done}")
    torch.testing.assert_close(table[:, 1:], first[:, 1:], rtol=0, atol=0)


def test_grid_reads_trilinearly():
    """A table filled with a linear function is read back exactly."""
    scene = make_scene(scene_settings(levels=(3, 6), features=2), torch.Generator().manual_seed(0))
    slopes = torch.tensor([[0.3, -0.2, 0.5], [1.0, 0.4, -0.7], [0.1, 0.0, 0.6]])
    tables = []
    for side in (3, 6):
        axis = torch.linspace(-1, 1, side)
        tables.append(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) @ slopes.T)
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        scene.table.copy_(torch.cat(tables))
        raw, features = scene.features(points)
    torch.testing.assert_close(raw, 2 * points @ slopes[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(features, (points @ slopes[1:].T).repeat(1, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["grid", "mlp"])
def test_normals_and_depth_of_a_ball(kind):
    """The blob alone is a ball: normals point outward, the depth is that of its surface, nothing faces away."""
    settings = scene_settings(kind=kind, levels=(4,), density_scale=500, samples=256, density_bias_width=0.3)
    scene = make_scene(settings, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in scene.parameters():
            parameter.zero_()
    rays = camera_rays(orbit_cameras([40], 20, 2.5), 9)
    with torch.no_grad():
        seen = scene.render_rays(rays, "albedo", torch.zeros_like(rays.origins), 0.5)
    middle = 40
    assert seen.opacity[middle] > 0.999
    torch.testing.assert_close(seen.normal[middle], -rays.directions[middle], atol=2e-2, rtol=0)
    distance = seen.depth[middle].item()
    assert 2.5 - 0.6 < distance < 2.5 - 0.25
    assert seen.orientation[middle] < 1e-6
    torch.testing.assert_close(seen.colour[middle], torch.full((3,), 0.5), atol=2e-3, rtol=0)


def test_skipping_empty_cells_changes_next_to_nothing():
    scene = random_grid(levels=(8, 16), samples=64)
    rays = camera_rays(orbit_cameras([20, 130], 30), 16)
    light = torch.tensor([[0.0, 0.6, 0.8]]).expand_as(rays.origins)
    with torch.no_grad():
        everything = scene.render_rays(rays, "lambertian", light, 0.5)
        for step in (16, 32, 48):
            scene.occupancy.after_step(scene.density, step)
        skipped = scene.render_rays(rays, "lambertian", light, 0.5)
    assert scene.occupancy.cells.float().mean() < 0.7
    assert (everything.colour - skipped.colour).abs().max() < 5e-2
    assert (everything.colour - skipped.colour).abs().mean() < 4e-3


def test_state_repeats_the_scene():
    first = random_grid(seed=0)
    first.occupancy.after_step(first.density, 0)
    second = random_grid(seed=1)
    second.load_state_dict(first.state_dict())
    rays = camera_rays(orbit_cameras([20], 30), 8)
    a, b = (
        s.render_rays(rays, "albedo", rays.directions, 0.5, torch.Generator().manual_seed(0)) for s in (first, second)
    )
    assert torch.equal(a.colour, b.colour) and torch.equal(a.depth, b.depth)


def test_large_pictures_in_parts_equal_the_whole(monkeypatch):
    scene = random_grid()
    rays = camera_rays(orbit_cameras([20], 30), 12)
    light = torch.nn.functional.normalize(torch.randn(144, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.no_grad():
        whole = scene.render_rays(rays, "lambertian", light, 0.5, torch.Generator().manual_seed(1))
        monkeypatch.setattr("dreamfusion.scene.field.AT_ONCE", 50)
        parts = scene.render_rays(rays, "lambertian", light, 0.5, torch.Generator().manual_seed(1))
    for name in FIELDS:
        assert torch.equal(getattr(whole, name), getattr(parts, name))


def test_every_parameter_is_in_a_group():
    for kind in ("grid", "mlp"):
        for channels in (3, 4):
            settings = scene_settings(kind=kind, levels=(4,), channels=channels)
            scene = make_scene(settings, torch.Generator().manual_seed(0))
            grouped = [(name, id(p)) for named, _ in scene.groups().values() for name, p in named.items()]
            assert sorted(grouped) == sorted((name, id(p)) for name, p in scene.named_parameters())


def test_groups_have_the_settings_rates():
    grid = make_scene(scene_settings(levels=(4,), lr=0.3, lr_head=0.2), torch.Generator().manual_seed(0)).groups()
    assert {name: rate for name, (_, rate) in grid.items()} == {"features": 0.3, "head": 0.2}
    assert list(grid["features"][0]) == ["table"]
    mlp = make_scene(scene_settings("mlp", lr_head=0.2), torch.Generator().manual_seed(0)).groups()
    assert {name: rate for name, (_, rate) in mlp.items()} == {"head": 0.2}


def test_importance_samples_sharpen_the_mlp():
    """Few samples with importance come closer to many samples than without."""
    rays = camera_rays(orbit_cameras([20], 10), 12)
    pictures = {}
    for samples, importance in [(512, 0), (24, 0), (24, 48)]:
        settings = scene_settings(**SMALL_MLP | {"density_scale": 200, "importance": importance})
        scene = make_scene(settings, torch.Generator().manual_seed(0))
        with torch.no_grad():
            pictures[samples, importance] = scene.render_rays(
                rays, "albedo", rays.directions, 0.5, samples=samples
            ).depth
    off = [(pictures[key] - pictures[512, 0]).abs().mean() for key in [(24, 0), (24, 48)]]
    assert off[1] < off[0] / 2


@pytest.mark.parametrize("kind", ["grid", "mlp"])
def test_a_view_is_rendered_as_its_rays_are(kind):
    """Each picture's own light, the pixels in their places, and the penalty is the mean of what the rays say."""
    scene = random_grid() if kind == "grid" else make_scene(scene_settings("mlp", samples=24), torch.Generator())
    above, around = torch.tensor([10.0, 50.0]), torch.tensor([-30.0, 20.0])
    view = orbit_view(
        orbit_cameras([20, 200], 25), 7, light_above_deg=above, light_around_deg=around, ambient=0.3, background=0.8
    )
    with torch.no_grad():
        seen = scene.render(view, torch.Generator().manual_seed(1))
        lights = view.lights.repeat_interleave(49, 0)
        rays = camera_rays(view.cameras, 7)
        flat = scene.render_rays(rays, "lambertian", lights, 0.3, torch.Generator().manual_seed(1))
    for name, channels in (("colour", 3), ("opacity", 1), ("depth", 1), ("normal", 3)):
        picture, expected = getattr(seen, name), getattr(flat, name).reshape(2, 7, 7, channels)
        assert picture.shape == (2, channels, 7, 7) and torch.equal(picture.permute(0, 2, 3, 1), expected)
    assert set(seen.penalties) == {"orientation"} and seen.penalties["orientation"] == flat.orientation.mean()
    assert torch.equal(seen.over(view.background), seen.colour + (1 - seen.opacity) * 0.8)


def fit(scene, rates: dict[str, float], steps: int, resolution: int, seconds: float) -> float:
    """Fit a scene to pictures of two balls; PSNR in dB over views it was not shown."""
    groups = [{"params": list(named.values()), "lr": rates[name]} for name, (named, _) in scene.groups().items()]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)

    def off(cameras, size, rng=None):
        view = orbit_view(cameras, size, "albedo")
        return scene.render(view, rng).over(view.background) - to_pictures(
            ball_picture(camera_rays(cameras, size)), size
        )

    generator = torch.Generator().manual_seed(0)
    end = time.process_time() + seconds  # the machine may be busy
    for step in range(1, steps + 1):
        azimuth, height = (torch.rand(2, 4, generator=generator) * 2 - 1).unbind()
        same = torch.ones(4)
        cameras = Cameras(azimuth * math.pi, height * 0.9, same * 2.5, same * math.radians(47))
        loss = off(cameras, resolution, generator).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scene.occupancy.after_step(scene.density, step)
        assert time.process_time() < end, f"too slow: {step} steps in {seconds} s"
    with torch.no_grad():
        error = off(orbit_cameras([15, 135, 255], 25), 48).square().mean()
    return -10 * math.log10(error)


def test_grid_learns_two_balls():
    scene = make_scene(scene_settings(levels=(12, 32), samples=64), torch.Generator().manual_seed(0))
    rates = {"features": 0.05, "head": 0.005}
    assert fit(scene, rates, steps=100, resolution=32, seconds=60) > 26


@pytest.mark.slow
def test_mlp_learns_two_balls():
    scene = make_scene(scene_settings(**SMALL_MLP), torch.Generator().manual_seed(0))
    assert fit(scene, {"head": 2e-3}, steps=200, resolution=16, seconds=300) > 24
