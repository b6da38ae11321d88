"""The fused renderer's backward kernel. Names and conventions as in ``grid_kernels.py``."""

# mypy: disable-error-code="no-untyped-def, assignment"
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .caching import njit
from .grid_kernels import ALBEDO, INDEX, LANES, OPTIONS, TEXTURELESS, corner

_F = np.float32
_ONE, _HALF, _ZERO = _F(1), _F(0.5), _F(0)


@lru_cache(maxsize=8)
def backward_kernel(features: int) -> Any:
    """The backward kernel for a number of features."""
    channels = features + 1

    @njit(**OPTIONS)
    def through_rays(
        order, directions, lights, ambient, shading, clay, first, place, slope, normal, steep, rgb, weight, after,
        d_colour, d_opacity, d_depth, d_normal, d_orientation, d_raw, d_gradient, d_logit,
    ):  # fmt: skip
        """From the gradients of the rays' sums to the gradients of each sample, from the last to the first."""
        for j in range(len(order)):
            r = order[j]
            behind = _ZERO  # sum of w_j G_j over the samples behind
            cr, cg, cb = d_colour[r, 0], d_colour[r, 1], d_colour[r, 2]
            ux, uy, uz = d_normal[r, 0], d_normal[r, 1], d_normal[r, 2]
            dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
            lx, ly, lz = lights[r, 0], lights[r, 1], lights[r, 2]
            d_solid, d_far, d_away = d_opacity[r], d_depth[r], d_orientation[r]
            for m in range(first[j + 1] - 1, first[j] - 1, -1):
                n = m & INDEX
                block, i = n // LANES, n % LANES
                w, inverse = weight[n], steep[block, i]
                px, py, pz = normal[block, 0, i], normal[block, 1, i], normal[block, 2, i]
                qx, qy, qz = w * ux, w * uy, w * uz
                red = green = blue = clay
                if shading != TEXTURELESS:
                    red, green, blue = rgb[block, 0, i], rgb[block, 1, i], rgb[block, 2, i]
                tinted = cr * red + cg * green + cb * blue
                lit = _ONE
                if shading != ALBEDO:
                    facing = px * lx + py * ly + pz * lz
                    lit = ambient + (_ONE - ambient) * max(facing, _ZERO)
                    pull = w * tinted * (_ONE - ambient) if facing > _ZERO else _ZERO
                    qx += pull * lx
                    qy += pull * ly
                    qz += pull * lz
                back = max(px * dx + py * dy + pz * dz, _ZERO)
                turn = _F(2) * w * d_away * back
                qx += turn * dx
                qy += turn * dy
                qz += turn * dz
                gain = tinted * lit + d_solid + d_far * place[n, 3] + d_away * back * back
                gain += ux * px + uy * py + uz * pz
                d_raw[n] = slope[n] * (after[n] * gain - behind)
                behind += w * gain
                along = px * qx + py * qy + pz * qz
                d_gradient[n, 0] = (px * along - qx) * inverse
                d_gradient[n, 1] = (py * along - qy) * inverse
                d_gradient[n, 2] = (pz * along - qz) * inverse
                if shading != TEXTURELESS:
                    d_logit[block, 0, i] = cr * w * lit * red * (_ONE - red)
                    d_logit[block, 1, i] = cg * w * lit * green * (_ONE - green)
                    d_logit[block, 2, i] = cb * w * lit * blue * (_ONE - blue)

    @njit(**OPTIONS)
    def through_head(feature, d_logit, w1, b1, w2, d_feature, hidden, d_hidden, d_w1, d_b1, d_w2, d_b2):
        """One block: feature, d_feature (inputs, LANES), d_logit (3, LANES); the weights' gradients are added up.

        Every loop writes one array or one sum; other loops would not become vector instructions."""
        inputs, wide = w1.shape[1], w1.shape[0]
        d_feature[:] = _ZERO
        for c in range(3):
            total_c = _ZERO
            for i in range(LANES):
                total_c += d_logit[c, i]
            d_b2[c] += total_c
        for h in range(wide):
            for i in range(LANES):
                hidden[i] = b1[h]
            for f in range(inputs):
                for i in range(LANES):
                    hidden[i] += w1[h, f] * feature[f, i]
            for i in range(LANES):
                pull = w2[0, h] * d_logit[0, i] + w2[1, h] * d_logit[1, i] + w2[2, h] * d_logit[2, i]
                d_hidden[i] = pull if hidden[i] > _ZERO else _ZERO
            for c in range(3):
                total_c = _ZERO
                for i in range(LANES):
                    total_c += d_logit[c, i] * max(hidden[i], _ZERO)
                d_w2[c, h] += total_c
            total_h = _ZERO
            for i in range(LANES):
                total_h += d_hidden[i]
            d_b1[h] += total_h
            for f in range(inputs):
                total_f = _ZERO
                for i in range(LANES):
                    total_f += d_hidden[i] * feature[f, i]
                d_w1[h, f] += total_f
            for f in range(inputs):
                for i in range(LANES):
                    d_feature[f, i] += w1[h, f] * d_hidden[i]

    @njit(**OPTIONS)
    def scatter(begin, end, shading, sides, starts, rows, place, d_raw, d_gradient, d_feature, d_table, dirty):
        """One block's samples, from ``begin`` to ``end``: add their gradients to the vertices around them."""
        for i in range(end - begin):
            m = (begin + i) & INDEX
            raw, gx, gy, gz = d_raw[m], d_gradient[m, 0], d_gradient[m, 1], d_gradient[m, 2]
            x, y, z = place[m, 0], place[m, 1], place[m, 2]
            for l in range(len(sides)):  # noqa: E741
                side = sides[l]
                ix, fx = corner(x, side)
                iy, fy = corner(y, side)
                iz, fz = corner(z, side)
                ez = _ONE - fz
                scale = _F(side - 1) * _HALF
                sx, sy, sz = gx * scale, gy * scale, gz * scale
                for ax in range(2):
                    wx, hx = (fx, sx) if ax else (_ONE - fx, -sx)
                    for ay in range(2):
                        wy, hy = (fy, sy) if ay else (_ONE - fy, -sy)
                        row = (ix + ax) * side + iy + ay
                        dirty[(rows[l] + row) & INDEX] = 1
                        b = ((starts[l] + row * side + iz) * channels) & INDEX
                        wxy = wx * wy
                        flat = raw * wxy + hx * wy + hy * wx
                        deep = sz * wxy
                        d_table[b] += flat * ez - deep
                        d_table[b + channels] += flat * fz + deep
                        if shading != TEXTURELESS:
                            low, high = wxy * ez, wxy * fz
                            for f in range(features):
                                d_table[b + f + 1] += low * d_feature[l * features + f, i]
                            for f in range(features):
                                d_table[b + channels + f + 1] += high * d_feature[l * features + f, i]

    @njit(**OPTIONS)
    def backward(
        order, directions, lights, ambient, shading, sides, starts, model, w1, b1, w2,
        first, place, slope, normal, steep, feature, rgb, weight, after,
        d_colour, d_opacity, d_depth, d_normal, d_orientation,
        d_table, dirty, rows, d_w1, d_b1, d_w2, d_b2,
    ):  # fmt: skip
        """Scatter the gradients of the share's rays into the flat d_table, noting in ``dirty`` which runs of
        ``side`` vertices along z were touched (``rows``: the levels' first rows), and add up those of the head."""
        total = first[len(order)]
        blocks = (total + LANES - 1) // LANES
        d_raw = np.empty(total, np.float32)
        d_gradient = np.empty((total, 3), np.float32)
        d_logit = np.empty((blocks, 3, LANES), np.float32)
        if blocks:
            d_logit[blocks - 1] = _ZERO  # unused lanes
        through_rays(
            order, directions, lights, ambient, shading, model[5], first, place, slope, normal, steep, rgb, weight, after,
            d_colour, d_opacity, d_depth, d_normal, d_orientation, d_raw, d_gradient, d_logit,
        )  # fmt: skip
        d_feature = np.zeros((w1.shape[1], LANES), np.float32)
        hidden, d_hidden = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
        d_w1[:], d_b1[:], d_w2[:], d_b2[:] = _ZERO, _ZERO, _ZERO, _ZERO
        for block in range(blocks):
            if shading != TEXTURELESS:
                through_head(
                    feature[block], d_logit[block], w1, b1, w2, d_feature, hidden, d_hidden, d_w1, d_b1, d_w2, d_b2
                )
            begin = block * LANES
            end = min(begin + LANES, total)
            scatter(begin, end, shading, sides, starts, rows, place, d_raw, d_gradient, d_feature, d_table, dirty)

    return backward
