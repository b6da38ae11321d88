"""Unwrapping and baking, against colours known in closed form."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import binary_dilation
from torch import Tensor

from dreamfusion.export.texture import bake, cover, sample_texture, unwrap, vertex_colours
from dreamfusion.geometry.mesh import Mesh, extract_surface, with_normals
from dreamfusion.geometry.raster import interpolate, rasterise
from dreamfusion.geometry.surface import shell_albedo

SIZE = 512


def position_colour(points: Tensor, normals: Tensor | None = None) -> Tensor:
    return 0.5 + 0.5 * points


@pytest.fixture(scope="module")
def ball() -> Mesh:
    mesh = extract_surface(lambda p: 40 * torch.sigmoid((0.8 - p.norm(dim=-1)) * 60), 40, 20.0)
    return unwrap(with_normals(mesh), SIZE)


@pytest.fixture(scope="module")
def texture(ball: Mesh) -> np.ndarray:
    return bake(ball, position_colour, SIZE)


def surface_points(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random points of the surface and their texture coordinates."""
    rng = np.random.default_rng(0)
    face = rng.integers(len(mesh.faces), size=count)
    weights = rng.dirichlet([1, 1, 1], size=count)
    mix = lambda values: np.einsum("nk,nkc->nc", weights, values[mesh.faces[face]])  # noqa: E731
    return mix(mesh.vertices), mix(mesh.uv)


def test_unwrapping_keeps_the_surface(ball: Mesh):
    body = ball.geometry()
    assert body.is_watertight and body.euler_number == 2
    assert ball.uv.min() >= 0 and ball.uv.max() <= 1
    assert len(ball.vertices) > len(body.vertices)  # a sphere cannot be unwrapped without seams
    assert np.allclose(np.linalg.norm(ball.normals, axis=1), 1)


def test_charts_do_not_overlap(ball: Mesh):
    """The triangles' areas in the texture add up to the area they cover together."""
    (ax, ay), (bx, by), (cx, cy) = (ball.uv[ball.faces[:, i]].T * SIZE for i in range(3))
    areas = abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2
    corners = (ball.uv[ball.faces] * [1, -1] * SIZE + [0, SIZE]).astype(np.float32)
    face, _ = rasterise(corners, np.ones((len(corners), 3), np.float32), SIZE, SIZE, 0.0)
    assert areas.sum() == pytest.approx((face >= 0).sum(), rel=0.01)
    assert areas.sum() > 0.4 * SIZE**2


def test_the_texture_shows_the_colour_of_every_point(ball: Mesh, texture: np.ndarray):
    points, uv = surface_points(ball, 20_000)
    error = np.abs(sample_texture(texture, uv) - position_colour(torch.from_numpy(points)).numpy())
    assert error.mean() < 0.003
    assert error.max() < 0.02  # on seams too: no dark and no foreign texel is ever read


def test_a_shifted_or_turned_texture_would_be_noticed(ball: Mesh, texture: np.ndarray):
    points, uv = surface_points(ball, 5_000)
    truth = position_colour(torch.from_numpy(points)).numpy()
    for wrong in (texture[::-1], texture[:, ::-1], np.roll(texture, 3, 0), np.roll(texture, 3, 1)):
        assert np.abs(sample_texture(wrong, uv) - truth).mean() > 0.005


def test_every_texel_that_filters_can_read_is_baked(ball: Mesh):
    covered = cover(ball, SIZE)[0] >= 0
    _, uv = surface_points(ball, 20_000)
    x, y = uv[:, 0] * SIZE - 0.5, (1 - uv[:, 1]) * SIZE - 0.5
    for dx in (0, 1):
        for dy in (0, 1):
            c = np.clip(np.floor(x).astype(int) + dx, 0, SIZE - 1)
            r = np.clip(np.floor(y).astype(int) + dy, 0, SIZE - 1)
            assert covered[r, c].all()


def test_no_texel_is_left_black(ball: Mesh):
    white = bake(ball, lambda p, n: torch.ones_like(p), 256)
    assert (white == 255).all()


def test_padding_takes_the_nearest_colour(ball: Mesh, texture: np.ndarray):
    covered = cover(ball, SIZE)[0] >= 0
    border = binary_dilation(covered) & ~covered
    rows, columns = np.nonzero(border)
    near = np.stack([np.roll(texture, shift, axis) for shift in (-1, 1) for axis in (0, 1)])[:, rows, columns]
    same = (near == texture[rows, columns]).all(-1).any(0)
    assert border.sum() > 500 and same.mean() > 0.99


def test_normals_are_handed_to_the_colour(ball: Mesh):
    texture = bake(ball, lambda p, n: 0.5 + 0.5 * n, SIZE)
    points, uv = surface_points(ball, 5_000)
    exact = 0.5 + 0.5 * points / np.linalg.norm(points, axis=1, keepdims=True)
    assert np.abs(sample_texture(texture, uv) - exact).mean() < 0.01


def test_shell_albedo_is_volume_rendering_along_the_normal():
    """Against the closed form for a constant density below the surface whose colour is linear in depth."""
    sigma, inside = 60.0, 0.2
    density = lambda p: torch.where(p[:, 1] < 0, sigma, 0.0)  # noqa: E731
    albedo = lambda p: (-p[:, 1:2] / inside).clamp(0, 1).expand(-1, 3)  # noqa: E731
    point, normal = torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]])
    found = shell_albedo(density, albedo, point, normal, outside=0.1, inside=inside, samples=3000)
    k = sigma * inside  # mean of x under the density exp(-k x) on [0, 1]
    expected = 1 / k - math.exp(-k) / (1 - math.exp(-k))
    assert torch.allclose(found, torch.full((1, 3), expected), atol=1e-3)


def test_the_shell_sees_the_surface_and_not_what_lies_under_it():
    density = lambda p: torch.where(p[:, 1] < 0, 300.0, 0.0)  # noqa: E731
    albedo = lambda p: torch.where(p[:, 1:2] > -0.025, torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))  # noqa: E731
    point, normal = torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]])
    assert shell_albedo(density, albedo, point, normal)[0, 0] > 0.98
    empty = shell_albedo(lambda p: torch.zeros(len(p)), albedo, point, normal)
    assert empty[0, 0] > 0.9  # nothing there: the colour at the surface itself


def test_vertex_colours_are_those_of_the_points(ball: Mesh, texture: np.ndarray):
    welded, colours = vertex_colours(ball, texture)
    assert trimesh.Trimesh(welded.vertices, welded.faces, process=False).is_watertight
    exact = position_colour(torch.from_numpy(welded.vertices)).numpy()
    assert np.abs(colours / 255 - exact).mean() < 0.004


def test_rasteriser_against_a_plain_one():
    """Coverage, visibility and perspective-correct weights against a loop over pixels in float64."""
    rng = np.random.default_rng(1)
    corners = rng.uniform(-4, 24, (12, 3, 2)).astype(np.float32)
    nearness = rng.uniform(0.2, 2, (12, 3)).astype(np.float32)
    nearness[3, 0] = -1  # behind the camera
    face, weights = rasterise(corners, nearness, 20, 24, 0.0)
    for r in range(20):
        for c in range(24):
            best, seen, expected = -1.0, -1, np.zeros(3)
            for f in range(12):
                matrix = np.vstack([corners[f].T.astype(np.float64), np.ones(3)])
                b = np.linalg.solve(matrix, [c + 0.5, r + 0.5, 1])
                if nearness[f].min() > 0 and b.min() >= 0 and b @ nearness[f] > best:
                    best, seen = b @ nearness[f], f
                    expected = b * nearness[f] / best
            assert face[r, c] == seen
            assert np.allclose(weights[r, c], expected, atol=1e-4)
    assert len(set(face.ravel())) > 6


def test_slack_reaches_outside_but_never_over_a_face():
    corners = np.array([[[2, 2], [8, 2], [2, 8]], [[8, 2], [8, 8], [2, 8]]], np.float32)
    nearness = np.ones((2, 3), np.float32)
    tight, _ = rasterise(corners, nearness, 12, 12, 0.0)
    loose, weights = rasterise(corners, nearness, 12, 12, 1.5)
    assert (tight[2:8, 2:8] >= 0).all() and (tight >= 0).sum() == 36
    assert (loose[tight >= 0] == tight[tight >= 0]).all()
    assert (loose[1:9, 1:9] >= 0).all() and (loose[0] == -1).sum() == 6 and (loose[10:] == -1).all()
    square = np.array([[2.0, 2], [8, 2], [2, 8], [8, 8]])
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    for r, c, nearest in ((4, 1, (2, 4.5)), (1, 1, (2, 2)), (8, 5, (5.5, 8))):
        found = interpolate(square, faces, loose[r, c : c + 1], weights[r, c : c + 1])
        assert np.allclose(found, nearest, atol=1e-5)
