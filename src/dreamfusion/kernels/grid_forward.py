"""The fused renderer's forward kernel. Names and conventions as in ``grid_kernels.py``."""

# mypy: disable-error-code="no-untyped-def, assignment"
from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np

from .caching import njit
from .grid_kernels import ALBEDO, EXACT, INDEX, LANES, OPTIONS, TEXTURELESS, activation, beginning, corner, exponential

_F = np.float32
_ONE, _HALF, _ZERO = _F(1), _F(0.5), _F(0)


@lru_cache(maxsize=8)
def forward_kernel(features: int) -> Any:
    """The forward kernel for a number of features (a constant there, so that loops over channels unroll)."""
    channels = features + 1

    @njit(**EXACT)
    def march(
        order, kept, bounds, origins, directions, near, offset, step, table, sides, starts, model,
        first, place, slope, normal, feature, after,
    ):  # fmt: skip
        """Look up the share's samples up to where their rays end. Leaves optical thicknesses in ``after`` and gradients
        of the raw density in ``normal``; the number of samples."""
        height, narrow, sharp, shift, thickest = model[0], model[1], model[3], model[4], model[7]
        signed = model[8] > _ZERO
        most = step * model[2]  # optical thickness of a sample per unit of softplus
        m = block = i = 0
        for j in range(len(order)):
            r = order[j]
            first[j] = m
            thick = _ZERO
            start, u = near[r], offset[r]
            ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
            dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
            for q in range(bounds[j], bounds[j + 1]):
                if thick > thickest:
                    break
                t = start + (_F(kept[q & INDEX]) + u) * step
                x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
                raw, pull = beginning(x, y, z, height, narrow, signed)
                gx, gy, gz = pull * x, pull * y, pull * z
                for l in range(len(sides)):  # noqa: E741
                    side = sides[l]
                    ix, fx = corner(x, side)
                    iy, fy = corner(y, side)
                    iz, fz = corner(z, side)
                    row = side * channels
                    b00 = ((starts[l] + (ix * side + iy) * side + iz) * channels) & INDEX
                    b01 = (b00 + row) & INDEX
                    b10 = (b00 + row * side) & INDEX
                    b11 = (b10 + row) & INDEX
                    ex, ey, ez = _ONE - fx, _ONE - fy, _ONE - fz
                    w00, w01, w10, w11 = ex * ey, ex * fy, fx * ey, fx * fy
                    a00, a01 = table[b00], table[b00 + channels]
                    a10, a11 = table[b01], table[b01 + channels]
                    c00, c01 = table[b10], table[b10 + channels]
                    c10, c11 = table[b11], table[b11 + channels]
                    u00 = a00 * ez + a01 * fz
                    u01 = a10 * ez + a11 * fz
                    u10 = c00 * ez + c01 * fz
                    u11 = c10 * ez + c11 * fz
                    scale = _F(side - 1) * _HALF
                    raw += w00 * u00 + w01 * u01 + w10 * u10 + w11 * u11
                    gx += scale * (ey * (u10 - u00) + fy * (u11 - u01))
                    gy += scale * (ex * (u01 - u00) + fx * (u11 - u10))
                    gz += scale * (w00 * (a01 - a00) + w01 * (a11 - a10) + w10 * (c01 - c00) + w11 * (c11 - c10))
                    for f in range(features):
                        low = w00 * table[b00 + f + 1] + w01 * table[b01 + f + 1]
                        low += w10 * table[b10 + f + 1] + w11 * table[b11 + f + 1]
                        n = channels + f + 1
                        high = w00 * table[b00 + n] + w01 * table[b01 + n] + w10 * table[b10 + n] + w11 * table[b11 + n]
                        feature[block & INDEX, l * features + f, i & INDEX] = ez * low + fz * high
                soft, logistic = activation(sharp * raw - shift, signed)
                n = m & INDEX
                place[n, 0], place[n, 1], place[n, 2], place[n, 3] = x, y, z, t
                slope[n] = most * sharp * logistic
                after[n] = most * soft
                normal[block & INDEX, 0, i & INDEX] = gx
                normal[block & INDEX, 1, i & INDEX] = gy
                normal[block & INDEX, 2, i & INDEX] = gz
                thick += most * soft
                m += 1
                i += 1
                if i == LANES:
                    i = 0
                    block += 1
        first[len(order)] = m
        if i:  # unused lanes take part in sums: keep them finite
            feature[block, :, i:] = _ZERO
            normal[block, :, i:] = _ZERO
        return m

    @njit(**OPTIONS)
    def shade(blocks, shading, eps, w1, b1, w2, b2, feature, normal, steep, rgb):
        """Turn gradients into normals (``steep``: 1 / their length), features into colours."""
        hidden = np.empty(LANES, np.float32)
        out = np.empty((3, LANES), np.float32)
        for block in range(blocks):
            nx, ny, nz, length = normal[block, 0], normal[block, 1], normal[block, 2], steep[block]
            for i in range(LANES):
                length[i] = _ONE / sqrt(nx[i] * nx[i] + ny[i] * ny[i] + nz[i] * nz[i] + eps)
            for c in range(3):
                for i in range(LANES):
                    normal[block, c, i] *= -steep[block, i]
            if shading == TEXTURELESS:
                rgb[block] = _ZERO
                continue
            for c in range(3):
                out[c] = b2[c]
            for h in range(w1.shape[0]):
                for i in range(LANES):
                    hidden[i] = b1[h]
                for f in range(w1.shape[1]):
                    for i in range(LANES):
                        hidden[i] += w1[h, f] * feature[block, f, i]
                for c in range(3):
                    for i in range(LANES):
                        out[c, i] += w2[c, h] * max(hidden[i], _ZERO)
            for c in range(3):
                for i in range(LANES):
                    rgb[block, c, i] = _ONE / (_ONE + exponential(-out[c, i]))

    @njit(**OPTIONS)
    def forward(
        order, kept, bounds, origins, directions, lights, near, offset, step, ambient, shading,
        table, sides, starts, model, w1, b1, w2, b2,
        first, place, slope, normal, steep, feature, rgb, weight, after,
        colour, opacity, depth, normal_sum, orientation,
    ):  # fmt: skip
        """March, look up, shade and composite the share's rays; what the backward kernel needs stays in the
        arrays from ``first`` to ``after``."""
        clay, eps = model[5], model[6]
        total = march(
            order, kept, bounds, origins, directions, near, offset, step, table, sides, starts, model,
            first, place, slope, normal, feature, after,
        )  # fmt: skip
        shade((total + LANES - 1) // LANES, shading, eps, w1, b1, w2, b2, feature, normal, steep, rgb)
        for j in range(len(order)):
            r = order[j]
            thick = _ZERO
            through = _ONE
            red = green = blue = far = nx = ny = nz = away = _ZERO
            dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
            lx, ly, lz = lights[r, 0], lights[r, 1], lights[r, 2]
            for m in range(first[j], first[j + 1]):
                n = m & INDEX
                block, i = n // LANES, n % LANES
                thick += after[n]
                left = exponential(-thick)
                w = through - left
                through = left
                weight[n], after[n] = w, left
                px, py, pz = normal[block, 0, i], normal[block, 1, i], normal[block, 2, i]
                lit = w
                if shading != ALBEDO:
                    lit = w * (ambient + (_ONE - ambient) * max(px * lx + py * ly + pz * lz, _ZERO))
                if shading == TEXTURELESS:
                    red += lit * clay
                else:
                    red += lit * rgb[block, 0, i]
                    green += lit * rgb[block, 1, i]
                    blue += lit * rgb[block, 2, i]
                back = max(px * dx + py * dy + pz * dz, _ZERO)
                far += w * place[n, 3]
                nx += w * px
                ny += w * py
                nz += w * pz
                away += w * back * back
            if shading == TEXTURELESS:
                green = blue = red
            colour[r, 0], colour[r, 1], colour[r, 2] = red, green, blue
            opacity[r], depth[r], orientation[r] = _ONE - through, far, away
            normal_sum[r, 0], normal_sum[r, 1], normal_sum[r, 2] = nx, ny, nz

    return forward
