"""Signed distance to a mesh, from samples of its surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from .mesh import Floats, Mesh

SAMPLES = 150_000
NEAREST = 4


def surface_points(mesh: Mesh, count: int, seed: int = 0) -> tuple[NDArray[np.int64], Floats]:
    """Places of a mesh's surface, uniform by area: faces (count,) and the weights (count, 3) of their corners."""
    rng = np.random.default_rng(seed)
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = rng.choice(len(area), count, p=area / area.sum())
    u, v = rng.random((2, count))
    root = np.sqrt(u)
    return face, np.stack([1 - root, root * (1 - v), root * v], 1)


def surface_samples(mesh: Mesh, count: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Points (count, 3), uniform by area, and their unit normals (count, 3), interpolated between those of the vertices."""
    assert mesh.normals is not None
    face, weights = surface_points(mesh, count, seed)
    normals = np.einsum("nk,nkc->nc", weights, mesh.normals[mesh.faces[face]])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return np.einsum("nk,nkc->nc", weights, mesh.vertices[mesh.faces[face]]), normals


def signed_distance(mesh: Mesh, points: Floats, within: float = np.inf) -> NDArray[np.float64]:
    """Distance (N,) of points (N, 3) to a mesh with normals, negative inside, to about the spacing of ``SAMPLES``; NaN where it is
    more than ``within``, which is much faster.

    The sign is that of the way from the nearest samples along their normals, which vary smoothly over edges (Baerentzen &
    Aanaes 2005). So a mesh with holes has an inside, too.
    """
    where, normals = surface_samples(mesh, SAMPLES)
    tree = cKDTree(where)
    near = np.isfinite(tree.query(points, distance_upper_bound=within)[0])
    distance, index = tree.query(points[near], k=NEAREST)
    side = np.einsum("nkc,nkc->n", points[near][:, None] - where[index], normals[index])
    found = np.full(len(points), np.nan)
    found[near] = np.where(side < 0, -1.0, 1.0) * distance[:, 0]
    return found


def filled(distance: NDArray[np.float64], spacing: float) -> NDArray[np.float64]:
    """A lattice (R, R, R) of signed distances, in which NaN stands farther than two spacings from the surface. There it becomes
    about the distance: that of the nearest point that has one, with its sign, since no surface lies between, and the way to it."""
    far = np.isnan(distance)
    if far.all():
        return np.full_like(distance, 2.0)
    way, nearest = distance_transform_edt(far, return_indices=True)
    known = distance[tuple(nearest)]
    return np.asarray(known + np.copysign(way * spacing, known))
