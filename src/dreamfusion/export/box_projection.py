"""Texture coordinates by projection from six sides, for meshes that take too long to unwrap.

Each triangle is seen from the side that it faces most (Tarini et al. 2004, "PolyCube-Maps", without the cubes). A chart is a
connected part that is seen from one side and nowhere covers itself there.
"""

from __future__ import annotations

import numpy as np

from ..geometry.mesh import Floats, Ints, Mesh
from ..kernels.caching import njit
from .packing import MOST, packed

LEAST = 0.3
"""A triangle may be seen from its neighbours' side if it faces there with this cosine or more."""
ROUNDS = 4
"""How often neighbours agree on a side."""
APART = 1e-9
"""Triangles overlap if they do by more than this."""
STEPS = 24


def box_projection(mesh: Mesh, padding: float) -> Mesh:
    """The mesh with uv in the unit square that nowhere overlap, charts ``padding`` (a share of the square's side) from whatever
    is around them, or less where there are too many. Vertices on their borders are doubled; no chart is mirrored."""
    neighbours = neighbours_from_corners(mesh.faces)
    side = sides_of(mesh, neighbours)
    corners = mesh.vertices[mesh.faces]
    axis, minus = side // 2, side % 2
    u, v = (axis + 1 + minus) % 3, (axis + 2 - minus) % 3  # u x v looks outwards
    flat = np.stack([np.take_along_axis(corners, k[:, None, None], 2)[:, :, 0] for k in (u, v)], 2)
    chart = _grow(np.ascontiguousarray(flat), side, neighbours, *_cells(flat))
    key, index = np.unique((chart[:, None] * len(mesh.vertices) + mesh.faces).ravel(), return_inverse=True)
    source, of_vertex, faces = key % len(mesh.vertices), key // len(mesh.vertices), index.reshape(-1, 3)
    uv = np.empty((len(source), 2))
    uv[faces] = flat
    placed = packed(uv, faces, of_vertex, padding) if chart.max(initial=0) < MOST else None
    if placed is None:
        placed = shelved(uv, of_vertex, padding)
    normals = None if mesh.normals is None else mesh.normals[source]
    return Mesh(mesh.vertices[source], faces, normals, placed)


def neighbours_from_corners(faces: Ints) -> Ints:
    """The face (F, 3) beyond each face's edge k, which begins at its corner k; -1 where there is not exactly one.

    ``topology.face_neighbours`` counts edges by the corner opposite to them.
    """
    edges = np.sort(np.stack([faces, np.roll(faces, -1, 1)], 2).reshape(-1, 2), 1)
    _, index, count = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(index.reshape(-1), kind="stable")
    start = np.cumsum(count) - count
    one, two = order[start[count == 2]], order[start[count == 2] + 1]
    out = np.full(faces.size, -1, np.int64)
    out[one], out[two] = two // 3, one // 3
    return out.reshape(-1, 3)


def sides_of(mesh: Mesh, neighbours: Ints) -> Ints:
    """The side (F,) from which each face is seen: 0 to 5 for +x, -x, +y, -y, +z, -z. Where most neighbours have another one
    that it faces as well, it joins them, so that there are fewer charts."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    facing = np.stack([normal, -normal], 2).reshape(-1, 6)
    side = facing.argmax(1)
    rows = np.arange(len(side))
    for _ in range(ROUNDS):
        votes = np.where(facing >= LEAST, 0.5 * facing, -9.0)
        for k in range(3):
            beyond = neighbours[:, k]
            some = beyond >= 0
            votes[rows[some], side[beyond[some]]] += 1
        side = np.where(votes.max(1) > 0, votes.argmax(1), side)
    return np.asarray(side, np.int64)


def _cells(flat: Floats) -> tuple[Floats, float, int]:
    """A grid over all flat triangles (F, 3, 2): its lowest corner, the side of a cell and the number of cells a side."""
    low, high = flat.reshape(-1, 2).min(0), flat.reshape(-1, 2).max(0)
    edge = float(np.linalg.norm(flat - np.roll(flat, 1, 1), axis=2).mean())
    extent = max(float((high - low).max()), 1e-9)
    count = int(np.clip(extent / max(2 * edge, 1e-12), 1, 512))
    return low, extent * (1 + 1e-9) / count, count


@njit(nogil=True)
def _apart(one: Floats, two: Floats) -> bool:
    """Does an edge of counter-clockwise triangle ``one`` (3, 2) have all of triangle ``two`` beyond it?"""
    for k in range(3):
        px, py = one[k, 0], one[k, 1]
        dx, dy = one[(k + 1) % 3, 0] - px, one[(k + 1) % 3, 1] - py
        limit = APART * np.sqrt(dx * dx + dy * dy)
        beyond = True
        for i in range(3):
            if dx * (two[i, 1] - py) - dy * (two[i, 0] - px) > limit:
                beyond = False
        if beyond:
            return True
    return False


@njit(nogil=True)
def _grow(flat: Floats, side: Ints, neighbours: Ints, low: Floats, cell: float, cells: int) -> Ints:
    """The chart (F,) of each face: from a seed on, all neighbours of the same side that cover no face of the chart."""
    count = len(flat)
    chart, tried = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    head = np.full(cells * cells, -1, np.int64)
    item, after = np.empty(4 * count + 16, np.int64), np.empty(4 * count + 16, np.int64)
    queue, charts = np.empty(count, np.int64), 0
    for seed in range(count):
        if chart[seed] >= 0:
            continue
        begin, end, used = 0, 1, 0
        queue[0] = seed
        tried[seed] = charts
        while begin < end:
            f = queue[begin]
            begin += 1
            r0 = min(max(int((flat[f, :, 0].min() - low[0]) / cell), 0), cells - 1)
            r1 = min(max(int((flat[f, :, 0].max() - low[0]) / cell), 0), cells - 1)
            c0 = min(max(int((flat[f, :, 1].min() - low[1]) / cell), 0), cells - 1)
            c1 = min(max(int((flat[f, :, 1].max() - low[1]) / cell), 0), cells - 1)
            free = True
            for r in range(r0, r1 + 1):
                for c in range(c0, c1 + 1):
                    i = head[r * cells + c]
                    while i >= 0 and free:
                        other = flat[item[i]]
                        free = _apart(other, flat[f]) or _apart(flat[f], other)
                        i = after[i]
            if not free:
                continue
            chart[f] = charts
            for r in range(r0, r1 + 1):
                for c in range(c0, c1 + 1):
                    if used == len(item):
                        item, after = np.concatenate((item, item)), np.concatenate((after, after))
                    item[used], after[used] = f, head[r * cells + c]
                    head[r * cells + c] = used
                    used += 1
            for k in range(3):
                g = neighbours[f, k]
                if g >= 0 and chart[g] < 0 and side[g] == side[f] and tried[g] != charts:
                    tried[g] = charts
                    queue[end] = g
                    end += 1
        for i in range(end):  # empty the cells again
            f = queue[i]
            if chart[f] != charts:
                continue
            r0 = min(max(int((flat[f, :, 0].min() - low[0]) / cell), 0), cells - 1)
            r1 = min(max(int((flat[f, :, 0].max() - low[0]) / cell), 0), cells - 1)
            c0 = min(max(int((flat[f, :, 1].min() - low[1]) / cell), 0), cells - 1)
            c1 = min(max(int((flat[f, :, 1].max() - low[1]) / cell), 0), cells - 1)
            for r in range(r0, r1 + 1):
                for c in range(c0, c1 + 1):
                    head[r * cells + c] = -1
        charts += 1
    return chart


def shelved(uv: Floats, chart: Ints, padding: float) -> Floats:
    """Texture coordinates (V, 2) in the unit square of charts (V,) side by side on shelves, at one scale. For more charts than
    ``packed`` takes; the padding shrinks until they fit."""
    count = int(chart.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, chart, uv)
    np.maximum.at(high, chart, uv)
    sides = high - low
    order = np.argsort(-sides[:, 1], kind="stable")
    while (best := _shelves(sides[order], 0.0, padding)) is None:
        padding /= 2
    scale, top = 0.0, float(1 / np.sqrt(max(sides.prod(1).sum(), 1e-30)))
    for _ in range(STEPS):
        middle = (scale + top) / 2
        found = _shelves(sides[order], middle, padding)
        if found is None:
            top = middle
        else:
            scale, best = middle, found
    place = np.empty((count, 2))
    place[order] = best
    return np.asarray((uv - low[chart]) * scale + place[chart])


@njit(nogil=True)
def _place(sides: Floats, scale: float, padding: float, out: Floats) -> bool:
    x, y, tall = 0.0, 0.0, 0.0
    for k in range(len(sides)):
        width, height = sides[k, 0] * scale + 2 * padding, sides[k, 1] * scale + 2 * padding
        if x + width > 1:
            x, y, tall = 0.0, y + tall, 0.0
        if width > 1 or y + height > 1:
            return False
        out[k, 0], out[k, 1] = x + padding, y + padding
        x, tall = x + width, max(tall, height)
    return True


def _shelves(sides: Floats, scale: float, padding: float) -> Floats | None:
    """Where boxes (C, 2), the tallest first, stand on shelves at a scale: their lowest corners (C, 2); None if they do not fit."""
    out = np.empty((len(sides), 2))
    return out if _place(sides, scale, padding, out) else None
