"""The differentiable rasteriser's Numba kernels, for one view each. The mathematics and the names are those of
``scene/rasteriser.py``. Where a pixel's face is decided, numbers are double and nothing is reordered, so that both agree.

Gradients of c = v_j x v_k with upstream d: v_j gets v_k x d, v_k gets d x v_j.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import ceil, floor

import numpy as np

from .caching import njit

OPTIONS = {"nogil": True, "error_model": "numpy"}


@njit(inline="always", **OPTIONS)
def cross(a, b, out):
    """out = a x b."""
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@njit(inline="always", **OPTIONS)
def add_cross(a, b, out):
    """out += a x b."""
    out[0] += a[1] * b[2] - a[2] * b[1]
    out[1] += a[2] * b[0] - a[0] * b[2]
    out[2] += a[0] * b[1] - a[1] * b[0]


@njit(inline="always", **OPTIONS)
def load(clip, faces, f, v, c):
    """Corners v (3, 3) of a face and its edge functions c (3, 3), as doubles."""
    for i in range(3):
        for k in range(3):
            v[i, k] = clip[faces[f, i], k]
    cross(v[1], v[2], c[0])
    cross(v[2], v[0], c[1])
    cross(v[0], v[1], c[2])


@njit(inline="always", **OPTIONS)
def determinant(v, c):
    """v_0 . (v_1 x v_2)."""
    return v[0, 0] * c[0, 0] + v[0, 1] * c[0, 1] + v[0, 2] * c[0, 2]


@njit(**OPTIONS)
def rasterise(clip, faces, behind, face, weights, depth):
    """Fill face (H, W) with -1 or a face, and weights (H, W, 3). depth (H, W) double is scratch."""
    size = face.shape[0]
    v, c = np.empty((3, 3)), np.empty((3, 3))
    face[:] = -1
    weights[:] = 0
    depth[:] = np.inf
    for f in range(len(faces)):
        load(clip, faces, f, v, c)
        if min(v[0, 2], v[1, 2], v[2, 2]) <= behind:
            continue
        if determinant(v, c) < 0:  # seen from behind: all signs turned, which changes neither weights nor depths
            for i in range(3):
                for k in range(3):
                    c[i, k] = -c[i, k]
        x0, x1, x2 = v[0, 0] / v[0, 2], v[1, 0] / v[1, 2], v[2, 0] / v[2, 2]
        y0, y1, y2 = v[0, 1] / v[0, 2], v[1, 1] / v[1, 2], v[2, 1] / v[2, 2]
        left = max(0, ceil((min(x0, x1, x2) * 0.5 + 0.5) * size - 0.5))
        right = min(size - 1, floor((max(x0, x1, x2) * 0.5 + 0.5) * size - 0.5))
        top = max(0, ceil((max(y0, y1, y2) * -0.5 + 0.5) * size - 0.5))
        bottom = min(size - 1, floor((min(y0, y1, y2) * -0.5 + 0.5) * size - 0.5))
        for row in range(top, bottom + 1):
            y = -((2.0 * row + 1.0) / size - 1.0)
            b0, b1, b2 = c[0, 1] * y + c[0, 2], c[1, 1] * y + c[1, 2], c[2, 1] * y + c[2, 2]
            for column in range(left, right + 1):
                x = (2.0 * column + 1.0) / size - 1.0
                e0, e1, e2 = c[0, 0] * x + b0, c[1, 0] * x + b1, c[2, 0] * x + b2
                total = e0 + e1 + e2
                if min(e0, e1, e2) < 0 or total == 0:
                    continue
                w = (e0 * v[0, 2] + e1 * v[1, 2] + e2 * v[2, 2]) / total
                if w < depth[row, column]:
                    depth[row, column], face[row, column] = w, f
                    weights[row, column, 0] = e0 / total
                    weights[row, column, 1] = e1 / total
                    weights[row, column, 2] = e2 / total


@njit(inline="always", **OPTIONS)
def flush_edges(faces, f, v, d, out):
    """out (V, 3) += the gradients by the corners v of a face, of those d (3, 3) by its edge functions; d is left zero."""
    for i in range(3):
        j, m = (i + 1) % 3, (i + 2) % 3
        add_cross(v[m], d[i], out[faces[f, j]])
        add_cross(d[i], v[j], out[faces[f, m]])
    d[:] = 0


@njit(**OPTIONS)
def rasterise_backward(clip, faces, face, weights, upstream, out):
    """out (V, 3) += the gradient by clip, of upstream (H, W, 3) by the weights. Neighbouring pixels of a face are added up first."""
    size = face.shape[0]
    v, c, d = np.empty((3, 3)), np.empty((3, 3)), np.zeros((3, 3))
    last = -1
    for row in range(size):
        y = -((2.0 * row + 1.0) / size - 1.0)
        for column in range(size):
            f = face[row, column]
            if f < 0:
                continue
            if f != last:
                if last >= 0:
                    flush_edges(faces, last, v, d, out)
                load(clip, faces, f, v, c)
                last = f
            x = (2.0 * column + 1.0) / size - 1.0
            total = (
                (c[0, 0] + c[1, 0] + c[2, 0]) * x + (c[0, 1] + c[1, 1] + c[2, 1]) * y + (c[0, 2] + c[1, 2] + c[2, 2])
            )
            g0, g1, g2 = upstream[row, column, 0], upstream[row, column, 1], upstream[row, column, 2]
            mean = g0 * weights[row, column, 0] + g1 * weights[row, column, 1] + g2 * weights[row, column, 2]
            for i in range(3):
                share = (upstream[row, column, i] - mean) / total
                d[i, 0] += share * x
                d[i, 1] += share * y
                d[i, 2] += share
    if last >= 0:
        flush_edges(faces, last, v, d, out)


@njit(**OPTIONS)
def interpolate(values, faces, face, weights, out):
    """Fill out (H, W, C)."""
    size, channels = face.shape[0], values.shape[1]
    for row in range(size):
        for column in range(size):
            f = face[row, column]
            if f < 0:
                for k in range(channels):
                    out[row, column, k] = 0
                continue
            i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
            b0, b1, b2 = weights[row, column, 0], weights[row, column, 1], weights[row, column, 2]
            for k in range(channels):
                out[row, column, k] = b0 * values[i0, k] + b1 * values[i1, k] + b2 * values[i2, k]


@njit(**OPTIONS)
def interpolate_backward(values, faces, face, weights, upstream, d_values, d_weights):
    """d_values (V, C) += and d_weights (H, W, 3) = the gradients, of upstream (H, W, C)."""
    size, channels = face.shape[0], values.shape[1]
    part = np.zeros((3, channels), d_values.dtype)
    last = -1
    for row in range(size):
        for column in range(size):
            f = face[row, column]
            if f < 0:
                for i in range(3):
                    d_weights[row, column, i] = 0
                continue
            if f != last:
                if last >= 0:
                    flush_values(faces, last, part, d_values)
                last = f
            i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
            b0, b1, b2 = weights[row, column, 0], weights[row, column, 1], weights[row, column, 2]
            t0 = t1 = t2 = 0.0
            for k in range(channels):
                g = upstream[row, column, k]
                t0 += g * values[i0, k]
                t1 += g * values[i1, k]
                t2 += g * values[i2, k]
                part[0, k] += b0 * g
                part[1, k] += b1 * g
                part[2, k] += b2 * g
            d_weights[row, column, 0], d_weights[row, column, 1], d_weights[row, column, 2] = t0, t1, t2
    if last >= 0:
        flush_values(faces, last, part, d_values)


@njit(inline="always", **OPTIONS)
def flush_values(faces, f, part, out):
    """out (V, C) += a face's part (3, C), which is left zero."""
    for i in range(3):
        for k in range(part.shape[1]):
            out[faces[f, i], k] += part[i, k]
            part[i, k] = 0


@njit(**OPTIONS)
def depth_at(clip, faces, f, x, y, v, c):
    """w = det(v_0, v_1, v_2) / sum_i e_i(q) of a face at a pixel's centre, infinite for f = -1; v and c (3, 3) are scratch."""
    if f < 0:
        return np.inf
    load(clip, faces, f, v, c)
    total = top = 0.0
    for i in range(3):
        e = c[i, 0] * x + c[i, 1] * y + c[i, 2]
        total += e
        top += e * v[i, 2]
    return top / total


@njit(**OPTIONS)
def silhouette(start, goal, a, b, clip, faces, neighbours, steps, v, c, other_v, other_c):
    """The face and its edge that bounds the surface between q = a, on the face ``start``, and q = b, on ``goal``; (-1, 0) if
    there is none within ``steps`` faces. v to other_c (3, 3) are scratch."""
    f = start
    for _ in range(steps):
        load(clip, faces, f, v, c)
        facing = determinant(v, c)
        least, edge = np.inf, -1
        for i in range(3):
            at_a = c[i, 0] * a[0] + c[i, 1] * a[1] + c[i, 2]
            at_b = c[i, 0] * b[0] + c[i, 1] * b[1] + c[i, 2]
            if (at_a - at_b) * facing > 0:
                s = at_a / (at_a - at_b)
                if s < least:
                    least, edge = s, i
        if not least < 1:
            return -1, 0
        g = neighbours[f, edge]
        if g < 0:
            return f, edge
        load(clip, faces, g, other_v, other_c)
        if determinant(other_v, other_c) * facing <= 0:
            return f, edge
        if g == goal:
            return -1, 0
        f = g
    return -1, 0


@njit(**OPTIONS)
def antialias(picture, face, clip, faces, neighbours, steps, out, blends):
    """Add the blending to out (H, W, C), a copy of the picture. blends (N, 4) lists what was blended, for the way back: two
    pixels, the nearer first, and the edge's vertices. Returns their number."""
    size, channels = face.shape[0], picture.shape[2]
    v, c, ov, oc = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    a, b, e = np.ones(3), np.ones(3), np.empty(3)
    n = 0
    for row in range(size):
        for column in range(size):
            for down in range(2):
                r1, c1 = row + down, column + 1 - down
                if r1 >= size or c1 >= size or face[row, column] == face[r1, c1]:
                    continue
                ra, ca, rb, cb = row, column, r1, c1
                a[0], a[1] = (2.0 * ca + 1.0) / size - 1.0, -((2.0 * ra + 1.0) / size - 1.0)
                b[0], b[1] = (2.0 * cb + 1.0) / size - 1.0, -((2.0 * rb + 1.0) / size - 1.0)
                here = depth_at(clip, faces, face[row, column], a[0], a[1], v, c)
                if depth_at(clip, faces, face[r1, c1], b[0], b[1], v, c) < here:
                    ra, ca, rb, cb = r1, c1, row, column
                    for k in range(2):
                        a[k], b[k] = b[k], a[k]
                f, i = silhouette(face[ra, ca], face[rb, cb], a, b, clip, faces, neighbours, steps, v, c, ov, oc)
                if f < 0:
                    continue
                tail, head = faces[f, (i + 1) % 3], faces[f, (i + 2) % 3]
                for k in range(3):
                    ov[0, k], ov[1, k] = clip[tail, k], clip[head, k]
                cross(ov[0], ov[1], e)
                s = share(e, a, b)
                near = s < 0.5
                for k in range(channels):
                    gain = (s - 0.5) * (picture[ra, ca, k] - picture[rb, cb, k])
                    if near:
                        out[ra, ca, k] += gain
                    else:
                        out[rb, cb, k] += gain
                blends[n, 0], blends[n, 1] = ra * size + ca, rb * size + cb
                blends[n, 2], blends[n, 3] = tail, head
                n += 1
    return n


@njit(inline="always", **OPTIONS)
def share(e, a, b):
    """Where on the way from q = a to q = b the edge function e is 0, in [0, 1]."""
    at_a = e[0] * a[0] + e[1] * a[1] + e[2] * a[2]
    at_b = e[0] * b[0] + e[1] * b[1] + e[2] * b[2]
    return min(max(at_a / (at_a - at_b), 0.0), 1.0)


@njit(**OPTIONS)
def antialias_backward(picture, clip, blends, upstream, d_picture, d_clip):
    """d_picture (H * W, C), a copy of upstream (H * W, C), and d_clip (V, 3) get the blending's gradients; picture (H * W, C)."""
    size, channels = int(np.sqrt(len(picture)) + 0.5), picture.shape[1]
    a, b, d = np.ones(3), np.ones(3), np.empty(3)
    edge, e = np.empty((2, 3)), np.empty(3)
    for n in range(len(blends)):
        pa, pb, tail, head = blends[n, 0], blends[n, 1], blends[n, 2], blends[n, 3]
        a[0], a[1] = (2.0 * (pa % size) + 1.0) / size - 1.0, -((2.0 * (pa // size) + 1.0) / size - 1.0)
        b[0], b[1] = (2.0 * (pb % size) + 1.0) / size - 1.0, -((2.0 * (pb // size) + 1.0) / size - 1.0)
        for k in range(3):
            edge[0, k], edge[1, k] = clip[tail, k], clip[head, k]
        cross(edge[0], edge[1], e)
        at_a = e[0] * a[0] + e[1] * a[1] + e[2] * a[2]
        at_b = e[0] * b[0] + e[1] * b[1] + e[2] * b[2]
        s = at_a / (at_a - at_b)
        inside = s >= 0 and s <= 1
        s = min(max(s, 0.0), 1.0)
        to = pa if s < 0.5 else pb
        slope = 0.0
        for k in range(channels):
            g = upstream[to, k]
            slope += g * (picture[pa, k] - picture[pb, k])
            d_picture[pa, k] += (s - 0.5) * g
            d_picture[pb, k] -= (s - 0.5) * g
        if not inside:
            continue
        # s = at_a / (at_a - at_b), so ds = (at_a d(at_b) - at_b d(at_a)) / (at_a - at_b)^2
        slope /= (at_a - at_b) * (at_a - at_b)
        for k in range(3):
            d[k] = slope * (at_a * b[k] - at_b * a[k])
        add_cross(edge[1], d, d_clip[tail])
        add_cross(d, edge[0], d_clip[head])
