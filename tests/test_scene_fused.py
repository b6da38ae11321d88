"""The fused renderer against the plain one, and the plain one's derivatives against finite differences."""

import numpy as np
import pytest
import torch
from numba import njit
from scenes import FIELDS, mixed_loss, random_grid

from dreamfusion.kernels import grid_kernels as kernels
from dreamfusion.scene.field import PLAIN
from dreamfusion.scene.grid import FUSED
from dreamfusion.scene.rays import Rays, camera_rays
from dreamfusion.view.cameras import orbit_cameras

SHADINGS = ("albedo", "lambertian", "textureless")


def lights_for(rays: Rays) -> torch.Tensor:
    drawn = torch.randn(len(rays.origins), 3, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.normalize(drawn, dim=-1)


def pair(**settings):
    plain, fused = random_grid(fast=False, **settings), random_grid(fast=True, **settings)
    rays = camera_rays(orbit_cameras([20], 30), 2)
    assert [next(w for w in field.ways() if w.suits(field, rays, "albedo")) for field in (plain, fused)] == [
        PLAIN,
        FUSED,
    ]
    return plain, fused


def rendered_with_gradients(field, rays, shading, samples=None):
    rendering = field.render_rays(rays, shading, lights_for(rays), 0.3, torch.Generator().manual_seed(1), samples)
    field.zero_grad()
    mixed_loss(rendering).backward()
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in field.named_parameters()}
    return {name: getattr(rendering, name).detach() for name in FIELDS}, gradients


def assert_equal_to_rounding(a, b):
    for name in a:
        scale = b[name].abs().max().item()
        torch.testing.assert_close(
            a[name], b[name], atol=5e-6 * max(scale, 1e-3), rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("shading", SHADINGS)
@pytest.mark.parametrize("occupancy", [False, True])
def test_fused_equals_plain(shading, occupancy):
    plain, fused = pair()
    rays = camera_rays(orbit_cameras([20, 130], 30), 16)
    if occupancy:
        for field in (plain, fused):
            field.occupancy.after_step(field.density, 16)
        assert torch.equal(plain.occupancy.cells, fused.occupancy.cells) and not plain.occupancy.cells.all()
    a, da = rendered_with_gradients(fused, rays, shading)
    b, db = rendered_with_gradients(plain, rays, shading)
    assert b["opacity"].max() > 0.9 and b["opacity"].min() < 0.1
    assert_equal_to_rounding(a, b)
    assert_equal_to_rounding(da, db)


@pytest.mark.parametrize(
    "settings", [{"levels": (5,), "features": 1, "hidden": 5}, {"levels": (4, 7, 9, 12), "features": 4}]
)
def test_fused_equals_plain_for_other_shapes(settings):
    plain, fused = pair(**settings)
    rays = camera_rays(orbit_cameras([-70], -20, radius=0.8), 9)  # from inside the unit sphere, an odd number of rays
    a, da = rendered_with_gradients(fused, rays, "lambertian", samples=21)
    b, db = rendered_with_gradients(plain, rays, "lambertian", samples=21)
    assert_equal_to_rounding(a, b)
    assert_equal_to_rounding(da, db)


def test_the_kernels_own_functions_against_float64():
    @njit
    def all_of(x, exp, soft, slope):
        for i in range(len(x)):
            exp[i] = kernels.exponential(x[i])
            soft[i], slope[i] = kernels.softplus_and_slope(x[i])

    for limit, rtol in ((10, 1e-6), (30, 2e-6)):  # rounding of the exponent's fraction grows with |x|
        x = np.linspace(-limit, limit, 10001).astype(np.float32)
        found = [np.empty_like(x) for _ in range(3)]
        all_of(x, *found)
        exact = x.astype(np.float64)
        expected = np.exp(exact), np.logaddexp(0, exact), 1 / (1 + np.exp(-exact))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol)
    edges = np.array([np.nan, -1e9, 1e9], np.float32)
    found = [np.empty_like(edges) for _ in range(3)]
    all_of(edges, *found)
    assert np.isnan(found[0][0]) and np.isnan(found[1][0])
    assert found[0][1] < 1e-37 and np.isfinite(found[0][2]) and found[1][2] == np.float32(1e9)


def test_fused_density_equals_plain():
    plain, fused = pair()
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1
    with torch.no_grad():
        expected = plain.density(points)
        torch.testing.assert_close(fused.density(points), expected)
    assert (expected[points.norm(dim=-1) > 1] == 0).all() and expected.max() > 10


def test_fused_repeats_exactly_and_leaves_no_traces():
    field = random_grid(fast=True)
    rays = camera_rays(orbit_cameras([20], 30), 16)
    _, first = rendered_with_gradients(field, rays, "lambertian")
    rendered_with_gradients(field, camera_rays(orbit_cameras([200], 0), 16), "albedo")
    _, again = rendered_with_gradients(field, rays, "lambertian")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_two_threads_equal_one():
    threads = torch.get_num_threads()
    try:
        answers = []
        for count in (1, 2):
            torch.set_num_threads(count)
            field = random_grid(fast=True)
            answers.append(rendered_with_gradients(field, camera_rays(orbit_cameras([20], 30), 16), "lambertian"))
            assert field.kernels().threads == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(answers[0][0][name], answers[1][0][name]) for name in FIELDS)
    assert_equal_to_rounding(answers[0][1], answers[1][1])


@pytest.mark.parametrize("shading", SHADINGS)
def test_plain_gradients_against_finite_differences(shading):
    field = random_grid(fast=False, density=20.0, levels=(4, 6), samples=12, hidden=4).double()
    rays = camera_rays(orbit_cameras([35], 20).to(dtype=torch.float64), 5)

    def loss():
        return mixed_loss(field.render_rays(rays, shading, lights_for(rays).double(), 0.3))

    loss().backward()
    generator = torch.Generator().manual_seed(3)
    checked = [field.table, field.hidden_weight, field.hidden_bias, field.out_weight, field.out_bias]
    for parameter in checked[: 1 if shading == "textureless" else None]:
        for _ in range(3):  # derivatives along random directions
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            values = []
            with torch.no_grad():
                for h in (1e-6, -1e-6):
                    parameter += h * direction
                    values.append(loss())
                    parameter -= h * direction
            slope = (values[0] - values[1]) / 2e-6
            torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=2e-5, atol=1e-6)


def test_no_gradients_are_kept_when_none_are_asked_for():
    rays = camera_rays(orbit_cameras([20], 30), 8)
    for field in pair():
        with torch.no_grad():
            rendering = field.render_rays(rays, "lambertian", lights_for(rays), 0.3)
        assert not any(getattr(rendering, name).requires_grad for name in FIELDS)
        assert rendering.normal.abs().max() > 0.1
