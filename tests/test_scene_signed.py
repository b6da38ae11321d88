"""Fields whose density comes from a signed distance: closed forms, finite differences, kernels, the surface, resuming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.no_effect import without_effect
from dreamfusion.scene import laplace
from dreamfusion.scene.field import PLAIN
from dreamfusion.scene.grid import FUSED, GridField
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.rays import camera_rays
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL, GrayBallPrior
from tests.resuming import resumes_bit_exactly
from tests.scenes import FIELDS, mixed_loss, scene_settings

RADIUS = 0.45


def ball(**settings) -> GridField:
    """The field as it begins, with nothing learned: a ball."""
    given = {"density": "sdf", "levels": (6, 13), "density_bias_width": RADIUS, "density_scale": 25.0} | settings
    field = make_scene(scene_settings(**given), torch.Generator().manual_seed(0))
    assert isinstance(field, GridField)
    with torch.no_grad():
        field.table[:, 0] = 0
    return field


def bumpy(**settings) -> GridField:
    field = ball(**settings)
    with torch.no_grad():
        field.table[:, 0] = torch.randn(len(field.table), generator=torch.Generator().manual_seed(3)) * 0.5
    return field


def test_the_density_of_a_ball_in_closed_form() -> None:
    """VolSDF, eq. 2 and 3, by the distribution of SciPy's Laplace variable; in plain and compiled form."""
    from scipy.stats import laplace as truth

    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    points = points[points.norm(dim=-1) < 1]
    distance = points.norm(dim=-1).double().numpy() - RADIUS
    expected = 25 * truth.cdf(-distance, scale=1 / 25)
    for fast in (False, True):
        with torch.no_grad():
            found = ball(fast=fast).density(points)
        np.testing.assert_allclose(found, expected, rtol=3e-5)
    assert ball().density(torch.tensor([[0.0, RADIUS, 0.0]])).item() == pytest.approx(12.5, rel=1e-5)


def test_distance_is_read_from_the_same_table_as_the_density() -> None:
    field = bumpy()
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.6
    with torch.no_grad():
        raw, _ = field.query(points, colour=False)
        torch.testing.assert_close(field.distance(points), -laplace.UNIT * raw, rtol=1e-4, atol=1e-6)


def test_the_eikonal_penalty_of_true_and_stretched_distances() -> None:
    """0 for planes and spheres, (k - 1)^2 for k times a plane's; and of a field as it begins."""

    def plane(points: torch.Tensor) -> torch.Tensor:
        return points @ torch.tensor([0.6, 0.0, 0.8]) - 0.1

    assert laplace.eikonal(plane, 0.05).item() == pytest.approx(0, abs=1e-9)
    assert laplace.eikonal(lambda p: 3 * plane(p), 0.05).item() == pytest.approx(4, rel=1e-4)
    fine = ball(levels=(64,))
    assert laplace.eikonal(fine.distance, 2 / 63).item() < 2e-3  # all but the middle, where a ball's distance has a tip
    assert laplace.eikonal(bumpy().distance, 2 / 12).item() > 0.01


def test_the_eikonal_penalty_is_computed_when_asked_at_points_that_the_step_has_drawn() -> None:
    """So whether it is asked changes none of the step's other random numbers, and when it is asked not its value."""
    field, rng, plain = bumpy(), torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    view = orbit_view(orbit_cameras([0.0]), 8)
    price = field.render(view, rng).penalties["eikonal"]
    super(GridField, field).render(view, plain)
    ball = laplace.points_of_ball(plain)
    assert torch.equal(rng.get_state(), plain.get_state())
    first = price()  # type: ignore[operator]
    assert torch.equal(rng.get_state(), plain.get_state())
    assert first == price() == laplace.eikonal(field.distance, 2 / 12, ball)  # type: ignore[operator]


def test_the_eikonal_penalty_moves_a_field_towards_a_distance() -> None:
    field = bumpy()
    before = laplace.eikonal(field.distance, 2 / 12).item()
    optimiser = torch.optim.Adam([field.table], 0.05)
    for _ in range(40):
        optimiser.zero_grad()
        laplace.eikonal(field.distance, 2 / 12).backward()
        optimiser.step()
    assert laplace.eikonal(field.distance, 2 / 12).item() < before / 4


def test_gradients_of_pictures_against_finite_differences() -> None:
    field = bumpy(fast=False, levels=(4,)).double()
    rays = camera_rays(orbit_cameras([20], 30), 6)
    rays = type(rays)(rays.origins.double(), rays.directions.double(), rays.pixel_radius)
    light = torch.nn.functional.normalize(torch.ones_like(rays.origins), dim=-1)

    def loss() -> torch.Tensor:
        return mixed_loss(field.render_rays(rays, "lambertian", light, 0.3, samples=24))

    loss().backward()
    kept = field.table.grad.clone()
    steep = kept[:, 0].abs().argsort(descending=True)[:4].tolist()
    for vertex in steep:
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                field.table[vertex, 0] += sign * 1e-6
                found.append(loss().item())
                field.table[vertex, 0] -= sign * 1e-6
        assert (found[0] - found[1]) / 2e-6 == pytest.approx(kept[vertex, 0].item(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("shading", ["lambertian", "textureless"])
def test_fused_equals_plain_also_when_beta_has_fallen(shading: str) -> None:
    plain, fused = bumpy(fast=False), bumpy(fast=True)
    rays = camera_rays(orbit_cameras([20, 130], 30), 16)
    light = torch.nn.functional.normalize(torch.ones_like(rays.origins), dim=-1)
    for factor in (1.0, 2.0):
        seen = []
        for field, way in ((plain, PLAIN), (fused, FUSED)):
            field.harden(factor)
            assert next(w for w in field.ways() if w.suits(field, rays, shading)) is way
            rendering = field.render_rays(rays, shading, light, 0.3, torch.Generator().manual_seed(1))
            field.zero_grad()
            mixed_loss(rendering).backward()
            seen.append([getattr(rendering, name).detach() for name in FIELDS] + [field.table.grad.clone()])
        for one, other in zip(*seen, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(other.abs().max().item(), 1e-3))
    assert plain.beta.item() == pytest.approx(1 / 50)


def test_the_surface_is_the_zero_set_whatever_beta_is() -> None:
    """A ball of the radius it began with, also in pictures, and a ball that has learned to be smaller by 0.1."""
    field = ball(levels=(40,), samples=200)
    settings = ExportSettings(resolution=64, level=3.0, fit=False)
    for expected in (RADIUS, RADIUS - 0.1):
        for factor in (1.0, 4.0):
            field.harden(factor)
            surface = field.surface(settings)
            radius = np.linalg.norm(surface.mesh.vertices, axis=1)
            assert radius == pytest.approx(expected, abs=2e-3)
            assert surface.mesh.geometry().is_watertight and "zero" in surface.notes["level"]
        field.harden(1 / 4)
        with torch.no_grad():
            field.table[:, 0] -= 0.1 / laplace.UNIT
    with torch.no_grad():
        field.table[:, 0] += 0.2 / laplace.UNIT
        field.harden(16.0)
        seen = field.render(orbit_view(orbit_cameras([0], 0), 64, "textureless"))
    # A sphere of radius r seen from 2.5 away covers a cone of half angle asin(r / 2.5). Rays that pass it at less than
    # about four times beta see it too, since they are near to it for a long way.
    share, outer = (
        math.pi * (math.tan(math.asin(r / 2.5)) / math.tan(math.radians(47 / 2))) ** 2 / 4
        for r in (RADIUS, RADIUS + 4 * field.beta.item())
    )
    assert share < (seen.opacity > 0.5).float().mean().item() < outer
    middle = seen.normal[0, :, 31:33, 31:33].mean((1, 2)) / seen.opacity[0, 0, 31:33, 31:33].mean()
    torch.testing.assert_close(middle, torch.tensor([0.0, 0.0, 1.0]), atol=0.05, rtol=0)


def test_an_empty_distance_has_no_surface() -> None:
    from dreamfusion.errors import UserError

    field = ball()
    with torch.no_grad():
        field.table[:, 0] = -100
    with pytest.raises(UserError, match="the scene is empty"):
        field.surface(ExportSettings(resolution=32))


def test_runs_learn_report_and_resume() -> None:
    given = {
        "scene.density": "sdf",
        "regularizers.eikonal": 0.1,
        "scene.hardening": [[0, 1], [1, 4]],
        "scene.fast": True,
    }
    config = resolve("fast", SMALL | given, "x")
    trainer = Trainer(config, GrayBallPrior())
    metrics = [dict(progress.metrics) for progress in trainer.steps()]
    assert all(m["skipped"] == 0 and m["regularizer_eikonal"] >= 0 for m in metrics)
    assert trainer.scene.beta.item() == pytest.approx(1 / 80, rel=1e-4) and trainer.scene.as_volume() is None
    resumes_bit_exactly(config, GrayBallPrior, 6, (1, 4))
    assert not without_effect(config)
    (line,) = without_effect(resolve("fast", SMALL | given | {"scene.density_bias": 3}, "x"))
    assert "begins with a ball" in line
