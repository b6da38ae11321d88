"""The fast MLP against the plain one, both against finite differences, and where it puts its samples."""

import math

import numpy as np
import pytest
import torch
from scenes import FIELDS, mixed_loss

from dreamfusion.kernels import mlp_pass
from dreamfusion.scene import ray_samples as sampling
from dreamfusion.scene import volume
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.mlp import integrated_encoding
from dreamfusion.scene.rays import Rays, camera_rays
from dreamfusion.scene.scene_settings import MlpSettings
from dreamfusion.view.cameras import orbit_cameras

SHADINGS = ("albedo", "lambertian", "textureless")
SMALL = {
    "kind": "mlp",
    "hidden": 32,
    "depth": 3,
    "frequencies": 5,
    "samples": 32,
    "density_bias": 5.0,
    "density_bias_width": 0.25,
}
PROPOSED = SMALL | {"importance": 12, "mean_importance": 5}


def lively(seed: int = 0, **settings):
    """A field whose density and colours vary: not the mere blob that every run starts from."""
    field = make_scene(MlpSettings(**SMALL | settings), torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in field.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return field


def lights_for(rays: Rays) -> torch.Tensor:
    drawn = torch.randn(len(rays.origins), 3, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.normalize(drawn, dim=-1).to(rays.origins)


def rendered_with_gradients(field, rays, samples, shading):
    """Everything that the same samples give, and the gradient of a mixture of it by all parameters."""
    rendering = volume.render(field, rays, samples, shading, lights_for(rays), 0.3)
    field.zero_grad()
    mixed_loss(rendering).backward()
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in field.named_parameters()}
    return {name: getattr(rendering, name).detach() for name in FIELDS}, gradients


def assert_equal_to_rounding(a, b, share=2e-5):
    for name in b:
        scale = max(b[name].abs().max().item(), 1e-3)
        torch.testing.assert_close(a[name], b[name], atol=share * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("shading", SHADINGS)
@pytest.mark.parametrize("settings", [{}, {"hidden": 128, "depth": 5, "frequencies": 8}, {"depth": 1}])
def test_fast_equals_plain(shading, settings):
    plain, fast = lively(fast=False, **settings), lively(**settings)
    rays = camera_rays(orbit_cameras([20, 130], 30), 12)
    near, far = sampling.unit_sphere(rays.origins, rays.directions)
    where = sampling.regular_samples(near, far, 24, torch.full_like(near, 0.3))
    a, da = rendered_with_gradients(fast, rays, where, shading)
    b, db = rendered_with_gradients(plain, rays, where, shading)
    assert b["opacity"].max() > 0.9 and b["normal"].abs().max() > 0.3
    assert_equal_to_rounding(a, b)
    assert_equal_to_rounding(da, db, 1e-4)


def test_a_field_of_latents_equals_plain():
    plain, fast = lively(fast=False, channels=5), lively(channels=5)
    rays = camera_rays(orbit_cameras([20], 30), 8)
    with torch.no_grad():
        a, b = (f.render_rays(rays, "latent", lights_for(rays), 0.3).colour for f in (fast, plain))
    assert a.shape == (64, 5)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def network_by_autograd(field, mean, variance):
    """What ``mlp_pass.network`` gives, by differentiating the layers as they are written."""
    mean = mean.clone().requires_grad_()
    x = field.first(integrated_encoding(mean, variance, field.settings.frequencies))
    for norm, layer in zip(field.norms, field.layers, strict=True):
        x = x + layer(torch.nn.functional.silu(norm(x)))
    out = field.out(torch.nn.functional.silu(x))
    return out, torch.autograd.grad(out[:, 0].sum(), mean, create_graph=True)[0]


@pytest.mark.parametrize("upstream", [(1, 1), (1, 0), (0, 1)])
def test_double_precision_equals_autograd_over_several_chunks(upstream):
    field = lively().double()
    generator = torch.Generator().manual_seed(2)
    mean = torch.rand(2 * mlp_pass.CHUNK + 77, 3, generator=generator, dtype=torch.float64) * 2 - 1
    variance = torch.rand(mean.shape, generator=generator, dtype=torch.float64) * 1e-3
    parameters = mlp_pass.parameters_of(field)
    found = []
    for out, slope in (
        mlp_pass.network(mlp_pass.Memory(), field, field.settings.frequencies, mean, variance),
        network_by_autograd(field, mean, variance),
    ):
        pulls = torch.Generator().manual_seed(3)
        parts = [
            (x * torch.randn(x.shape, generator=pulls, dtype=torch.float64)).sum()
            for x, used in zip((out, slope), upstream, strict=True)
            if used
        ]
        found.append((out, slope, *torch.autograd.grad(sum(parts), parameters, allow_unused=True)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-9, atol=1e-9)


def test_gradients_against_finite_differences():
    field = lively(hidden=8, frequencies=3).double()
    generator = torch.Generator().manual_seed(2)
    mean = torch.rand(40, 3, generator=generator, dtype=torch.float64) * 2 - 1
    variance = torch.rand(mean.shape, generator=generator, dtype=torch.float64) * 1e-2
    pulls = (
        torch.randn(40, 4, generator=generator, dtype=torch.float64),
        torch.randn(40, 3, generator=generator, dtype=torch.float64),
    )

    def both(at=mean):
        return mlp_pass.network(mlp_pass.Memory(), field, field.settings.frequencies, at, variance)

    def loss():
        return sum((x * pull).sum() for x, pull in zip(both(), pulls, strict=True))

    with torch.no_grad():  # the gradient by the point
        for d in range(3):
            h = 1e-6 * torch.eye(3, dtype=torch.float64)[d]
            slope = (both(mean + h)[0][:, 0] - both(mean - h)[0][:, 0]) / 2e-6
            torch.testing.assert_close(both()[1][:, d], slope, rtol=1e-5, atol=1e-7)
    loss().backward()
    for name, parameter in field.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        with torch.no_grad():
            for h in (1e-6, -1e-6):
                parameter += h * direction
                values.append(loss())
                parameter -= h * direction
        expected = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close(
            (parameter.grad * direction).sum(), expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_density_equals_plain():
    plain, fast = lively(fast=False), lively()
    points = torch.rand(1500, 3, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1
    with torch.no_grad():
        expected = plain.density(points)
        torch.testing.assert_close(fast.density(points), expected, rtol=1e-4, atol=1e-5)
    assert (expected[points.norm(dim=-1) > 1] == 0).all() and expected.max() > 10


def test_the_kernels_place_the_same_samples():
    plain, fast = lively(fast=False, **PROPOSED), lively(**PROPOSED)
    fast.occupancy.after_step(fast.density, 0)
    plain.load_state_dict(fast.state_dict())
    rays = camera_rays(orbit_cameras([20, 130], 30, 2.8), 16)
    near, far = sampling.unit_sphere(rays.origins, rays.directions)
    offset = sampling.ray_offsets(near, torch.Generator().manual_seed(0))
    a, b = (field.samples_along(rays, near, far, 32, offset) for field in (fast, plain))
    assert torch.equal(a.inside, b.inside) and a.inside.any(1).float().mean() < 0.95
    torch.testing.assert_close(a.width, b.width, atol=2e-5, rtol=0)
    torch.testing.assert_close(a.distance[a.inside], b.distance[a.inside], atol=2e-5, rtol=0)


def test_placed_samples_leave_gaps_out_and_cover_the_rest():
    near = torch.tensor([1.0, 1.2])
    length = torch.zeros(2, 20)
    length[0, 4:6], length[0, 12] = 0.1, 0.1
    density = torch.zeros(2, 20)
    density[0, 5], density[0, 12] = 60.0, 5.0
    share, opacity = sampling.shares(density, length)
    torch.testing.assert_close(share.sum(-1), torch.tensor([1.0, 0.0]))
    assert opacity[0] > 0.99 and opacity[1] == 0
    counts = sampling.sample_counts(opacity, length, 10, 0)
    assert counts.tolist() == [10, 0]
    for offset in (0.0, 0.5, 0.9):
        where = sampling.placed_samples(near, length, share, counts, torch.full((2,), offset))
        torch.testing.assert_close(where.width.sum(-1), torch.tensor([0.3, 0.0]))
        at = where.distance[0, where.inside[0]] - 1
        assert (((at >= 0.4) & (at <= 0.6)) | ((at >= 1.2) & (at <= 1.3))).all()
        assert (at < 0.6).sum() >= 7 and (at.diff() > 0).all()


def test_sample_counts_are_bounded():
    opacity, length = torch.tensor([1.0, 0.25, 1e-4, 0.0]), torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    assert sampling.sample_counts(opacity, length, 16, 0).tolist() == [16, 8, 2, 0]
    assert sampling.sample_counts(opacity, length, 16, 13).tolist() == [8, 4, 1, 0]
    assert sampling.sample_counts(opacity, length, 16, 1).tolist() == [1, 1, 1, 0]


def test_few_placed_samples_see_what_many_regular_ones_see():
    rays = camera_rays(orbit_cameras([20], 10), 24)
    seen = []
    for samples, importance in [(512, 0), (96, 16)]:
        field = lively(samples=96, importance=importance, density_scale=100)
        field.occupancy.after_step(field.density, 0)
        near, far = sampling.unit_sphere(rays.origins, rays.directions)
        asked = field.samples_along(rays, near, far, samples, torch.full_like(near, 0.5)).inside.sum()
        with torch.no_grad():
            seen.append((field.render_rays(rays, "albedo", rays.directions, 0.5, samples=samples), asked))
    (many, all_points), (few, points) = seen
    assert points < all_points / 30
    for name in ("opacity", "depth", "colour"):
        assert (getattr(few, name) - getattr(many, name)).abs().mean() < 0.01, name


def training(field, steps, first=0):
    """Some steps towards a random picture; the parameters that they leave."""
    rays = camera_rays(orbit_cameras([20], 30), 16)
    for step in range(first, first + steps):
        field.zero_grad()
        rendering = field.render_rays(rays, "lambertian", lights_for(rays), 0.3, torch.Generator().manual_seed(step))
        mixed_loss(rendering, step).backward()
        for p in field.parameters():  # plain descent: no optimiser's state to carry over
            p.data -= 1e-4 * p.grad
        field.occupancy.after_step(field.density, step + 1)
    return {name: v.clone() for name, v in field.state_dict().items()}


def test_repeats_exactly_also_from_its_state():
    whole = training(lively(**PROPOSED), 6)
    again = training(lively(**PROPOSED), 6)
    half = lively(**PROPOSED)
    training(half, 3)
    taken_up = lively(seed=9, **PROPOSED)
    taken_up.load_state_dict(half.state_dict())
    resumed = training(taken_up, 3, first=3)
    for name, value in whole.items():
        assert torch.equal(value, again[name]) and torch.equal(value, resumed[name]), name


def test_one_thread_equals_two():
    threads, answers = torch.get_num_threads(), []
    rays = camera_rays(orbit_cameras([20], 30), 24)
    near, far = sampling.unit_sphere(rays.origins, rays.directions)
    where = sampling.regular_samples(near, far, 24, torch.full_like(near, 0.5))
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(rendered_with_gradients(lively(), rays, where, "lambertian"))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert_equal_to_rounding(answers[0][0], answers[1][0])
    assert_equal_to_rounding(answers[0][1], answers[1][1], 1e-4)


def test_nothing_to_see_is_no_error():
    field = lively(**PROPOSED)
    field.occupancy.after_step(field.density, 0)
    rays = Rays(torch.tensor([[0, 3.0, 3.0]]), torch.tensor([[0, 0, -1.0]]), 0.01)
    for shading in SHADINGS:
        rendering = field.render_rays(rays, shading, rays.directions, 0.5)
        mixed_loss(rendering).backward()
        assert rendering.opacity.item() == 0 and math.isfinite(rendering.normal.sum().item())
    assert np.isfinite(field.first.weight.grad.numpy()).all()


def test_a_second_walk_back_is_refused():
    field = lively()
    out, _ = mlp_pass.network(
        mlp_pass.Memory(), field, field.settings.frequencies, torch.zeros(5, 3), torch.full((5, 3), 1e-4)
    )
    out.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        out.sum().backward()
