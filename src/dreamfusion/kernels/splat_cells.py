"""Numba kernels that sum 3D Gaussians at points of space. The mathematics is that of ``scene/splat_density.py``."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, floor

import numpy as np

from .caching import njit

OPTIONS = {"nogil": True, "error_model": "numpy"}


@njit(**OPTIONS)
def cell_lists(low, high, cells):
    """The splats of each of cells^3 cells of [-1, 1]^3 that their boxes, from low (N, 3) to high (N, 3), touch: starts
    (cells^3 + 1,) and their numbers."""
    starts = np.zeros(cells**3 + 1, np.int64)
    box = np.empty((len(low), 6), np.int64)
    for n in range(len(low)):
        for k in range(3):
            box[n, k] = max(0, floor((low[n, k] + 1) / 2 * cells))
            box[n, 3 + k] = min(cells - 1, floor((high[n, k] + 1) / 2 * cells))
        for x in range(box[n, 0], box[n, 3] + 1):
            for y in range(box[n, 1], box[n, 4] + 1):
                for z in range(box[n, 2], box[n, 5] + 1):
                    starts[(x * cells + y) * cells + z + 1] += 1
    for cell in range(cells**3):
        starts[cell + 1] += starts[cell]
    ends = starts[:-1].copy()
    lists = np.empty(starts[-1], np.int64)
    for n in range(len(low)):
        for x in range(box[n, 0], box[n, 3] + 1):
            for y in range(box[n, 1], box[n, 4] + 1):
                for z in range(box[n, 2], box[n, 5] + 1):
                    cell = (x * cells + y) * cells + z
                    lists[ends[cell]] = n
                    ends[cell] += 1
    return starts, lists


@njit(**OPTIONS)
def sample(points, centres, inverses, strengths, colours, starts, lists, cells, bound, out):
    """Fill out (P, 4) with the density and the mean colour at points (P, 3)."""
    for p in range(len(points)):
        cell = 0
        for k in range(3):
            cell = cell * cells + min(cells - 1, max(0, floor((points[p, k] + 1) / 2 * cells)))
        total = r = g = b = 0.0
        for at in range(starts[cell], starts[cell + 1]):
            n = lists[at]
            x, y, z = points[p, 0] - centres[n, 0], points[p, 1] - centres[n, 1], points[p, 2] - centres[n, 2]
            m = inverses[n]
            q = m[0] * x * x + m[3] * y * y + m[5] * z * z + 2 * (m[1] * x * y + m[2] * x * z + m[4] * y * z)
            if q > bound:
                continue
            share = strengths[n] * exp(-q / 2)
            total += share
            r += share * colours[n, 0]
            g += share * colours[n, 1]
            b += share * colours[n, 2]
        out[p, 0] = total
        if total > 0:
            out[p, 1], out[p, 2], out[p, 3] = r / total, g / total, b / total
        else:
            out[p, 1] = out[p, 2] = out[p, 3] = 0.5
