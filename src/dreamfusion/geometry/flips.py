"""Better triangles on the same surface: edges of slivers are flipped (Lawson 1977) where that leaves the surface as it was."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import acos, cos, pi, radians, sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from ..kernels.caching import njit
from .topology import face_neighbours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BAD_DEG = 20.0
"""Edges of triangles whose smallest angle is above this stay."""
CREASE_DEG = 30.0
"""Faces whose normals differ by more than this meet in a crease, which stays."""
NEEDLE = pi / 90
"""A triangle with a smaller angle (2 degrees) has a normal that says little."""
ROUNDS = 100
"""Most passes over all triangles; far fewer are needed."""


def smallest_angles(vertices: Floats, faces: Ints) -> Floats:
    """The smallest angle (F,) of each triangle in degrees, by the law of cosines: it is opposite to the shortest side."""
    corners = vertices[faces]
    short, middle, long = np.maximum(np.sort(np.linalg.norm(corners - np.roll(corners, -1, 1), axis=2), 1).T, 1e-12)
    return np.degrees(np.arccos(np.clip((middle**2 + long**2 - short**2) / (2 * middle * long), -1, 1)))


def without_slivers(vertices: Floats, faces: Ints, tolerance: float, bad_deg: float = BAD_DEG) -> Ints:
    """The faces (F, 3) with edges of slivers flipped: as many triangles of the same vertices (V, 3), as closed as before.

    The edge between two triangles, one of which has an angle below ``bad_deg``, gives way to the other diagonal of their
    quadrilateral if that makes the smallest of their angles larger, if the two diagonals are at most ``tolerance`` apart, and
    unless the triangles meet in a crease.
    """
    if not len(faces):
        return faces
    made = np.array(faces, np.int64, order="C")
    around = face_neighbours(torch.from_numpy(made)).numpy().copy()
    points = np.ascontiguousarray(vertices, np.float64)
    _flip(points, made, around, radians(bad_deg), cos(radians(CREASE_DEG)), tolerance, ROUNDS)
    return made


@njit(inline="always")
def _edge_of(faces, f, u, v):
    """Which edge of a face runs from u to v."""
    for k in range(3):
        if faces[f, (k + 1) % 3] == u and faces[f, (k + 2) % 3] == v:
            return k
    return -1


@njit(inline="always")
def _normal(p, q, r, out):
    """Unit normal of a triangle into out (3,); returns twice the area."""
    a0, a1, a2 = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    b0, b1, b2 = r[0] - p[0], r[1] - p[1], r[2] - p[2]
    x, y, z = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    length = sqrt(x * x + y * y + z * z)
    scale = 1 / max(length, 1e-30)
    out[0], out[1], out[2] = x * scale, y * scale, z * scale
    return length


@njit(inline="always")
def _square(p, q):
    return (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2


@njit()
def _smallest(p, q, r):
    """The smallest angle of a triangle in radians."""
    a, b, c = _square(q, r), _square(r, p), _square(p, q)
    short = min(a, b, c)
    long = max(a, b, c)
    middle = a + b + c - short - long
    if middle <= 0:
        return 0.0
    return acos(min(max((middle + long - short) / (2 * sqrt(middle * long)), -1.0), 1.0))


@njit()
def _joined(faces, around, f, a, d):
    """Whether an edge joins the vertex a of the face f to d. True too where a's fan is open, or cannot be gone round."""
    g = f
    for _ in range(1000):
        k = 0
        while faces[g, k] != a:
            k += 1
        if faces[g, (k + 1) % 3] == d or faces[g, (k + 2) % 3] == d:
            return True
        g = around[g, (k + 1) % 3]  # over the edge that ends in a
        if g < 0:
            return True
        if g == f:
            return False
    return True


@njit(inline="always")
def _dot(p, q):
    return p[0] * q[0] + p[1] * q[1] + p[2] * q[2]


@njit()
def _diagonals_apart(a, d, b, c):
    """The distance of the lines a-d and b-c."""
    x, y, z = d[0] - a[0], d[1] - a[1], d[2] - a[2]
    u, v, w = c[0] - b[0], c[1] - b[1], c[2] - b[2]
    n0, n1, n2 = y * w - z * v, z * u - x * w, x * v - y * u
    length = sqrt(n0 * n0 + n1 * n1 + n2 * n2)
    if length < 1e-30:
        return np.inf
    return abs((b[0] - a[0]) * n0 + (b[1] - a[1]) * n1 + (b[2] - a[2]) * n2) / length


@njit()
def _flip(vertices, faces, around, bad, crease, tolerance, rounds):
    """Flip edges in place, of faces (F, 3) and their neighbours (F, 3); edge i is opposite to corner i."""
    one, two, new_one, new_two = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for _ in range(rounds):
        count = 0
        for f in range(len(faces)):
            if _smallest(vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]) >= bad:
                continue
            best, which = 0.0, -1
            for i in range(3):
                g = around[f, i]
                if g < 0:
                    continue
                ia, ib, ic = faces[f, i], faces[f, (i + 1) % 3], faces[f, (i + 2) % 3]
                j = _edge_of(faces, g, ic, ib)
                if j < 0 or faces[g, j] == ia:
                    continue
                a, b, c, d = vertices[ia], vertices[ib], vertices[ic], vertices[faces[g, j]]
                before = min(_smallest(a, b, c), _smallest(d, c, b))
                after = min(_smallest(a, b, d), _smallest(a, d, c))
                if after <= before + 1e-9 or after - before <= best:
                    continue
                flat_one, flat_two = _normal(a, b, c, one), _normal(d, c, b, two)
                _normal(a, b, d, new_one)
                _normal(a, d, c, new_two)
                # The normal of a needle is noise; the larger triangle says which way the surface looks.
                large = one if flat_one > flat_two else two
                if before > NEEDLE and _dot(one, two) < crease:
                    continue
                if min(_dot(new_one, large), _dot(new_two, large), _dot(new_one, new_two)) < crease:
                    continue
                if _diagonals_apart(a, d, b, c) > tolerance or _joined(faces, around, f, ia, faces[g, j]):
                    continue
                best, which = after - before, i
            if which < 0:
                continue
            i = which
            g = around[f, i]
            a, b, c = faces[f, i], faces[f, (i + 1) % 3], faces[f, (i + 2) % 3]
            j = _edge_of(faces, g, c, b)
            d = faces[g, j]
            beyond_b, beyond_c = around[f, (i + 1) % 3], around[f, (i + 2) % 3]  # over c-a, over a-b
            far_c, far_b = around[g, (j + 1) % 3], around[g, (j + 2) % 3]  # over b-d, over d-c
            faces[f, 0], faces[f, 1], faces[f, 2] = a, b, d
            around[f, 0], around[f, 1], around[f, 2] = far_c, g, beyond_c
            faces[g, 0], faces[g, 1], faces[g, 2] = a, d, c
            around[g, 0], around[g, 1], around[g, 2] = far_b, beyond_b, f
            if far_c >= 0:
                around[far_c, _edge_of(faces, far_c, d, b)] = f
            if beyond_b >= 0:
                around[beyond_b, _edge_of(faces, beyond_b, a, c)] = g
            count += 1
        if count == 0:
            break
