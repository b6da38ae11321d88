"""Where lines meet a fine mesh: a grid of cells that know their triangles, walked cell by cell (Amanatides & Woo 1987)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.mesh import Floats, Ints, Mesh
from ..kernels.caching import njit

CELL = 1.5
"""Side of a cell, in mean lengths of the mesh's edges."""
MOST = 256
"""Most cells along a side."""


@njit(nogil=True)
def _cells_of(corners: Floats, low: Floats, cell: float, sides: Ints) -> tuple[Ints, Ints]:
    """Which triangles (F, 3, 3) have their box in each cell: cell k's are items[first[k] : first[k + 1]]."""
    count = np.zeros(sides[0] * sides[1] * sides[2] + 1, np.int64)
    items = np.empty(0, np.int64)
    for filling in range(2):
        for f in range(len(corners)):
            box = np.empty((3, 2), np.int64)
            for a in range(3):
                least = min(corners[f, 0, a], corners[f, 1, a], corners[f, 2, a])
                most = max(corners[f, 0, a], corners[f, 1, a], corners[f, 2, a])
                box[a, 0] = min(max(int(np.floor((least - low[a]) / cell - 1e-6)), 0), sides[a] - 1)
                box[a, 1] = min(max(int(np.floor((most - low[a]) / cell + 1e-6)), 0), sides[a] - 1)
            for x in range(box[0, 0], box[0, 1] + 1):
                for y in range(box[1, 0], box[1, 1] + 1):
                    for z in range(box[2, 0], box[2, 1] + 1):
                        k = (x * sides[1] + y) * sides[2] + z
                        if filling:
                            count[k] -= 1
                            items[count[k]] = f
                        else:
                            count[k] += 1
        if not filling:
            total = 0
            for k in range(len(count)):
                total += count[k]
                count[k] = total  # the end of each cell; filling counts back to its first
            items = np.empty(total, np.int64)
    return count, items


@njit(nogil=True)
def _meet(p: Floats, d: Floats, corners: Floats, f: int) -> tuple[float, float, float]:
    """Distance and the weights of corners 1 and 2 where a line meets a triangle that faces along it (Moeller & Trumbore
    1997); the distance is inf where it does not."""
    ax, ay, az = corners[f, 0, 0], corners[f, 0, 1], corners[f, 0, 2]
    bx, by, bz = corners[f, 1, 0] - ax, corners[f, 1, 1] - ay, corners[f, 1, 2] - az
    cx, cy, cz = corners[f, 2, 0] - ax, corners[f, 2, 1] - ay, corners[f, 2, 2] - az
    qx, qy, qz = d[1] * cz - d[2] * cy, d[2] * cx - d[0] * cz, d[0] * cy - d[1] * cx
    facing = bx * qx + by * qy + bz * qz  # minus direction times normal
    if facing > -1e-20:
        return np.inf, 0.0, 0.0
    sx, sy, sz = p[0] - ax, p[1] - ay, p[2] - az
    u = (sx * qx + sy * qy + sz * qz) / facing
    rx, ry, rz = sy * bz - sz * by, sz * bx - sx * bz, sx * by - sy * bx
    v = (d[0] * rx + d[1] * ry + d[2] * rz) / facing
    if u < -1e-9 or v < -1e-9 or u + v > 1 + 1e-9:
        return np.inf, 0.0, 0.0
    return (cx * rx + cy * ry + cz * rz) / facing, u, v


@njit(nogil=True)
def _nearest(
    points: Floats, directions: Floats, reach: float, corners: Floats, first: Ints, items: Ints, low: Floats,
    cell: float, sides: Ints,
) -> tuple[Ints, Floats]:  # fmt: skip
    """See ``DenseRays.nearest``."""
    face = np.full(len(points), -1, np.int64)
    weights = np.zeros((len(points), 3))
    at, step = np.empty(3, np.int64), np.empty(3, np.int64)
    edge, pace = np.empty(3), np.empty(3)
    for n in range(len(points)):
        p, d = points[n], directions[n]
        best = reach
        for way in (1.0, -1.0):
            begin, end = 0.0, best  # the part of the way that lies within the grid
            for a in range(3):
                speed = way * d[a]
                if abs(speed) < 1e-12:
                    if p[a] < low[a] or p[a] > low[a] + cell * sides[a]:
                        end = -1.0
                    continue
                one, two = (low[a] - p[a]) / speed, (low[a] + cell * sides[a] - p[a]) / speed
                begin, end = max(begin, min(one, two)), min(end, max(one, two))
            if begin > end:
                continue
            for a in range(3):
                speed = way * d[a]
                at[a] = min(max(int(np.floor((p[a] + begin * speed - low[a]) / cell)), 0), sides[a] - 1)
                step[a] = 1 if speed > 0 else -1
                pace[a] = cell / abs(speed) if abs(speed) > 1e-12 else np.inf
                border = low[a] + cell * (at[a] + (1 if speed > 0 else 0))
                edge[a] = (border - p[a]) / speed if abs(speed) > 1e-12 else np.inf
            entered = begin
            while entered <= best:
                k = (at[0] * sides[1] + at[1]) * sides[2] + at[2]
                for i in range(first[k], first[k + 1]):
                    t, u, v = _meet(p, d, corners, items[i])
                    if abs(t) < best and t * way >= 0:
                        best, face[n] = abs(t), items[i]
                        weights[n, 0], weights[n, 1], weights[n, 2] = 1 - u - v, u, v
                a = 0 if edge[0] <= edge[1] and edge[0] <= edge[2] else 1 if edge[1] <= edge[2] else 2
                entered = edge[a]
                edge[a] += pace[a]
                at[a] += step[a]
                if at[a] < 0 or at[a] >= sides[a]:
                    break
    return face, weights


@dataclass(frozen=True)
class DenseRays:
    """A mesh that lines can be met with. Build it with ``of``."""

    corners: Floats
    first: Ints
    items: Ints
    low: Floats
    cell: float
    sides: Ints

    @classmethod
    def of(cls, mesh: Mesh) -> DenseRays:
        """Of a mesh: its corners (F, 3, 3), sorted into the cells of a grid."""
        corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
        edge = float(np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).mean())
        low, high = mesh.vertices.min(0), mesh.vertices.max(0)
        cell = max(CELL * edge, float((high - low).max()) / MOST, 1e-9)
        sides = np.floor((high - low) / cell).astype(np.int64) + 1
        first, items = _cells_of(corners, low, cell, sides)
        return cls(corners, first, items, low, cell, sides)

    def nearest(self, points: Floats, directions: Floats, reach: float) -> tuple[Ints, Floats]:
        """Where lines through points (N, 3) along unit directions (N, 3), both ways, first meet a triangle that faces along the
        direction, nearer than ``reach``: face (N,), -1 where there is none, and the weights (N, 3) of its corners."""
        return _nearest(
            np.ascontiguousarray(points, np.float64), np.ascontiguousarray(directions, np.float64), reach,
            self.corners, self.first, self.items, self.low, self.cell, self.sides,
        )  # fmt: skip


def plain_nearest(mesh: Mesh, points: Floats, directions: Floats, reach: float) -> tuple[Ints, Floats]:
    """What ``DenseRays.nearest`` finds, by a linear system for each line and triangle."""
    face, weights = np.full(len(points), -1), np.zeros((len(points), 3))
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    facing = np.cross(b - a, c - a)
    for n, (p, d) in enumerate(zip(points, directions, strict=True)):
        some = np.flatnonzero(facing @ d > 1e-20)
        columns = np.stack([b[some] - a[some], c[some] - a[some], np.broadcast_to(-d, (len(some), 3))], 2)
        u, v, t = np.linalg.solve(columns, (p - a[some])[..., None])[..., 0].T
        distance = np.where((u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9), np.abs(t), np.inf)
        if len(some) and distance.min() < reach:
            k = int(distance.argmin())
            face[n], weights[n] = some[k], (1 - u[k] - v[k], u[k], v[k])
    return face, weights


def interpolated(values: NDArray[np.float64], faces: Ints, face: Ints, weights: Floats) -> Floats:
    """Values (V, C) of the vertices at places of the surface: face (N,) and weights (N, 3); (N, C)."""
    return np.asarray(np.einsum("nk,nkc->nc", weights, values[faces[face]]))
