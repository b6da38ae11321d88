"""Ambient occlusion: the share of an evenly bright sky that a place of a surface sees.

A(p) = 1/pi * integral over the hemisphere of visibility(p, d) (n . d) dd (Landis 2002, "Production-Ready Global Illumination").
Visibility comes from depth maps: pictures of the mesh from directions all around, each of which sees two sides.
"""

from __future__ import annotations

import numpy as np

from ..geometry.mesh import Floats, Floats32, Ints, Mesh
from ..kernels.caching import njit
from ..reports import report

DIRECTIONS = 64
"""Depth maps; each serves a direction and its opposite."""
SIZE = 256
"""Pixels of a depth map across the mesh's sphere."""
OFF = 1.5
"""How far above the surface a place is seen from, in pixels, so that it does not hide itself."""


def spread(count: int) -> Floats:
    """Unit directions (count, 3), evenly spread over the upper half of the sphere (Fibonacci; Gonzalez 2010)."""
    k = np.arange(count) + 0.5
    height, around = 1 - k / count, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(around), height, flat * np.sin(around)], 1)


def axes(direction: Floats) -> Floats:
    """An orthonormal basis (3, 3), rows: two across, and the direction (3,)."""
    other = np.eye(3)[np.abs(direction).argmin()]
    right = np.cross(other, direction)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(direction, right), direction])


@njit(nogil=True)
def _depths(points: Floats32, faces: Ints, size: int, near: Floats32, far: Floats32) -> None:
    """Largest and smallest depth (size, size) of triangles at the pixels' centres; points (V, 3): x and y in pixels, depth."""
    for row in range(size):
        for column in range(size):
            near[row, column], far[row, column] = -np.inf, np.inf
    for f in range(len(faces)):
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        top, bottom = min(a[1], b[1], c[1]), max(a[1], b[1], c[1])
        left, right = min(a[0], b[0], c[0]), max(a[0], b[0], c[0])
        r0, r1 = max(int(np.ceil(top - 0.5)), 0), min(int(np.floor(bottom - 0.5)), size - 1)
        c0, c1 = max(int(np.ceil(left - 0.5)), 0), min(int(np.floor(right - 0.5)), size - 1)
        if r0 > r1 or c0 > c1:
            continue
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(area) < 1e-9:
            continue
        for row in range(r0, r1 + 1):
            for column in range(c0, c1 + 1):
                x, y = column + 0.5 - a[0], row + 0.5 - a[1]
                u = (x * (c[1] - a[1]) - y * (c[0] - a[0])) / area
                v = (y * (b[0] - a[0]) - x * (b[1] - a[1])) / area
                if u < -1e-6 or v < -1e-6 or u + v > 1 + 1e-6:
                    continue
                depth = a[2] + u * (b[2] - a[2]) + v * (c[2] - a[2])
                near[row, column] = max(near[row, column], depth)
                far[row, column] = min(far[row, column], depth)


@njit(nogil=True)
def _gather(places: Floats32, cosine: Floats32, near: Floats32, far: Floats32, seen: Floats32, whole: Floats32) -> None:
    """Add the cosine of each place (N, 3; in pixels) to ``whole``, and to ``seen`` the share of it that four pixels show."""
    size = len(near)
    for n in range(len(places)):
        weight = abs(cosine[n])
        whole[n] += weight
        x, y, depth = places[n, 0] - np.float32(0.5), places[n, 1] - np.float32(0.5), places[n, 2]
        column, row = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - column, y - row
        for i in range(4):
            r, c = row + i // 2, column + i % 2
            share = (fy if i // 2 else 1 - fy) * (fx if i % 2 else 1 - fx)
            hidden = False
            if 0 <= r < size and 0 <= c < size:
                hidden = near[r, c] > depth if cosine[n] > 0 else far[r, c] < depth
            if not hidden:
                seen[n] += weight * share


def occlusion(mesh: Mesh, points: Floats, normals: Floats, directions: int = DIRECTIONS, size: int = SIZE) -> Floats32:
    """What places (N, 3) of a mesh's surface with unit normals (N, 3) see of the sky: (N,) in [0, 1], 1 in the open.

    About 0.02 off, as the directions and the pixels are few.
    """
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-9)
    pixel = 2 * radius / (size - 4)
    whole, seen = np.full(len(points), 1e-9, np.float32), np.full(len(points), 1e-9, np.float32)
    near, far = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    middle, faces = (low + high) / 2, np.ascontiguousarray(mesh.faces)
    body = ((mesh.vertices - middle) / pixel).astype(np.float32)
    places = ((points - middle) / pixel + OFF * normals).astype(np.float32)
    facing, shift = normals.astype(np.float32), np.array([size / 2, size / 2, 0], np.float32)
    for k, direction in enumerate(spread(directions)):
        report("occlusion", k, directions)
        turned = axes(direction).astype(np.float32).T
        _depths(body @ turned + shift, faces, size, near, far)
        _gather(places @ turned + shift, facing @ turned[:, 2], near, far, seen, whole)
    return np.asarray(np.minimum(seen / whole, 1), np.float32)


def plain_occlusion(
    mesh: Mesh, points: Floats, normals: Floats, directions: int = DIRECTIONS, off: float = 1e-4
) -> Floats:
    """What ``occlusion`` finds, by a linear system for each place, direction and triangle, from ``off`` above the surface."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    start = points + off * normals
    whole, seen = np.zeros(len(points)), np.zeros(len(points))
    for d in np.concatenate([spread(directions), -spread(directions)]):
        cosine = normals @ d
        across = np.abs(np.cross(b - a, c - a) @ d) > 1e-12
        matrix = np.stack([(b - a)[across], (c - a)[across], np.broadcast_to(-d, a[across].shape)], 2)
        inverse = np.linalg.inv(matrix)
        u, v, t = np.einsum("fij,nfj->inf", inverse, start[:, None] - a[None, across])
        hidden = ((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)).any(1)
        whole += np.maximum(cosine, 0)
        seen += np.maximum(cosine, 0) * ~hidden
    return np.asarray(seen / whole)
