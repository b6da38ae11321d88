import math

import pytest
import torch

from dreamfusion.scene import ray_samples as sampling
from dreamfusion.scene import volume
from dreamfusion.scene.mlp import frustum_gaussian, integrated_encoding
from dreamfusion.scene.occupancy import Occupancy
from dreamfusion.scene.shading import CLAY, shade


def test_unit_sphere_entry_and_exit():
    origins = torch.tensor([[0, 0, 3.0], [0, 0.6, 3], [0, 1.2, 3], [0, 0, 0.5], [0, 0, -3]])
    directions = torch.tensor([[0, 0, -1.0]]).expand(5, 3)
    near, far = sampling.unit_sphere(origins, directions)
    torch.testing.assert_close(near[:2], torch.tensor([2.0, 2.2]))
    torch.testing.assert_close(far[:2], torch.tensor([4.0, 3.8]))
    assert near[2] == far[2]  # missed
    assert near[3] == 0 and far[3] == pytest.approx(1.5)  # starts inside
    assert near[4] == far[4] == 0  # behind the camera


def test_regular_samples_cover_the_chord():
    near, far = torch.tensor([1.0, 1.5]), torch.tensor([3.0, 2.0])
    middle = sampling.regular_samples(near, far, 40, torch.tensor([0.5, 0.5]))
    assert middle.inside.sum(-1).tolist() == [40, 10]
    torch.testing.assert_close(middle.distance[0, :2], torch.tensor([1.025, 1.075]))
    offset = sampling.ray_offsets(near, torch.Generator().manual_seed(0))
    jittered = sampling.regular_samples(near, far, 40, offset).distance
    torch.testing.assert_close(jittered, middle.distance + ((offset - 0.5) * 0.05)[:, None])


def test_inverse_cdf_against_the_histogram():
    edges = torch.tensor([[0.0, 1.0, 2.0, 4.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64)
    u = torch.tensor([[0.125, 0.249, 0.625, 0.999]], dtype=torch.float64)
    drawn = sampling.inverse_cdf(edges, weights, u)
    expected = torch.tensor([[0.5, 0.996, 3.0, 2 + 2 * (0.999 - 0.25) / 0.75]], dtype=torch.float64)
    torch.testing.assert_close(drawn, expected, atol=1e-6, rtol=0)
    even = sampling.inverse_cdf(edges, torch.zeros_like(weights), torch.tensor([[0.5]], dtype=torch.float64))
    torch.testing.assert_close(even, torch.tensor([[1.5]], dtype=torch.float64))


def test_ray_weights_of_a_uniform_fog():
    # through a slab of thickness s the opacity is 1 - exp(-sigma s), and the first sample sees everything
    optical = torch.full((1, 50), 0.07, dtype=torch.float64)
    weights = volume.ray_weights(optical)
    assert weights.sum().item() == pytest.approx(1 - math.exp(-3.5))
    assert weights[0, 0].item() == pytest.approx(1 - math.exp(-0.07))
    dense = volume.ray_weights(torch.full((1, 50), 1.0, dtype=torch.float64))
    assert (dense[0, 10:] == 0).all() and dense.sum() > 1 - volume.OPAQUE


def test_shadings():
    normal = torch.tensor([[0, 0, 1.0], [0, 0, 1.0]])
    light = torch.tensor([[0, 0.6, 0.8], [0, 0.6, -0.8]])
    albedo = torch.tensor([[1, 0.5, 0.0]]).expand(2, 3)
    assert shade(albedo, normal, light, 0.5, "albedo") is albedo
    lit = shade(albedo, normal, light, 0.5, "lambertian")
    torch.testing.assert_close(lit, torch.tensor([[0.9, 0.45, 0], [0.5, 0.25, 0]]))
    clay = shade(None, normal, light, 0.5, "textureless")
    torch.testing.assert_close(clay, CLAY * torch.tensor([[0.9] * 3, [0.5] * 3]))


def test_frustum_moments_against_sampling():
    # points spread evenly in the volume of a cone's piece: density of the distance t is proportional to t^2
    t0, t1, radius = 1.0, 1.6, 0.05
    generator = torch.Generator().manual_seed(0)
    u, v, angle = torch.rand(3, 2_000_000, generator=generator, dtype=torch.float64)
    t = (t0**3 + u * (t1**3 - t0**3)) ** (1 / 3)
    x = t * radius * v.sqrt() * torch.cos(2 * math.pi * angle)
    middle, width = torch.tensor([1.3], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    mean, along, across = frustum_gaussian(middle, width, radius)
    assert mean.item() == pytest.approx(t.mean().item(), rel=1e-3)
    assert along.item() == pytest.approx(t.var().item(), rel=1e-2)
    assert across.item() == pytest.approx(x.var().item(), rel=1e-2)


def test_integrated_encoding_is_the_mean_encoding():
    generator = torch.Generator().manual_seed(0)
    mean, variance = torch.tensor([[0.3, -0.7, 0.1]]), torch.tensor([[0.02, 0.3, 0.0]])
    draws = mean + variance.sqrt() * torch.randn(400_000, 3, generator=generator)
    expected = torch.cat([torch.sin(2**k * draws) for k in range(3)] + [torch.cos(2**k * draws) for k in range(3)], -1)
    torch.testing.assert_close(integrated_encoding(mean, variance, 3)[0], expected.mean(0), atol=5e-3, rtol=0)


def ball(points):
    return 100.0 * (points.norm(dim=-1) < 0.4).float()


def test_occupancy_never_loses_a_ball():
    occupancy = Occupancy(16, 96)
    points = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert occupancy.lookup(points).all()
    for step in (0, 16, 32):
        occupancy.after_step(ball, step)
        found = occupancy.lookup(points)
        assert found[points.norm(dim=-1) < 0.4].all()
        assert not found[points.norm(dim=-1) > 0.4 + 3 * math.sqrt(3) * 2 / 16].any()


def test_occupancy_forgets_and_resumes():
    first = Occupancy(16, 96)
    first.after_step(ball, 1)
    second = Occupancy(16, 96)
    second.load_state_dict(first.state_dict())
    for step in range(2, 40):
        first.after_step(ball, step)
        second.after_step(ball, step)
    assert torch.equal(first.cells, second.cells) and torch.equal(first.values, second.values)
    for step in range(40, 40 + 16 * 45):
        first.after_step(lambda p: torch.zeros(len(p)), step)
    assert not first.cells.any()


def test_an_occupancy_of_another_side_is_read_as_it_is():
    """Runs of an older version had other sides; a fresh one takes theirs on, and knows whether it was refreshed."""
    old = Occupancy(6, 32)
    old.refresh(lambda points: 50.0 * (points.norm(dim=-1) < 0.5), 3)
    new = Occupancy(9, 32)
    assert not new.started
    new.load_state_dict(old.state_dict())
    assert (new.side, new.vague, new.started) == (6, old.vague, True)
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(new.lookup(points), old.lookup(points)) and torch.equal(
        new.remembered(points), old.remembered(points)
    )
