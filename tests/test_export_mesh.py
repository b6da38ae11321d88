"""Surfaces of densities whose shape is known in closed form."""

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.geometry.mesh import (
    Mesh,
    decimate,
    extract_surface,
    face_components,
    fill_cavities,
    reachable_level,
    remove_floaters,
    sample_grid,
    signed_volumes,
    smooth,
    winding_number,
    with_normals,
)


def ball(centre: tuple[float, float, float] = (0.0, 0.0, 0.0), radius: float = 0.6, peak: float = 40.0):
    """Density of a ball with a soft border: peak / 2 on the sphere itself."""
    return lambda p: peak * torch.sigmoid((radius - (p - torch.tensor(centre)).norm(dim=-1)) * 60)


def torus(p: Tensor) -> Tensor:
    ring = torch.stack([p[:, [0, 2]].norm(dim=-1) - 0.55, p[:, 1]], -1).norm(dim=-1)
    return 40 * torch.sigmoid((0.2 - ring) * 60)


def joined(*densities):
    return lambda p: torch.stack([d(p) for d in densities]).amax(0)


def sphere_mesh(radius: float, centre: tuple[float, float, float] = (0, 0, 0), inwards: bool = False) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    faces = np.asarray(body.faces)[:, ::-1] if inwards else np.asarray(body.faces)
    return Mesh(np.asarray(body.vertices) + centre, faces.astype(np.int64))


def together(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]),
    )


def test_the_surface_of_a_ball_is_a_closed_sphere_that_looks_outwards():
    mesh = extract_surface(ball(radius=0.6), 64, 20.0, blur=0)
    body = mesh.geometry()
    assert body.is_watertight and body.is_winding_consistent and body.euler_number == 2
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert abs(radii - 0.6).max() < 0.002
    assert body.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)


def test_an_off_centre_ball_lands_where_it_is():
    mesh = extract_surface(ball((0.3, -0.2, 0.1), 0.3), 48, 20.0)
    assert np.allclose(mesh.geometry().center_mass, (0.3, -0.2, 0.1), atol=0.004)


def test_a_torus_has_one_hole():
    body = extract_surface(torus, 64, 20.0).geometry()
    assert body.is_watertight and body.euler_number == 0 and body.volume > 0


def test_the_surface_is_closed_at_the_border_of_the_cube():
    mesh = extract_surface(lambda p: torch.full(p.shape[:1], 30.0), 32, 10.0)
    body = mesh.geometry()
    assert body.is_watertight and body.euler_number == 2
    side = 2 + 2 / 31  # half a grid cell beyond the border on either side
    assert np.allclose(body.bounds, [[-side / 2] * 3, [side / 2] * 3])
    assert body.volume == pytest.approx(side**3, rel=0.005)


def test_a_radius_cuts_the_object_to_a_sphere():
    """Whether or not the density itself ends there, the cut is smooth."""
    for density in (lambda p: torch.full(p.shape[:1], 30.0), lambda p: 30.0 * (p.norm(dim=-1) < 0.8)):
        mesh = extract_surface(density, 64, 10.0, radius=0.8)
        assert mesh.geometry().is_watertight
        assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.8).max() < 0.005


def test_the_grid_is_indexed_x_y_z_in_any_chunk():
    grid = sample_grid(lambda p: p @ torch.tensor([1.0, 10.0, 100.0]), 5, chunk=7)
    assert grid[4, 0, 2] == pytest.approx(1 - 10 + 0) and grid[1, 3, 4] == pytest.approx(-0.5 + 5 + 100)


def test_numbers_that_are_not_finite_count_as_empty():
    assert sample_grid(lambda p: torch.full(p.shape[:1], math.nan), 4).max() == 0


def test_a_speck_of_the_level_does_not_hide_a_fainter_object():
    """Early in a run a few points reach the level, and most of the object is at half of it."""

    def density(points):
        ball = 7.0 * (points.norm(dim=-1) < 0.5)
        return ball + 30.0 * ((points - torch.tensor([0.2, 0.0, 0.0])).norm(dim=-1) < 0.02)

    mesh = extract_surface(density, 64, 10.0)
    assert signed_volumes(mesh).sum() == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.1)


def test_a_faint_object_is_found_at_a_lower_level():
    assert reachable_level(8.0, 10.0) == 2.5
    assert reachable_level(11.0, 10.0) == 10.0
    mesh = extract_surface(ball(radius=0.6, peak=4.0), 48, 10.0, blur=0)  # found at 1.25 = 0.3125 of the peak
    radius = 0.6 + math.log(1 / 0.3125 - 1) / 60
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(radius, abs=0.003)


@pytest.mark.parametrize("value", [0.0, 0.01, math.nan])
def test_an_empty_scene_is_one_clear_line(value: float):
    with pytest.raises(UserError, match=r"^the scene is empty") as caught:
        extract_surface(lambda p: torch.full(p.shape[:1], value), 24, 10.0)
    assert "\n" not in str(caught.value)


def test_a_sharp_voxel_ball_comes_out_smooth():
    """Stair steps of a 48^3 field of zeros and hundreds: normals stay near the sphere's, far from the steps'."""
    axis = torch.linspace(-1, 1, 48)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    voxels = 100.0 * ((x**2 + y**2 + z**2).sqrt() < 0.6).float()

    def density(p: Tensor) -> Tensor:
        where = p.flip(-1)[None, None, None]
        return torch.nn.functional.grid_sample(voxels[None, None], where, align_corners=True).reshape(-1)

    def error(mesh: Mesh) -> float:
        cosine = (with_normals(mesh).normals * mesh.vertices).sum(1) / np.linalg.norm(mesh.vertices, axis=1)
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())

    rough = extract_surface(density, 80, 10.0, blur=0)
    finished = smooth(extract_surface(density, 80, 10.0))
    assert error(rough) > 13 and error(finished) < 8


def test_floaters_go_and_substantial_parts_stay():
    density = joined(ball((-0.3, 0, 0), 0.5), ball((0.7, 0, 0), 0.2), ball((0.5, 0.7, 0), 0.06))
    mesh = extract_surface(density, 64, 20.0, blur=0)
    assert face_components(mesh)[0] == 3
    kept = remove_floaters(mesh, 0.02)
    assert face_components(kept)[0] == 2
    assert kept.geometry().volume == pytest.approx(4 / 3 * math.pi * (0.5**3 + 0.2**3), rel=0.03)
    assert kept.vertices[:, 1].max() < 0.55  # the speck at y = 0.7 is gone, and so are its vertices


def test_cavities_and_what_floats_in_them_are_filled():
    hollow = together(sphere_mesh(0.8), sphere_mesh(0.6, inwards=True), sphere_mesh(0.3), sphere_mesh(0.1, (0, 1, 0)))
    filled = fill_cavities(hollow)
    assert face_components(filled)[0] == 2
    expected = signed_volumes(sphere_mesh(0.8)).sum() + signed_volumes(sphere_mesh(0.1)).sum()
    assert signed_volumes(filled).sum() == pytest.approx(expected)


def test_a_hollow_density_comes_out_solid():
    shell = lambda p: 40 * torch.sigmoid((0.12 - (p.norm(dim=-1) - 0.6).abs()) * 80)  # noqa: E731
    mesh = extract_surface(shell, 48, 20.0, blur=0)
    assert face_components(mesh)[0] == 2
    assert fill_cavities(mesh).geometry().volume == pytest.approx(4 / 3 * math.pi * 0.72**3, rel=0.02)


def test_the_winding_number_counts_surroundings():
    mesh = sphere_mesh(0.5, (0.2, 0, 0))
    assert winding_number(np.array([0.3, 0.1, 0.0]), mesh.vertices, mesh.faces) == pytest.approx(1)
    assert winding_number(np.array([0.9, 0.1, 0.0]), mesh.vertices, mesh.faces) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("density", [ball(radius=0.6), torus])
def test_decimation_keeps_the_shape_closed(density):
    mesh = extract_surface(density, 64, 20.0)
    small = decimate(mesh, 2000)
    body, before = small.geometry(), mesh.geometry()
    assert len(small.faces) <= 2000 < len(mesh.faces)
    assert body.is_watertight and body.is_winding_consistent and body.euler_number == before.euler_number
    assert body.volume == pytest.approx(before.volume, rel=0.01)


def test_smoothing_keeps_the_volume_and_the_input():
    mesh = extract_surface(torus, 48, 20.0)
    before = mesh.vertices.copy()
    after = smooth(mesh, 20)
    assert np.array_equal(mesh.vertices, before) and not np.array_equal(after.vertices, before)
    assert signed_volumes(after).sum() == pytest.approx(signed_volumes(mesh).sum(), rel=1e-3)


def test_normals_are_those_of_the_sphere():
    mesh = with_normals(extract_surface(ball(radius=0.6), 64, 20.0))
    exact = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1)
    assert (mesh.normals * exact).sum(1).min() > math.cos(math.radians(6))
