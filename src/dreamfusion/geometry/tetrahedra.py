"""A tetrahedral grid and the surface in it (Doi & Koide 1991, "marching tetrahedra"; Shen et al. 2021, DMTet)."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

EDGES = torch.tensor([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
"""The corners of a tetrahedron's six edges."""


def body_centred_points(cubes: int) -> Tensor:
    """The points (V, 3) of a body-centred cubic lattice over [-1, 1]^3, with ``cubes`` per side: the corners of the cubes, then their
    middles, x slowest."""
    axis = torch.linspace(-1, 1, cubes + 1)
    corners, middles = (torch.cartesian_prod(x, x, x) for x in (axis, axis[:-1] + 1 / cubes))
    return torch.cat([corners, middles])


def body_centred_grid(cubes: int) -> tuple[Tensor, Tensor]:
    """Points (V, 3) and tetrahedra (T, 4) of a body-centred cubic lattice over [-1, 1]^3, with ``cubes`` per side.

    The points are the corners of the cubes, then their middles. Each face between two cubes gives four tetrahedra, of the
    two middles and one of the face's edges; they are all alike and nearly regular (Labelle & Shewchuk 2007). det(b - a, c - a, d - a) > 0
    for each (a, b, c, d). The outer half of the outermost cubes is not covered.
    """
    points = body_centred_points(cubes)
    corners = (cubes + 1) ** 3
    number = torch.arange(corners).reshape((cubes + 1,) * 3)
    middle = torch.arange(corners, len(points)).reshape((cubes,) * 3)
    found = []
    for k in range(3):
        one, other = middle.narrow(k, 0, cubes - 1), middle.narrow(k, 1, cubes - 1)
        shared = number.narrow(k, 1, cubes - 1)
        u, v = (m for m in range(3) if m != k)
        ring = [shared.narrow(u, du, cubes).narrow(v, dv, cubes) for du, dv in ((0, 0), (1, 0), (1, 1), (0, 1))]
        for m in range(4):
            found.append(torch.stack([one, other, ring[m], ring[(m + 1) % 4]], -1).reshape(-1, 4))
    tets = torch.cat(found)
    a, b, c, d = points[tets].unbind(1)
    turned = (torch.linalg.cross(b - a, c - a) * (d - a)).sum(-1) < 0
    tets[turned] = tets[turned][:, [0, 1, 3, 2]]
    return points, tets


def _table() -> tuple[Tensor, Tensor]:
    """For each of the 16 cases (bit i: corner i is inside): up to two triangles of edges (16, 2, 3), -1 for none, wound
    counter-clockwise seen from outside; and their number (16,)."""
    number = {tuple(edge): k for k, edge in enumerate(EDGES.tolist())}

    def edge(i: int, j: int) -> int:
        return number[min(i, j), max(i, j)]

    table, counts = torch.full((16, 2, 3), -1), torch.zeros(16, dtype=torch.int64)
    for i, j, k, l in permutations(range(4)):  # noqa: E741
        inversions = sum(a > b for n, a in enumerate((i, j, k, l)) for b in (i, j, k, l)[n + 1 :])
        if inversions % 2:
            continue  # only even orders are positively oriented
        one, three, two = 1 << i, 15 - (1 << i), (1 << i) | (1 << j)
        table[one, 0] = torch.tensor([edge(i, j), edge(i, k), edge(i, l)])
        table[three, 0] = torch.tensor([edge(i, j), edge(i, l), edge(i, k)])
        table[two, 0] = torch.tensor([edge(i, k), edge(i, l), edge(j, l)])
        table[two, 1] = torch.tensor([edge(i, k), edge(j, l), edge(j, k)])
        counts[one] = counts[three] = 1
        counts[two] = 2
    return table, counts


TABLE, COUNTS = _table()
APART = 0.02
"""Least share of an edge between its ends and the surface. Otherwise vertices about a grid point on the surface would fall
together, and faces there would have no area."""


def marching_tetrahedra(points: Tensor, distance: Tensor, tets: Tensor) -> tuple[Tensor, Tensor]:
    """The surface distance = 0 as vertices (N, 3) and faces (F, 3); ``distance`` (V,) is negative inside.

    A vertex lies on each edge (a, b) between inside and outside, at the linear zero a + (b - a) s_a / (s_a - s_b), but no nearer to an end
    than ``APART``. So the
    mesh is closed where the grid's border is outside, every edge has two faces, and faces wind counter-clockwise seen from
    outside. Differentiable by points and distance.
    """
    inside = distance.detach() < 0
    case = (inside[tets] * torch.tensor([1, 2, 4, 8], device=tets.device)).sum(1)
    active = ((case > 0) & (case < 15)).nonzero()[:, 0]
    tets, case = tets[active], case[active]
    ends = tets[:, EDGES.to(tets.device)].sort(-1).values  # (A, 6, 2)
    key = ends[..., 0] * len(points) + ends[..., 1]
    triangles = TABLE.to(tets.device)[case]  # (A, 2, 3)
    owner = torch.arange(len(tets), device=tets.device)[:, None].expand(-1, 2)
    real = torch.arange(2, device=tets.device) < COUNTS.to(tets.device)[case][:, None]
    used = key[owner[real][:, None], triangles[real]]
    unique, faces = torch.unique(used, return_inverse=True)
    a, b = unique // len(points), unique % len(points)
    share = (distance[a] / (distance[a] - distance[b])).clamp(APART, 1 - APART)
    return points[a] + (points[b] - points[a]) * share[:, None], faces
