"""Tangents of a textured mesh, as MikkTSpace makes them, so that any renderer reads a normal map as it was baked.

After Mikkelsen (2008, "Simulation of Wrinkled Surfaces Revisited", chapter 3). The bitangent is w * cross(normal, tangent), and points to
where v grows: up in the picture. Both are interpolated as they are, and only the result has unit length.
"""

from __future__ import annotations

import numpy as np

from ..geometry.mesh import Floats, Mesh


def tangents(mesh: Mesh) -> Floats:
    """Tangents (V, 4) of a mesh with normals and uv: xyz of unit length, orthogonal to the normal, to where u grows; w = -1 on
    charts that are mirrored, else 1.

    Around a vertex the directions of its faces, made flat there, count by the angle of their corner. A vertex without any
    gets a direction of its own.
    """
    assert mesh.normals is not None and mesh.uv is not None
    p, uv, f = mesh.vertices[mesh.faces], mesh.uv[mesh.faces], mesh.faces
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    (u1, v1), (u2, v2) = (uv[:, 1] - uv[:, 0]).T, (uv[:, 2] - uv[:, 0]).T
    turn = u1 * v2 - u2 * v1  # twice the area in the texture, below 0 where mirrored
    sign = np.where(turn < 0, -1.0, 1.0)
    along = (e1 * v2[:, None] - e2 * v1[:, None]) * sign[:, None]  # dP/du, but for its length
    count = len(mesh.vertices)
    around = np.bincount(f.ravel(), np.repeat(turn, 3), count)
    w = np.where(around < 0, -1.0, 1.0)
    total = np.zeros((count, 3))
    for k in range(3):
        v = f[:, k]
        normal = mesh.normals[v]
        one, two = (flat(p[:, j] - p[:, k], normal) for j in ((k + 1) % 3, (k + 2) % 3))
        angle = np.arccos(np.clip((one * two).sum(1), -1, 1))
        counts = (turn != 0) & (sign == w[v])
        weighted = flat(along, normal) * np.where(counts, angle, 0.0)[:, None]
        for axis in range(3):
            total[:, axis] += np.bincount(v, weighted[:, axis], count)
    found = flat(total, mesh.normals)
    least = np.eye(3)[np.abs(mesh.normals).argmin(1)]
    found = np.where(np.linalg.norm(found, axis=1, keepdims=True) > 0.5, found, flat(least, mesh.normals))
    return np.concatenate([found, w[:, None]], 1)


def flat(directions: Floats, normals: Floats) -> Floats:
    """Directions (N, 3) without their part along the normals (N, 3), of unit length; 0 where nothing is left."""
    left = directions - (directions * normals).sum(1, keepdims=True) * normals
    length = np.linalg.norm(left, axis=1, keepdims=True)
    return np.where(
        length > 1e-12 * np.linalg.norm(directions, axis=1, keepdims=True), left / np.maximum(length, 1e-30), 0
    )


def bases(normals: Floats, tangents: Floats) -> Floats:
    """Matrices (N, 3, 3), columns tangent, bitangent, normal, of interpolated normals (N, 3) and tangents (N, 4): they take a
    normal map's directions to the object's axes, but for the length."""
    bitangents = np.cross(normals, tangents[:, :3]) * tangents[:, 3:]
    return np.stack([tangents[:, :3], bitangents, normals], 2)
