"""Pack the charts of an atlas into a square: each is dropped where it leaves the least below it.

After the packing of Lévy et al. (2002, "Least Squares Conformal Maps", section 5): charts fall onto a horizon like the pieces of
Tetris, large ones first. Here each is tried in four turns, and the scale is as large as the square allows.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from ..geometry.mesh import Floats, Ints, Mesh, face_components
from ..kernels.caching import njit

GRID = 512
"""Columns of the horizon; fewer where they would be narrower than the padding, as in small textures."""
TRIES = 8
"""Steps of a search for the scale, by halves."""

FIRST = 0.8
"""The scale that is tried first, as a share of what would fill the square without gaps."""
RISES = (0.5, 1.0)
"""Weights of a low height against space lost; which is better depends on the charts."""
MOST = 500
"""Packing more charts than this would take too long for what it gains."""

Place = tuple[int, float, float]
"""Quarters of a turn, x and y."""


def charts_of(mesh: Mesh) -> tuple[int, Ints]:
    """The charts of a mesh with uv: their number, and the chart (V,) of each vertex."""
    count, of_face = face_components(mesh)
    of_vertex = np.zeros(len(mesh.vertices), np.int64)
    of_vertex[mesh.faces] = of_face[:, None]
    return count, of_vertex


def packed(uv: Floats, faces: Ints, chart: Ints, padding: float) -> Floats | None:
    """Texture coordinates (V, 2) in the unit square of charts that do not overlap, at one scale. None if they do not fit,
    or are more than ``MOST``.

    uv (V, 2) in any unit, the same for all charts; chart (V,): the chart of each vertex; padding: how far each chart stays from
    whatever is around it, as a share of the square's side.
    """
    if chart.max(initial=0) >= MOST or not np.isfinite(uv).all():
        return None
    order = np.argsort(chart, kind="stable")
    members = np.split(order, np.searchsorted(chart[order], np.arange(1, chart.max() + 1)))
    local = np.zeros(len(uv), np.int64)
    for where in members:
        local[where] = np.arange(len(where))
    owner = chart[faces[:, 0]]
    triangles = [local[faces[owner == k]] for k in range(len(members))]
    turned = [[_turn(uv[where], quarter) for quarter in range(4)] for where in members]
    sides = np.array([np.ptp(turns[0], axis=0) for turns in turned])
    a, b = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    full = 1 / np.sqrt(max(float(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2), 1e-30))  # no gaps at all
    columns = int(np.ceil(min(1 / max(padding, 1e-9), GRID)))
    scale, best = 0.0, None
    for worth in (sides.max(1), sides.prod(1)):
        largest_first = np.argsort(-worth, kind="stable").tolist()
        for rise in RISES:
            low, high = scale, full
            for _ in range(TRIES):
                middle = FIRST * high if low == 0 else (low + high) / 2
                found = _drop(turned, triangles, largest_first, middle, padding, rise, columns)
                if found is None:
                    high = middle
                    if low == scale > 0 and high < scale * (1 + 1e-3):
                        break
                else:
                    low, scale, best = middle, middle, found
    if best is None:
        return None
    out = np.zeros((len(uv), 2))
    for where, turns, (quarter, x, y) in zip(members, turned, best, strict=True):
        out[where] = turns[quarter] * scale + [x, y]
    return out


def _turn(points: Floats, quarter: int) -> Floats:
    """Points (N, 2) turned by quarters of a circle, with their lowest corner in the origin."""
    for _ in range(quarter):
        points = np.stack([-points[:, 1], points[:, 0]], 1)
    return np.asarray(points - points.min(0))


def _drop(
    turned: list[list[Floats]],
    triangles: list[Ints],
    order: list[int],
    scale: float,
    padding: float,
    rise: float,
    grid: int,
) -> list[Place] | None:
    """The place of each chart at a scale, or None where they do not fit into the unit square."""
    horizon, low, top = np.zeros(grid), np.empty(grid), np.empty(grid)
    places: list[Place] = [(0, 0.0, 0.0)] * len(turned)
    for k in order:
        cost, quarter, at, height, over = np.inf, 0, 0, 0.0, horizon
        for turn, points in enumerate(turned[k]):
            found, x, y, columns = _tried(horizon, points, triangles[k], scale, padding, rise, low, top)
            if found < cost:
                cost, quarter, at, height, over = found, turn, x, y, top[:columns].copy()
        if not np.isfinite(cost):
            return None
        under = horizon[at : at + len(over)]
        under[:] = np.maximum(under, height + over)
        places[k] = (quarter, at / grid + padding, height + padding)
    return places


@njit()
def _outline(points, faces, around, under, over):
    """Lowest and highest places of triangles in each column, ``around`` wider on all sides; all in columns' widths."""
    for f in range(len(faces)):
        for k in range(3):
            p, q = points[faces[f, k]], points[faces[f, (k + 1) % 3]]
            if p[0] > q[0]:
                p, q = q, p
            first = max(int(np.floor(p[0] - around)), 0)
            last = min(int(np.floor(q[0] + around)), len(under) - 1)
            for c in range(first, last + 1):
                left, right = min(max(c - around, p[0]), q[0]), max(min(c + 1 + around, q[0]), p[0])
                wide = max(q[0] - p[0], 1e-12)
                a = p[1] + (q[1] - p[1]) * (left - p[0]) / wide
                b = p[1] + (q[1] - p[1]) * (right - p[0]) / wide
                if q[0] - p[0] < 1e-12:
                    a, b = p[1], q[1]
                under[c] = min(under[c], a - around, b - around)
                over[c] = max(over[c], a + around, b + around)


@njit()
def _lowest(horizon, under, over, rise):
    """Where a chart costs least, of the columns at which it fits: the cost, the column, and its height there.

    The cost is the space that is lost below it, and how far it reaches up, weighted by ``rise``.
    """
    count = len(under)
    best, where, height = np.inf, -1, 0.0
    for x in range(len(horizon) - count + 1):
        y = 0.0
        for c in range(count):
            if over[c] > -np.inf:
                y = max(y, horizon[x + c] - under[c])
        top, lost = 0.0, 0.0
        for c in range(count):
            if over[c] > -np.inf:
                top = max(top, y + over[c])
                lost += y + under[c] - horizon[x + c]
        if top > 1:
            continue
        cost = lost / count + rise * top
        if cost < best:
            best, where, height = cost, x, y
    return best, where, height


@njit()
def _tried(horizon, points, faces, scale, padding, rise, low, top):
    """``_lowest`` of a chart's points (N, 2) and faces at a scale, and its number of columns; the cost is infinite where it is too
    large. Its outline is left in the first columns of ``low`` and ``top``."""
    grid = len(horizon)
    width, tall = 0.0, 0.0
    for k in range(len(points)):
        width, tall = max(width, points[k, 0]), max(tall, points[k, 1])
    columns = int(np.ceil((width * scale + 2 * padding) * grid))
    if columns > grid or tall * scale + 2 * padding > 1:
        return np.inf, 0, 0.0, columns
    under, over = low[:columns], top[:columns]
    under[:], over[:] = np.inf, -np.inf
    _outline((points * scale + padding) * grid, faces, padding * grid, under, over)
    for c in range(columns):
        under[c], over[c] = under[c] / grid, over[c] / grid
    best, where, height = _lowest(horizon, under, over, rise)
    return best, where, height, columns
