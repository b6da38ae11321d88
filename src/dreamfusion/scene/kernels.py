"""Numba kernels of the fused renderer (``fused.py``); the mathematics is in ``volume.py``, ``grid.py``, ``field.py``.

Each kernel runs on one thread over a fixed share of the rays, so that several run side by side without the GIL.
Names: r a ray, j its place in the share, m a kept sample, l a level, f a feature, h a hidden unit, i a lane.
Per-sample numbers of the colour head lie in blocks of ``LANES`` samples, lane last, so that its loops become vector
instructions. The model's constants come as an argument (``fused.MODEL``): compiled code is kept on disk and would not
notice a change. ``fastmath`` allows only what changes rounding (contraction, reordering): not-a-number and infinity
keep their meaning.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
from __future__ import annotations

from functools import lru_cache
from math import exp, expm1, floor, log1p, sqrt
from typing import Any

import numpy as np
from numba import njit

LANES = 64
ALBEDO, LAMBERTIAN, TEXTURELESS = 0, 1, 2
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}
_F = np.float32
_ONE, _HALF, _ZERO = _F(1), _F(0.5), _F(0)


@njit(**OPTIONS)
def candidates(order, origins, directions, near, far, offset, step, cells, kept, bounds):
    """List the samples in occupied cells: for the share's ray j, kept[bounds[j]:bounds[j + 1]] are their numbers."""
    side = cells.shape[0]
    half = _F(side) * _HALF
    n = 0
    bounds[0] = 0
    for j in range(len(order)):
        r = order[j]
        start, end, u = near[r], far[r], offset[r]
        ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        k = 0
        t = start + u * step
        while t < end:
            x = min(max(int((ox + t * dx + _ONE) * half), 0), side - 1)
            y = min(max(int((oy + t * dy + _ONE) * half), 0), side - 1)
            z = min(max(int((oz + t * dz + _ONE) * half), 0), side - 1)
            if cells[x, y, z]:
                kept[n] = k
                n += 1
            k += 1
            t = start + (_F(k) + u) * step
        bounds[j + 1] = n
    return n


@njit(inline="always", **OPTIONS)
def _corner(p, side):
    """Lower vertex and fraction of a coordinate in [-1, 1] on a grid of ``side`` vertices."""
    q = (p + _ONE) * (_F(side - 1) * _HALF)
    low = min(max(int(floor(q)), 0), side - 2)  # noqa: RUF046 - the compiled floor gives a float
    return low, q - _F(low)


@njit(**OPTIONS)
def density(points, table, sides, starts, model, out):
    """Density (P,) at points (P, 3), zero outside the unit sphere; ``model`` as in ``fused.MODEL``."""
    bump, narrow, scale, sharp, shift = model[0], model[1], model[2], model[3], model[4]
    for p in range(len(points)):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        squared = x * x + y * y + z * z
        out[p] = _ZERO
        if squared < _ONE:
            raw = bump * exp(-squared * narrow)
            for l in range(len(sides)):  # noqa: E741
                side = sides[l]
                ix, fx = _corner(x, side)
                iy, fy = _corner(y, side)
                iz, fz = _corner(z, side)
                b = starts[l] + (ix * side + iy) * side + iz
                plane = side * side
                v00 = table[b, 0] + (table[b + 1, 0] - table[b, 0]) * fz
                v01 = table[b + side, 0] + (table[b + side + 1, 0] - table[b + side, 0]) * fz
                c = b + plane
                v10 = table[c, 0] + (table[c + 1, 0] - table[c, 0]) * fz
                v11 = table[c + side, 0] + (table[c + side + 1, 0] - table[c + side, 0]) * fz
                v0 = v00 + (v01 - v00) * fy
                v1 = v10 + (v11 - v10) * fy
                raw += v0 + (v1 - v0) * fx
            a = sharp * raw - shift
            out[p] = scale * (max(a, _ZERO) + log1p(exp(-abs(a))))


@lru_cache(maxsize=8)
def forward_kernel(features: int) -> Any:
    """The forward kernel for a number of features (a constant there, so that loops over channels unroll)."""

    @njit(**OPTIONS)
    def forward(
        order, kept, bounds, origins, directions, lights, near, offset, step, ambient, shading,
        table, sides, starts, model, w1, b1, w2, b2,
        first, place, slope, optical, gradient, feature, rgb, weight, after,
        colour, opacity, depth, normal_sum, orientation,
    ):  # fmt: skip
        """March, look up, shade and composite the share's rays; what the backward kernel needs is left in the
        arrays from ``first`` to ``after``."""
        height, narrow, sharp, shift = model[0], model[1], model[3], model[4]
        clay, eps, thickest = model[5], model[6], model[7]
        most = step * model[2]  # optical thickness of a sample per unit of softplus
        m = 0
        for j in range(len(order)):
            r = order[j]
            first[j] = m
            thick = _ZERO
            for q in range(bounds[j], bounds[j + 1]):
                if thick > thickest:
                    break
                t = near[r] + (_F(kept[q]) + offset[r]) * step
                x = origins[r, 0] + t * directions[r, 0]
                y = origins[r, 1] + t * directions[r, 1]
                z = origins[r, 2] + t * directions[r, 2]
                bump = height * exp(-(x * x + y * y + z * z) * narrow)
                pull = -_F(2) * narrow * bump
                raw, gx, gy, gz = bump, pull * x, pull * y, pull * z
                block, i = m // LANES, m % LANES
                for l in range(len(sides)):  # noqa: E741
                    side = sides[l]
                    ix, fx = _corner(x, side)
                    iy, fy = _corner(y, side)
                    iz, fz = _corner(z, side)
                    b000 = starts[l] + (ix * side + iy) * side + iz
                    b010 = b000 + side
                    b100 = b000 + side * side
                    b110 = b100 + side
                    ex, ey, ez = _ONE - fx, _ONE - fy, _ONE - fz
                    w00, w01, w10, w11 = ex * ey, ex * fy, fx * ey, fx * fy
                    a00, a01 = table[b000, 0], table[b000 + 1, 0]
                    a10, a11 = table[b010, 0], table[b010 + 1, 0]
                    c00, c01 = table[b100, 0], table[b100 + 1, 0]
                    c10, c11 = table[b110, 0], table[b110 + 1, 0]
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
                        feature[block, l * features + f, i] = (
                            w00 * (table[b000, f + 1] * ez + table[b000 + 1, f + 1] * fz)
                            + w01 * (table[b010, f + 1] * ez + table[b010 + 1, f + 1] * fz)
                            + w10 * (table[b100, f + 1] * ez + table[b100 + 1, f + 1] * fz)
                            + w11 * (table[b110, f + 1] * ez + table[b110 + 1, f + 1] * fz)
                        )
                a = sharp * raw - shift
                e = exp(-abs(a))
                logistic = (_ONE if a >= _ZERO else e) / (_ONE + e)
                place[m, 0], place[m, 1], place[m, 2], place[m, 3] = x, y, z, t
                slope[m] = most * sharp * logistic
                optical[m] = most * (max(a, _ZERO) + log1p(e))
                gradient[m, 0], gradient[m, 1], gradient[m, 2] = gx, gy, gz
                thick += optical[m]
                m += 1
        first[len(order)] = m
        blocks = (m + LANES - 1) // LANES
        for rest in range(m, blocks * LANES):  # unused lanes take part in sums: keep them finite
            feature[rest // LANES, :, rest % LANES] = _ZERO
            rgb[rest // LANES, :, rest % LANES] = _ZERO

        if shading != TEXTURELESS:
            hidden = np.empty(LANES, np.float32)
            out = np.empty((3, LANES), np.float32)
            for block in range(blocks):
                for c in range(3):
                    for i in range(LANES):
                        out[c, i] = b2[c]
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
                        rgb[block, c, i] = _ONE / (_ONE + exp(-out[c, i]))

        for j in range(len(order)):
            r = order[j]
            thick = _ZERO
            through = _ONE
            red = green = blue = solid = far = nx = ny = nz = away = _ZERO
            for m in range(first[j], first[j + 1]):
                thick += optical[m]
                left = exp(-thick)
                w = -through * expm1(-optical[m])
                through = left
                weight[m], after[m] = w, left
                gx, gy, gz = gradient[m, 0], gradient[m, 1], gradient[m, 2]
                inverse = -_ONE / sqrt(gx * gx + gy * gy + gz * gz + eps)
                px, py, pz = gx * inverse, gy * inverse, gz * inverse
                lit = _ONE
                if shading != ALBEDO:
                    lit = ambient + (_ONE - ambient) * max(
                        px * lights[r, 0] + py * lights[r, 1] + pz * lights[r, 2], _ZERO
                    )
                block, i = m // LANES, m % LANES
                if shading == TEXTURELESS:
                    red += w * lit * clay
                    green += w * lit * clay
                    blue += w * lit * clay
                else:
                    red += w * lit * rgb[block, 0, i]
                    green += w * lit * rgb[block, 1, i]
                    blue += w * lit * rgb[block, 2, i]
                back = max(px * directions[r, 0] + py * directions[r, 1] + pz * directions[r, 2], _ZERO)
                solid += w
                far += w * place[m, 3]
                nx += w * px
                ny += w * py
                nz += w * pz
                away += w * back * back
            colour[r, 0], colour[r, 1], colour[r, 2] = red, green, blue
            opacity[r], depth[r], orientation[r] = solid, far, away
            normal_sum[r, 0], normal_sum[r, 1], normal_sum[r, 2] = nx, ny, nz

    return forward


@lru_cache(maxsize=8)
def backward_kernel(features: int) -> Any:
    """The backward kernel for a number of features."""

    @njit(**OPTIONS)
    def backward(
        order, directions, lights, ambient, shading, sides, starts, model, w1, b1, w2,
        first, place, slope, gradient, feature, rgb, weight, after,
        d_colour, d_opacity, d_depth, d_normal, d_orientation,
        d_table, dirty, rows, d_w1, d_b1, d_w2, d_b2,
    ):  # fmt: skip
        """Scatter the gradients of the share's rays into d_table (V, channels), noting in ``dirty`` which runs of
        ``side`` vertices along z were touched (``rows``: the levels' first rows), and add up those of the head."""
        clay, eps = model[5], model[6]
        total = first[len(order)]
        blocks = (total + LANES - 1) // LANES
        d_raw = np.zeros(blocks * LANES, np.float32)
        d_gradient = np.zeros((blocks * LANES, 3), np.float32)
        d_logit = np.zeros((blocks, 3, LANES), np.float32)
        for j in range(len(order)):
            r = order[j]
            behind = _ZERO  # sum of w_j G_j over the samples behind
            cr, cg, cb = d_colour[r, 0], d_colour[r, 1], d_colour[r, 2]
            for m in range(first[j + 1] - 1, first[j] - 1, -1):
                block, i = m // LANES, m % LANES
                w = weight[m]
                gx, gy, gz = gradient[m, 0], gradient[m, 1], gradient[m, 2]
                inverse = _ONE / sqrt(gx * gx + gy * gy + gz * gz + eps)
                px, py, pz = -gx * inverse, -gy * inverse, -gz * inverse
                qx, qy, qz = w * d_normal[r, 0], w * d_normal[r, 1], w * d_normal[r, 2]
                red = green = blue = clay
                if shading != TEXTURELESS:
                    red, green, blue = rgb[block, 0, i], rgb[block, 1, i], rgb[block, 2, i]
                tinted = cr * red + cg * green + cb * blue
                lit = _ONE
                if shading != ALBEDO:
                    facing = px * lights[r, 0] + py * lights[r, 1] + pz * lights[r, 2]
                    lit = ambient + (_ONE - ambient) * max(facing, _ZERO)
                    if facing > _ZERO:
                        pull = w * tinted * (_ONE - ambient)
                        qx += pull * lights[r, 0]
                        qy += pull * lights[r, 1]
                        qz += pull * lights[r, 2]
                back = max(px * directions[r, 0] + py * directions[r, 1] + pz * directions[r, 2], _ZERO)
                turn = _F(2) * w * d_orientation[r] * back
                qx += turn * directions[r, 0]
                qy += turn * directions[r, 1]
                qz += turn * directions[r, 2]
                gain = tinted * lit + d_opacity[r] + d_depth[r] * place[m, 3] + d_orientation[r] * back * back
                gain += d_normal[r, 0] * px + d_normal[r, 1] * py + d_normal[r, 2] * pz
                d_raw[m] = slope[m] * (after[m] * gain - behind)
                behind += w * gain
                along = px * qx + py * qy + pz * qz
                d_gradient[m, 0] = (px * along - qx) * inverse
                d_gradient[m, 1] = (py * along - qy) * inverse
                d_gradient[m, 2] = (pz * along - qz) * inverse
                if shading != TEXTURELESS:
                    d_logit[block, 0, i] = cr * w * lit * red * (_ONE - red)
                    d_logit[block, 1, i] = cg * w * lit * green * (_ONE - green)
                    d_logit[block, 2, i] = cb * w * lit * blue * (_ONE - blue)

        inputs, wide = w1.shape[1], w1.shape[0]
        hidden = np.empty(LANES, np.float32)
        d_hidden = np.empty(LANES, np.float32)
        d_feature = np.zeros((inputs, LANES), np.float32)
        d_w1[:], d_b1[:], d_w2[:], d_b2[:] = _ZERO, _ZERO, _ZERO, _ZERO
        for block in range(blocks):
            if shading != TEXTURELESS:
                d_feature[:] = _ZERO
                for c in range(3):
                    total_c = _ZERO
                    for i in range(LANES):
                        total_c += d_logit[block, c, i]
                    d_b2[c] += total_c
                for h in range(wide):  # every loop writes one array or one sum: others would not become vectors
                    for i in range(LANES):
                        hidden[i] = b1[h]
                    for f in range(inputs):
                        for i in range(LANES):
                            hidden[i] += w1[h, f] * feature[block, f, i]
                    for i in range(LANES):
                        pull = w2[0, h] * d_logit[block, 0, i] + w2[1, h] * d_logit[block, 1, i]
                        pull += w2[2, h] * d_logit[block, 2, i]
                        d_hidden[i] = pull if hidden[i] > _ZERO else _ZERO
                    for c in range(3):
                        total_c = _ZERO
                        for i in range(LANES):
                            total_c += d_logit[block, c, i] * max(hidden[i], _ZERO)
                        d_w2[c, h] += total_c
                    total_h = _ZERO
                    for i in range(LANES):
                        total_h += d_hidden[i]
                    d_b1[h] += total_h
                    for f in range(inputs):
                        total_f = _ZERO
                        for i in range(LANES):
                            total_f += d_hidden[i] * feature[block, f, i]
                        d_w1[h, f] += total_f
                    for f in range(inputs):
                        for i in range(LANES):
                            d_feature[f, i] += w1[h, f] * d_hidden[i]

            for m in range(block * LANES, min(block * LANES + LANES, total)):
                i = m - block * LANES
                raw, gx, gy, gz = d_raw[m], d_gradient[m, 0], d_gradient[m, 1], d_gradient[m, 2]
                x, y, z = place[m, 0], place[m, 1], place[m, 2]
                for l in range(len(sides)):  # noqa: E741
                    side = sides[l]
                    ix, fx = _corner(x, side)
                    iy, fy = _corner(y, side)
                    iz, fz = _corner(z, side)
                    scale = _F(side - 1) * _HALF
                    sx, sy, sz = gx * scale, gy * scale, gz * scale
                    for ax in range(2):
                        wx, hx = (fx, sx) if ax else (_ONE - fx, -sx)
                        for ay in range(2):
                            wy, hy = (fy, sy) if ay else (_ONE - fy, -sy)
                            row = (ix + ax) * side + iy + ay
                            dirty[rows[l] + row] = 1
                            b = starts[l] + row * side + iz
                            wxy = wx * wy
                            flat = raw * wxy + hx * wy + hy * wx
                            deep = sz * wxy
                            ez = _ONE - fz
                            d_table[b, 0] += flat * ez - deep
                            d_table[b + 1, 0] += flat * fz + deep
                            if shading != TEXTURELESS:
                                for f in range(features):
                                    d_table[b, f + 1] += wxy * ez * d_feature[l * features + f, i]
                                for f in range(features):
                                    d_table[b + 1, f + 1] += wxy * fz * d_feature[l * features + f, i]

    return backward


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
