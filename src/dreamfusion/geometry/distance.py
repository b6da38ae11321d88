"""Signed distance to a mesh, from samples of its surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
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


def signed_distance(mesh: Mesh, points: Floats) -> NDArray[np.float64]:
    """Distance (N,) of points (N, 3) to a mesh with normals, negative inside, to about the spacing of ``SAMPLES``.

    The sign is that of the way from the nearest samples along their normals, which vary smoothly over edges (Baerentzen &
    Aanaes 2005). So a mesh with holes has an inside, too.
    """
    where, normals = surface_samples(mesh, SAMPLES)
    distance, index = cKDTree(where).query(points, k=NEAREST)
    side = np.einsum("nkc,nkc->n", points[:, None] - where[index], normals[index])
    return np.asarray(np.where(side < 0, -1.0, 1.0) * distance[:, 0])
