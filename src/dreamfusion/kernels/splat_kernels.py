"""Numba kernels that draw 3D Gaussians, for one view each. The mathematics and the names are those of ``scene/splatting.py``.

Sums are double, and gradients are added up in the order of the pixels, so that runs repeat bit by bit.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp, floor, log, sqrt

import numpy as np

from .caching import njit

OPTIONS = {"nogil": True, "error_model": "numpy"}
TILE = 8  # pixels per side of what is drawn with one list of splats


@njit(inline="always", **OPTIONS)
def camera_place(centre, axes, position, out):
    """out = (x, y, w) of a centre along right, up and forward."""
    for i in range(3):
        out[i] = 0.0
        for k in range(3):
            out[i] += axes[i, k] * (np.float64(centre[k]) - position[k])


@njit(inline="always", **OPTIONS)
def times(cov, v, out):
    """out = the symmetric matrix (xx, xy, xz, yy, yz, zz) times v."""
    out[0] = cov[0] * v[0] + cov[1] * v[1] + cov[2] * v[2]
    out[1] = cov[1] * v[0] + cov[3] * v[1] + cov[4] * v[2]
    out[2] = cov[2] * v[0] + cov[4] * v[1] + cov[5] * v[2]


@njit(inline="always", **OPTIONS)
def dot(a, b):
    """a . b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(inline="always", **OPTIONS)
def outside(p, focal, size, near, margin):
    """Whether a splat at p = (x, y, w) is left out."""
    edge = margin * size / 2 * p[2]
    return p[2] <= near or focal * abs(p[0]) > edge or focal * abs(p[1]) > edge


@njit(inline="always", **OPTIONS)
def jacobian(p, axes, focal, t0, t1):
    """Rows t0 and t1 of the derivative of a pixel's x and y by the centre."""
    f = focal / p[2]
    for k in range(3):
        t0[k] = f * (axes[0, k] - p[0] / p[2] * axes[2, k])
        t1[k] = f * (p[1] / p[2] * axes[2, k] - axes[1, k])


@njit(**OPTIONS)
def project(centres, covs, axes, position, focal, size, limits, place, conic, kept):
    """Fill place (N, 2), conic (N, 3) and kept (N,). limits: near, margin, blur, thinnest."""
    near, margin, blur, thinnest = limits
    p, t0, t1, s0, s1 = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for n in range(len(centres)):
        camera_place(centres[n], axes, position, p)
        if outside(p, focal, size, near, margin):
            place[n, 0] = place[n, 1] = size / 2
            conic[n, 0] = conic[n, 2] = 1
            conic[n, 1] = kept[n] = 0
            continue
        jacobian(p, axes, focal, t0, t1)
        times(covs[n], t0, s0)
        times(covs[n], t1, s1)
        xx, xy, yy = dot(t0, s0), dot(t0, s1), dot(t1, s1)
        a, c = xx + blur, yy + blur
        area = a * c - xy * xy
        place[n, 0] = size / 2 + focal * p[0] / p[2]
        place[n, 1] = size / 2 - focal * p[1] / p[2]
        conic[n, 0], conic[n, 1], conic[n, 2] = c / area, -xy / area, a / area
        kept[n] = sqrt(max((xx * yy - xy * xy) / area, thinnest))


@njit(**OPTIONS)
def project_backward(
    centres, covs, axes, position, focal, size, limits, d_place, d_conic, d_kept, d_centres, d_covs
):  # fmt: skip
    """d_centres (N, 3) and d_covs (N, 6) += the gradients of one view."""
    near, margin, blur, thinnest = limits
    p, t0, t1, s0, s1 = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for n in range(len(centres)):
        camera_place(centres[n], axes, position, p)
        if outside(p, focal, size, near, margin):
            continue
        jacobian(p, axes, focal, t0, t1)
        times(covs[n], t0, s0)
        times(covs[n], t1, s1)
        xx, b, yy = dot(t0, s0), dot(t0, s1), dot(t1, s1)
        a, c = xx + blur, yy + blur
        area = a * c - b * b
        square = area * area
        gp, gq, gr = d_conic[n, 0], d_conic[n, 1], d_conic[n, 2]
        ga = (-gp * c * c + gq * b * c - gr * b * b) / square
        gc = (-gp * b * b + gq * a * b - gr * a * a) / square
        gb = (2 * gp * b * c - gq * (area + 2 * b * b) + 2 * gr * a * b) / square
        bare = xx * yy - b * b
        if bare / area > thinnest:
            g = d_kept[n] * sqrt(bare / area) / 2
            ga += g * (yy / bare - c / area)
            gc += g * (xx / bare - a / area)
            gb += g * (2 * b / area - 2 * b / bare)
        d_covs[n, 0] += ga * t0[0] * t0[0] + gb * t0[0] * t1[0] + gc * t1[0] * t1[0]
        d_covs[n, 3] += ga * t0[1] * t0[1] + gb * t0[1] * t1[1] + gc * t1[1] * t1[1]
        d_covs[n, 5] += ga * t0[2] * t0[2] + gb * t0[2] * t1[2] + gc * t1[2] * t1[2]
        for i, j, at in ((0, 1, 1), (0, 2, 2), (1, 2, 4)):
            d_covs[n, at] += 2 * ga * t0[i] * t0[j] + gb * (t0[i] * t1[j] + t0[j] * t1[i]) + 2 * gc * t1[i] * t1[j]
        # gradients by the rows of the Jacobian, and of those by x, y and w
        f, x, y = focal / p[2], p[0] / p[2], p[1] / p[2]
        along0 = along1 = side0 = side1 = 0.0
        for k in range(3):
            g0, g1 = 2 * ga * s0[k] + gb * s1[k], gb * s0[k] + 2 * gc * s1[k]
            along0 += g0 * axes[2, k]
            along1 += g1 * axes[2, k]
            side0 += g0 * axes[0, k]
            side1 += g1 * axes[1, k]
        gu, gv = d_place[n, 0], d_place[n, 1]
        gx = f * gu - f / p[2] * along0
        gy = -f * gv + f / p[2] * along1
        gw = -f * (gu * x - gv * y) + f / p[2] * (2 * x * along0 - side0 + side1 - 2 * y * along1)
        for k in range(3):
            d_centres[n, k] += gx * axes[0, k] + gy * axes[1, k] + gw * axes[2, k]


@njit(**OPTIONS)
def tile_lists(place, conic, opacity, order, size, faint, bound):
    """Fill bound (N,) with the largest q that counts. Returns starts (tiles + 1,) and the splats of each tile, in order."""
    side = (size + TILE - 1) // TILE
    box = np.empty((len(order), 4), np.int32)
    starts = np.zeros(side * side + 1, np.int64)
    for n in range(len(order)):
        box[n, 1] = -1
        box[n, 0] = 0
        bound[n] = 2 * log(opacity[n] / faint) if opacity[n] > 0 else -1.0
        if not bound[n] >= 0:
            continue
        a, b, c = np.float64(conic[n, 0]), np.float64(conic[n, 1]), np.float64(conic[n, 2])
        area = a * c - b * b
        wide, high = sqrt(bound[n] * c / area) + 1e-3, sqrt(bound[n] * a / area) + 1e-3
        box[n, 0] = max(0, floor((place[n, 0] - wide - 0.5) / TILE))
        box[n, 1] = min(side - 1, floor((place[n, 0] + wide - 0.5) / TILE))
        box[n, 2] = max(0, floor((place[n, 1] - high - 0.5) / TILE))
        box[n, 3] = min(side - 1, floor((place[n, 1] + high - 0.5) / TILE))
        if box[n, 0] > box[n, 1]:
            continue
        for row in range(box[n, 2], box[n, 3] + 1):
            for column in range(box[n, 0], box[n, 1] + 1):
                starts[row * side + column + 1] += 1
    for tile in range(side * side):
        starts[tile + 1] += starts[tile]
    ends = starts[:-1].copy()
    lists = np.empty(starts[-1], np.int64)
    for n in order:
        if box[n, 0] > box[n, 1]:
            continue
        for row in range(box[n, 2], box[n, 3] + 1):
            for column in range(box[n, 0], box[n, 1] + 1):
                tile = row * side + column
                lists[ends[tile]] = n
                ends[tile] += 1
    return starts, lists


@njit(**OPTIONS)
def composite(place, conic, opacity, features, starts, lists, bound, limits, out, left, last):
    """Fill out (S, S, C + 1); left (S, S), the transmittance at the end, and last (S, S), the end of what was looked at in the
    tile's list, are for the way back. limits: most, opaque."""
    most, opaque = limits
    size, channels = out.shape[0], features.shape[1]
    side = (size + TILE - 1) // TILE
    total = np.empty(channels)
    for tile in range(side * side):
        top, start = tile // side * TILE, tile % side * TILE
        for row in range(top, min(top + TILE, size)):
            for column in range(start, min(start + TILE, size)):
                t = 1.0
                total[:] = 0
                end = starts[tile + 1]
                for k in range(starts[tile], starts[tile + 1]):
                    n = lists[k]
                    dx, dy = column + 0.5 - place[n, 0], row + 0.5 - place[n, 1]
                    q = conic[n, 0] * dx * dx + 2 * conic[n, 1] * dx * dy + conic[n, 2] * dy * dy
                    if q > bound[n]:
                        continue
                    share = min(opacity[n] * exp(-q / 2), most)
                    for i in range(channels):
                        total[i] += t * share * features[n, i]
                    t *= 1 - share
                    if t < opaque:
                        end = k + 1
                        break
                for i in range(channels):
                    out[row, column, i] = total[i]
                out[row, column, channels] = 1 - t
                left[row, column], last[row, column] = t, end


@njit(**OPTIONS)
def composite_backward(
    place, conic, opacity, features, starts, lists, bound, limits, left, last, upstream,
    d_place, d_conic, d_opacity, d_features,
):  # fmt: skip
    """d_place (N, 2), d_conic (N, 3), d_opacity (N,) and d_features (N, C) += the gradients, of upstream (S, S, C + 1)."""
    most, _ = limits
    size, channels = upstream.shape[0], features.shape[1]
    side = (size + TILE - 1) // TILE
    for tile in range(side * side):
        top, start = tile // side * TILE, tile % side * TILE
        for row in range(top, min(top + TILE, size)):
            for column in range(start, min(start + TILE, size)):
                t, behind = left[row, column], 0.0
                for k in range(last[row, column] - 1, starts[tile] - 1, -1):
                    n = lists[k]
                    dx, dy = column + 0.5 - place[n, 0], row + 0.5 - place[n, 1]
                    a, b, c = conic[n, 0], conic[n, 1], conic[n, 2]
                    q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
                    if q > bound[n]:
                        continue
                    fall = exp(-q / 2)
                    share = min(opacity[n] * fall, most)
                    t /= 1 - share  # now in front of this splat
                    value = np.float64(upstream[row, column, channels])
                    for i in range(channels):
                        value += upstream[row, column, i] * features[n, i]
                        d_features[n, i] += t * share * upstream[row, column, i]
                    d_share = t * value - behind / (1 - share)
                    behind += t * share * value
                    if opacity[n] * fall >= most:
                        continue
                    d_opacity[n] += d_share * fall
                    d_q = -d_share * share / 2
                    d_place[n, 0] -= 2 * d_q * (a * dx + b * dy)
                    d_place[n, 1] -= 2 * d_q * (b * dx + c * dy)
                    d_conic[n, 0] += d_q * dx * dx
                    d_conic[n, 1] += 2 * d_q * dx * dy
                    d_conic[n, 2] += d_q * dy * dy
