"""What rays meet of a shape of the bundled prior, as Numba kernels: ``priors.planes.marched``, and all of ``Layout.plainly_met`` at once,
which ends a ray where nothing more shines through."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from .caching import njit

HULL = 32
"""Cells along a side of a hull, a block over [-1, 1]."""
AXES = np.array([[0, 1], [2, 1], [0, 2]])
"""The axes that the columns and rows of each plane run along."""
LITTLE = 1e-3
"""Where no more of the light than this is left, a ray ends."""


@njit(nogil=True, error_model="numpy")
def marched(origin, towards, near, spacing, samples, inside, shape):
    """Numbers of rays and distances from their origins, (N,), as ``priors.planes.marched`` has them; all arrays are NumPy's."""
    ray, depth = np.empty(len(near) * samples, np.int64), np.empty(len(near) * samples, np.float32)
    found, half = 0, np.float32(HULL / 2)
    one, middle = np.float32(1.0), np.float32(0.5)
    for r in range(len(near)):
        hull = inside[shape[r]]
        for k in range(samples):
            d = near[r] + (np.float32(k) + middle) * spacing[r]
            x = min(max(int((origin[r, 0] + towards[r, 0] * d + one) * half), 0), HULL - 1)
            y = min(max(int((origin[r, 1] + towards[r, 1] * d + one) * half), 0), HULL - 1)
            z = min(max(int((origin[r, 2] + towards[r, 2] * d + one) * half), 0), HULL - 1)
            if hull[(x * HULL + y) * HULL + z]:
                ray[found], depth[found] = r, d
                found += 1
    return ray[:found].copy(), depth[:found].copy()


@njit(nogil=True, error_model="numpy", fastmath=True)
def look_up(plane, u, v, met, backward):
    """Add a plane (P, P, C) at u along columns and v along rows, both in [-1, 1], to met (C,), bilinearly; outside there are zeros.
    ``backward``: add the gradient in met to that of the plane instead."""
    side = plane.shape[0]
    x, y = (
        (u + np.float32(1)) * np.float32(side / 2) - np.float32(0.5),
        (v + np.float32(1)) * np.float32(side / 2) - np.float32(0.5),
    )
    left, top = int(np.floor(x)), int(np.floor(y))
    right_share, low_share = x - np.float32(left), y - np.float32(top)
    for dy in range(2):
        row = top + dy
        if row < 0 or row >= side:
            continue
        row_share = low_share if dy else np.float32(1) - low_share
        for dx in range(2):
            column = left + dx
            if column < 0 or column >= side:
                continue
            share = row_share * (right_share if dx else np.float32(1) - right_share)
            for c in range(plane.shape[2]):
                if backward:
                    plane[row, column, c] += share * met[c]
                else:
                    met[c] += share * plane[row, column, c]


@njit(nogil=True, error_model="numpy", fastmath=True)
def met(origin, towards, near, spacing, world, samples, inside, planes, weight, bias, density, density_bias, out):
    """What rays (R,) meet, added to out (R, F + 4): features, place and opacity, as ``Layout.plainly_met`` has them. ``spacing`` is in
    the thing's own units, ``world`` in the world's over the thickness unit. weight (3 C, F), bias, density (F,): of ``point_of``."""
    count, width = weight.shape[1], planes.shape[3]
    half, one, middle = np.float32(HULL / 2), np.float32(1.0), np.float32(0.5)
    looked, hidden = np.empty(3 * width, np.float32), np.empty(count, np.float32)
    point = np.empty(3, np.float32)
    for r in range(len(near)):
        if spacing[r] <= 0:
            continue
        left = one
        for k in range(samples):
            d = near[r] + (np.float32(k) + middle) * spacing[r]
            for a in range(3):
                point[a] = origin[r, a] + towards[r, a] * d
            x = min(max(int((point[0] + one) * half), 0), HULL - 1)
            y = min(max(int((point[1] + one) * half), 0), HULL - 1)
            z = min(max(int((point[2] + one) * half), 0), HULL - 1)
            if not inside[(x * HULL + y) * HULL + z]:
                continue
            looked[:] = 0
            for plane in range(3):
                part = looked[plane * width : (plane + 1) * width]
                look_up(planes[plane], point[AXES[plane, 0]], point[AXES[plane, 1]], part, False)
            hidden[:] = bias
            for i in range(3 * width):
                value = looked[i]
                for j in range(count):
                    hidden[j] += value * weight[i, j]
            told = density_bias
            for j in range(count):
                hidden[j] = hidden[j] / (one + np.exp(-hidden[j]))
                told += hidden[j] * density[j]
            thick = told if told > np.float32(20) else np.log1p(np.exp(told))
            through = np.exp(-thick * world[r])
            share = left * (one - through)
            left *= through
            for j in range(count):
                out[r, j] += share * hidden[j]
            for a in range(3):
                out[r, count + a] += share * point[a]
            out[r, count + 3] += share
            if left < LITTLE:
                break
