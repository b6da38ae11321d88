"""What the fused renderer's Numba kernels share, and the small kernels. The large ones are in ``grid_forward.py`` and
``grid_backward.py``, the mathematics in ``volume.py``, ``grid.py`` and ``field.py`` of ``scene``.

Each kernel runs on one thread over a fixed share of the rays, so that several run side by side without the GIL.
Names: r a ray, j its place in the share, m a kept sample, l a level, f a feature, h a hidden unit, i a lane.
Per-sample numbers lie in blocks of ``LANES`` samples where loops over lanes are to become vector instructions.
Tables come flat, and their indices pass through ``& INDEX``: it tells the compiler that they are not negative, so that
it leaves out Python's counting from the end. The model's constants come as an argument (``scene.grid.GridField.model``), because
compiled code is kept on disk and would not notice a change. ``fastmath`` allows only what changes rounding (contraction, reordering):
not-a-number and infinity keep their meaning.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np

from .caching import njit

LANES = 64
INDEX = (1 << 40) - 1
ALBEDO, LAMBERTIAN, TEXTURELESS = 0, 1, 2
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}
EXACT = OPTIONS | {"fastmath": {"contract", "nsz"}}  # for kernels where reordering would cost digits
_F = np.float32
_ONE, _HALF, _ZERO = _F(1), _F(0.5), _F(0)
_LOG2E, _LN2 = _F(1 / log(2)), _F(log(2))
_ROUND = _F(127.5)
_EXP = tuple(_F(1 / n) for n in (720, 120, 24, 6, 2))
_ATANH = tuple(_F(1 / n) for n in (13, 11, 9, 7, 5, 3))


@njit(inline="always", **OPTIONS)
def exponential(x):
    """exp(x) for x in [-87, 87] and clamped there, to 5e-7 near zero and half a rounding of x further out.

    2^k exp(r) with |r| < log(2) / 2, exp(r) by its Taylor series. Unlike a library's, it is inlined and becomes vector
    instructions."""
    x = _F(-87) if x < _F(-87) else (_F(87) if x > _F(87) else x)
    k = np.int32(x * _LOG2E + _ROUND)
    r = x - _F(np.int32(k - np.int32(127))) * _LN2  # integers, because reordered floats would lose digits here
    p = (((_EXP[0] * r + _EXP[1]) * r + _EXP[2]) * r + _EXP[3]) * r + _EXP[4]
    return ((p * r + _ONE) * r + _ONE) * np.int32(k << np.int32(23)).view(np.float32)


@njit(inline="always", **OPTIONS)
def softplus_and_slope(a):
    """log(1 + exp(a)) and its derivative, to 1e-6 of their values.

    log(1 + e) = 2 artanh(e / (2 + e)) by its series, for e = exp(-|a|) <= 1.
    """
    e = exponential(-abs(a))
    s = e / (_F(2) + e)
    q = s * s
    p = ((((_ATANH[0] * q + _ATANH[1]) * q + _ATANH[2]) * q + _ATANH[3]) * q + _ATANH[4]) * q + _ATANH[5]
    return max(a, _ZERO) + _F(2) * (s + s * q * p), (_ONE if a >= _ZERO else e) / (_ONE + e)


@njit(inline="always", **OPTIONS)
def laplace_and_slope(a):
    """The distribution function of a Laplace variable of scale 1, and its derivative."""
    half = _HALF * exponential(-abs(a))
    return (half if a <= _ZERO else _ONE - half), half


@njit(inline="always", **OPTIONS)
def activation(a, signed):
    """What a field makes of sharp * raw - shift, and its derivative; ``signed``: whether raw is a signed distance."""
    return laplace_and_slope(a) if signed else softplus_and_slope(a)


@njit(inline="always", **OPTIONS)
def beginning(x, y, z, height, narrow, signed):
    """Raw density that a field begins with, and its gradient by (x, y, z) divided by (x, y, z): a blob, or a ball's distance."""
    squared = x * x + y * y + z * z
    if signed:
        far = sqrt(squared + _F(1e-12))
        return height - narrow * far, -narrow / far
    bump = height * exponential(-squared * narrow)
    return bump, -_F(2) * narrow * bump


@njit(inline="always", **OPTIONS)
def corner(p, side):
    """Lower vertex and fraction of a coordinate in [-1, 1] on a grid of ``side`` vertices."""
    q = (p + _ONE) * (_F(side - 1) * _HALF)
    low = min(max(int(q), 0), side - 2)
    return low, q - _F(low)


@njit(**OPTIONS)
def candidates(order, origins, directions, near, far, offset, step, cells, kept, bounds):
    """List the samples in occupied cells: for the share's ray j, kept[bounds[j]:bounds[j + 1]] are their numbers."""
    side, flat = cells.shape[0], cells.ravel()
    half = _F(side) * _HALF
    n = 0
    bounds[0] = 0
    for j in range(len(order)):
        r = order[j]
        start, end, u = near[r], far[r], offset[r]
        ox, oy, oz = origins[r, 0] + _ONE, origins[r, 1] + _ONE, origins[r, 2] + _ONE
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        k = 0
        t = start + u * step
        while t < end:
            x = min(max(int((ox + t * dx) * half), 0), side - 1)
            y = min(max(int((oy + t * dy) * half), 0), side - 1)
            z = min(max(int((oz + t * dz) * half), 0), side - 1)
            kept[n & INDEX] = k
            n += flat[((x * side + y) * side + z) & INDEX]  # no branch: it could not be predicted
            k += 1
            t = start + (_F(k) + u) * step
        bounds[j + 1] = n
    return n


@njit(**OPTIONS)
def density(points, table, channels, sides, starts, model, out):
    """Density (P,) at points (P, 3), zero outside the unit sphere; ``model`` as in ``grid_fused.FusedGrid``."""
    height, narrow, scale, sharp, shift = model[0], model[1], model[2], model[3], model[4]
    signed = model[8] > _ZERO
    for p in range(len(points)):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        squared = x * x + y * y + z * z
        out[p] = _ZERO
        if squared < _ONE:
            raw, _ = beginning(x, y, z, height, narrow, signed)
            for l in range(len(sides)):  # noqa: E741
                side = sides[l]
                ix, fx = corner(x, side)
                iy, fy = corner(y, side)
                iz, fz = corner(z, side)
                row, next_z = side * channels, channels & INDEX
                b00 = ((starts[l] + (ix * side + iy) * side + iz) * channels) & INDEX
                b01 = (b00 + row) & INDEX
                b10 = (b00 + row * side) & INDEX
                b11 = (b10 + row) & INDEX
                v00 = table[b00] + (table[b00 + next_z] - table[b00]) * fz
                v01 = table[b01] + (table[b01 + next_z] - table[b01]) * fz
                v10 = table[b10] + (table[b10 + next_z] - table[b10]) * fz
                v11 = table[b11] + (table[b11 + next_z] - table[b11]) * fz
                v0 = v00 + (v01 - v00) * fy
                v1 = v10 + (v11 - v10) * fy
                raw += v0 + (v1 - v0) * fx
            out[p] = scale * activation(sharp * raw - shift, signed)[0]


@njit(**OPTIONS)
def collect(parts, dirty, sides, starts, rows, begin, end, out):
    """out (V, channels) = sum of the shares' parts (S, V, channels), always in the same order, for the rows of
    vertices from ``begin`` to ``end``; parts and dirty (S, rows) are left zero for the next time."""
    shares, channels = parts.shape[0], parts.shape[2]
    for l in range(len(sides)):  # noqa: E741
        side = sides[l]
        for row in range(max(begin, rows[l]), min(end, rows[l] + side * side)):
            low = starts[l] + (row - rows[l]) * side
            out[low : low + side] = _ZERO
            for s in range(shares):
                if dirty[s, row]:
                    dirty[s, row] = 0
                    for v in range(low, low + side):
                        for c in range(channels):
                            out[v, c] += parts[s, v, c]
                            parts[s, v, c] = _ZERO
