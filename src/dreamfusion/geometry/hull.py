"""The convex hull of a mesh, for collisions in game engines."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from .mesh import Mesh, with_normals

HULL_FACES = 255  # the most that physics engines take


def convex_hull(mesh: Mesh, most: int = HULL_FACES) -> Mesh:
    """The convex hull of a mesh with at most ``most`` triangles, with normals; its box where the mesh is flat.

    It is the hull of the points that are farthest in directions spread evenly over the sphere (a Fibonacci lattice). A hull of V
    points has 2 V - 4 triangles, so that many directions are enough.
    """
    count = (most + 4) // 2
    k = np.arange(count) + 0.5
    around, z = k * np.pi * (1 + np.sqrt(5)), 1 - 2 * k / count
    flat = np.sqrt(1 - z**2)
    directions = np.stack([flat * np.cos(around), flat * np.sin(around), z])
    directions = np.concatenate([np.eye(3), -np.eye(3), directions], 1)[:, :count]
    points = mesh.vertices[np.unique((mesh.vertices @ directions).argmax(0))]
    try:
        hull = ConvexHull(points)
    except QhullError:
        low, high = mesh.vertices.min(0) - 1e-3, mesh.vertices.max(0) + 1e-3
        points = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
        hull = ConvexHull(points)
    faces = hull.simplices.astype(np.int64)
    a, b, c = (points[faces[:, i]] for i in range(3))
    inwards = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    used, index = np.unique(faces, return_inverse=True)
    return with_normals(Mesh(points[used], index.reshape(-1, 3)))
