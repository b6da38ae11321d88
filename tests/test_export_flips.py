"""Edge flips, against Delaunay triangulations and closed solids."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import Delaunay

from dreamfusion.geometry.flips import smallest_angles, without_slivers
from dreamfusion.geometry.mesh import Mesh, decimate, is_watertight, signed_volumes


def flat(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.zeros((len(points), 1))], 1)


def oriented(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    (ax, ay), (bx, by) = points[faces[:, 1]].T - points[faces[:, 0]].T, points[faces[:, 2]].T - points[faces[:, 0]].T
    faces = faces.astype(np.int64)
    faces[ax * by - ay * bx < 0] = faces[ax * by - ay * bx < 0][:, ::-1]
    return faces


def as_set(faces: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(sorted(face)) for face in faces.tolist()}


def test_in_a_plane_flips_end_in_the_delaunay_triangulation():
    """Max-min angle is Delaunay's criterion (Lawson 1977); stretching keeps the hull, and spoils the triangles."""
    points = np.random.default_rng(0).random((300, 2))
    faces = oriented(points, Delaunay(points).simplices)
    stretched = points * [3.0, 1.0]
    wanted = as_set(Delaunay(stretched).simplices)
    assert len(as_set(faces) - wanted) > 100
    made = without_slivers(flat(stretched), faces, 1e-9, bad_deg=180)
    assert as_set(made) == wanted
    assert np.array_equal(oriented(stretched, made.copy()), made)  # none is turned over


def test_angles_are_those_of_known_triangles():
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 0, 2 * np.sqrt(3)], [1, 0, np.sqrt(3) * 3], [1, 0, np.sqrt(3)]])
    faces = np.array([[0, 1, 2], [0, 1, 4]])
    assert smallest_angles(corners, faces) == pytest.approx([30, 60])


def test_creases_and_volume_stay():
    """A sheared box: the triangles on its sides get better, and its twelve edges are not touched."""
    body = trimesh.creation.box((1, 1, 1)).subdivide().subdivide().subdivide()
    vertices = np.asarray(body.vertices) @ [[1, 0, 0], [2, 1, 0], [0, 0, 1]]
    faces = np.asarray(body.faces, np.int64)
    made = without_slivers(vertices, faces, 1e-3)
    before, after = (signed_volumes(Mesh(vertices, f)).sum() for f in (faces, made))
    assert after == pytest.approx(before, rel=1e-12)
    assert is_watertight(Mesh(vertices, made))
    assert len(as_set(made) - as_set(faces)) > 50
    assert smallest_angles(vertices, made).mean() > smallest_angles(vertices, faces).mean() + 2


def test_curved_surfaces_stay_within_the_tolerance():
    """On a ball: without leeway nothing is flipped, with some the new edges are no deeper inside than that."""
    body = trimesh.creation.icosphere(subdivisions=4)
    rng = np.random.default_rng(1)
    vertices = np.asarray(body.vertices) + rng.normal(size=body.vertices.shape) * 0.022
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    faces = np.asarray(body.faces, np.int64)
    assert np.array_equal(without_slivers(vertices, faces, 0.0), faces)
    made = without_slivers(vertices, faces, 2e-3)
    assert is_watertight(Mesh(vertices, made)) and len(made) == len(faces)
    slivers = [(smallest_angles(vertices, f) < 10).mean() for f in (faces, made)]
    assert slivers[0] > 0.02 and slivers[1] < 0.6 * slivers[0]
    middles = [np.linalg.norm((vertices[f] + vertices[np.roll(f, -1, 1)]) / 2, axis=2).min() for f in (faces, made)]
    assert middles[1] > middles[0] - 2e-3


def test_a_decimated_mesh_has_few_slivers_and_stays_closed():
    body = trimesh.creation.torus(0.6, 0.2, major_sections=160, minor_sections=80)
    vertices = np.asarray(body.vertices)
    mesh = Mesh(vertices * (1 + 0.05 * np.sin(9 * vertices[:, :1])), np.asarray(body.faces, np.int64))
    made = decimate(mesh, 3000)
    geometry = made.geometry()
    assert is_watertight(made) and geometry.euler_number == 0
    assert (smallest_angles(made.vertices, made.faces) < 10).mean() <= 0.01
    assert signed_volumes(made).sum() == pytest.approx(signed_volumes(mesh).sum(), rel=1e-2)
