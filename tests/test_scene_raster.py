"""The differentiable rasteriser: compiled against plain, gradients against finite differences, pictures against areas."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh
from torch import Tensor

from dreamfusion.geometry.topology import face_neighbours
from dreamfusion.kernels import raster_fused
from dreamfusion.kernels.raster_fused import FUSED
from dreamfusion.scene import rasteriser as raster
from dreamfusion.scene.mesh_camera import clip_positions
from dreamfusion.scene.rasteriser import PLAIN, Rasteriser
from dreamfusion.view.cameras import orbit_cameras

BOTH = pytest.mark.parametrize("made", [PLAIN, FUSED], ids=["plain", "fused"])


def ball(subdivisions: int = 2, bumps: float = 0.2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A bumpy ball beside a small ball that hides a part of it."""
    parts = []
    for radius, at in ((0.6, (0, 0, 0)), (0.25, (0.5, 0.3, 0.4))):
        body = trimesh.creation.icosphere(subdivisions, radius)
        body.apply_translation(at)
        parts.append(body)
    body = trimesh.util.concatenate(parts)
    vertices = torch.tensor(body.vertices, dtype=torch.float64)
    noise = torch.randn(len(vertices), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (vertices * (1 + bumps * 0.2 * noise)).to(dtype), torch.tensor(body.faces)


def looks(vertices: Tensor, count: int = 2) -> Tensor:
    return clip_positions(
        vertices, orbit_cameras([20.0 + 137 * k for k in range(count)], 25.0).to(dtype=vertices.dtype)
    )


def draw(made: Rasteriser, vertices: Tensor, faces: Tensor, values: Tensor, size: int) -> Tensor:
    """Values and coverage with soft silhouettes."""
    clip = looks(vertices)
    face, weights = made.rasterise(clip, faces, size)
    picture = made.interpolate(torch.cat([values, torch.ones_like(values[:, :1])], 1), faces, face, weights)
    return made.antialias(picture, face, clip, faces, face_neighbours(faces))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("subdivisions", "size"), [(1, 40), (3, 24)])
def test_compiled_and_plain_agree_with_gradients(subdivisions: int, size: int, dtype: torch.dtype) -> None:
    vertices, faces = ball(subdivisions, dtype=dtype)
    values = torch.rand(len(vertices), 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    found, seen = [], []
    for made in (PLAIN, FUSED):
        v, c = vertices.clone().requires_grad_(), values.clone().requires_grad_()
        seen.append(made.rasterise(looks(v), faces, size)[0])
        picture = draw(made, v, faces, c, size)
        upstream = torch.randn(picture.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        found.append((picture.detach(), *torch.autograd.grad(picture, (v, c), upstream)))
    assert torch.equal(*seen)
    exact = dtype == torch.float64
    for plain, fused in zip(*found, strict=True):
        scale = plain.abs().max().item()
        torch.testing.assert_close(fused, plain, rtol=0, atol=scale * (1e-10 if exact else 2e-4))


@BOTH
def test_gradients_are_finite_differences(made: Rasteriser) -> None:
    """Of everything together, in the direction of a random move of all vertices and values."""
    vertices, faces = ball(2)
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(len(vertices), 3, generator=generator, dtype=torch.float64)
    upstream = torch.randn(2, 32, 32, 4, generator=generator, dtype=torch.float64)

    def loss(v: Tensor, c: Tensor) -> Tensor:
        return (draw(made, v, faces, c, 32) * upstream).sum()

    v, c = vertices.clone().requires_grad_(), values.clone().requires_grad_()
    gradients = torch.autograd.grad(loss(v, c), (v, c))
    for _ in range(4):
        move = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (v, c)]
        step = 1e-7
        ahead, behind = (loss(vertices + k * step * move[0], values + k * step * move[1]) for k in (1, -1))
        expected = (ahead - behind).item() / (2 * step)
        told = sum((g * m).sum().item() for g, m in zip(gradients, move, strict=True))
        assert told == pytest.approx(expected, rel=1e-5, abs=1e-5)


@BOTH
def test_a_rectangle_covers_its_area_and_moves_with_its_edges(made: Rasteriser) -> None:
    """Coverage against the closed form of an upright rectangle, with edges between pixel centres; its derivative too."""
    low, high = torch.tensor([-0.53, -0.31], dtype=torch.float64), torch.tensor([0.37, 0.62], dtype=torch.float64)
    edge = high[0].clone().requires_grad_()
    x = torch.stack([low[0], edge, edge, low[0]])
    y = torch.stack([low[1], low[1], high[1], high[1]])
    clip = torch.stack([x * 2, y * 2, torch.full_like(x, 2)], -1)[None]
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    size = 32
    face, weights = made.rasterise(clip, faces, size)
    coverage = made.antialias((face >= 0)[..., None].double(), face, clip, faces, face_neighbours(faces))
    area = coverage.sum() * (2 / size) ** 2
    expected = (edge - low[0]) * (high[1] - low[1])
    # An edge's pixels are right; at the four corners, where two edges meet, a part of a pixel is not.
    assert area.item() == pytest.approx(expected.item(), abs=4 * (2 / size) ** 2 / 2)
    (told,) = torch.autograd.grad(area, edge)
    assert told.item() == pytest.approx((high[1] - low[1]).item(), rel=0.06)
    assert weights.sum(-1)[face >= 0].allclose(torch.ones((), dtype=torch.float64))


@BOTH
def test_a_ball_of_small_faces_has_the_area_of_a_disc(made: Rasteriser) -> None:
    """Silhouettes are found although a pixel holds several faces."""
    body = trimesh.creation.icosphere(4, 0.6)
    vertices, faces = torch.tensor(body.vertices), torch.tensor(body.faces)
    cameras = orbit_cameras([30.0], 10.0, radius=2.5)
    clip = clip_positions(vertices, cameras.to(dtype=torch.float64))
    size = 24
    face, _ = made.rasterise(clip, faces, size)
    hard = (face >= 0)[..., None].double()
    soft = made.antialias(hard, face, clip, faces, face_neighbours(faces))
    across = math.tan(math.asin(0.6 / 2.5)) / math.tan(math.radians(47 / 2))
    expected = math.pi * across**2 * (size / 2) ** 2
    assert abs(soft.sum().item() - expected) < 0.02 * expected
    grey = ((soft > 0.02) & (soft < 0.98)).sum().item()
    assert grey > 0.6 * 2 * math.pi * across * size / 2  # most of the rim is soft


@BOTH
def test_a_face_inside_the_silhouette_of_a_farther_one_is_soft_too(made: Rasteriser) -> None:
    vertices, faces = ball(2)
    small = (torch.arange(len(vertices)) >= len(vertices) // 2).double()[:, None]
    picture = draw(made, vertices, faces, small, 64)[0]
    inside = picture[..., 1] > 0.999
    mixed = inside & (picture[..., 0] > 0.05) & (picture[..., 0] < 0.95)
    assert mixed.sum() > 8


@BOTH
def test_interpolation_is_linear_in_space(made: Rasteriser) -> None:
    """Positions, interpolated, lie on the pixels' rays, also in steep perspective."""
    vertices = torch.tensor([[-0.9, -0.4, 0.9], [0.9, -0.5, -0.9], [0.1, 0.8, 0.2]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    cameras = orbit_cameras([0.0], 0.0, radius=1.6, fov_deg=80).to(dtype=torch.float64)
    face, weights = made.rasterise(clip_positions(vertices, cameras), faces, 32)
    where = made.interpolate(vertices, faces, face, weights)
    origin, direction = cameras.rays(32)
    away = torch.linalg.cross(where - origin, direction)[face >= 0]
    assert (face >= 0).sum() > 100 and away.abs().max() < 1e-12


@BOTH
def test_what_is_behind_the_camera_or_empty_is_not_drawn(made: Rasteriser) -> None:
    vertices, faces = ball(1)
    clip = looks(vertices)
    gone = clip.clone()
    gone[..., 2] *= -1
    for some in (faces, faces[:0]):
        face, weights = made.rasterise(gone, some, 16)
        picture = made.interpolate(vertices, some, face, weights) if len(some) else weights
        assert (face == -1).all() and (weights == 0).all() and (picture == 0).all()
    soft = made.antialias(torch.zeros(2, 16, 16, 1).double(), face, gone, faces, face_neighbours(faces))
    assert (soft == 0).all()


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = ball(2, dtype=torch.float32)
    values = torch.rand(len(vertices), 3, generator=torch.Generator().manual_seed(1))
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(raster_fused.torch, "get_num_threads", lambda threads=threads: threads)
        v = vertices.clone().requires_grad_()
        picture = draw(FUSED, v, faces, values, 24)
        found.append((picture.detach(), torch.autograd.grad(picture.square().sum(), v)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_two_have_the_same_constants() -> None:
    assert (raster.STEPS, raster.BEHIND) == (raster_fused.STEPS, raster_fused.BEHIND)
