"""What the fast MLP does between its matrix products: one row of ``wide`` numbers for each point.

Names, for a layer x' = x + W silu(h) + b with h = gain z + bias, z = (x - mean x) rho, rho = 1 / sqrt(var x + eps):
a = silu(h); s1, s2 the first and second derivative of silu. g = d raw / d x, u = g' W. A dot (``xd``, ``ad``) is a
derivative along the direction in which the gradient of raw is wanted. Y and X are the loss's derivatives by x' and x.
J v = rho (v - mean v - z mean(v z)) is the layer norm's own derivative, which is symmetric.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
from __future__ import annotations

import math
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from .caching import njit
from .grid_kernels import OPTIONS, exponential

EPS = 1e-5  # of torch's layer norm


def exp(x):
    """exp(x): a library's in double precision, the one that becomes vector instructions in single precision.

    A function of the module, chosen by type: kernels that close over a compiled function are compiled anew in every
    process, whatever is kept on disk."""
    return math.exp(x)


@overload(exp, jit_options={"fastmath": OPTIONS["fastmath"], "error_model": "numpy"})
def _exp(x):
    if x == types.float32:
        return lambda x: exponential(x)
    return lambda x: math.exp(x)


@lru_cache(maxsize=2)
def row_kernels(dtype: Any) -> SimpleNamespace:
    """The kernels for float32 or float64. Every argument that is an array is contiguous; C = points of a chunk."""
    F = np.dtype(dtype).type
    one, two, zero, eps = F(1), F(2), F(0), F(EPS)

    @njit(**OPTIONS)
    def encode(mean, variance, octaves, out):
        """Integrated encoding (C, 6 octaves) as in ``mlp.integrated_encoding``; octaves by doubling, in float64."""
        half = 3 * octaves
        for p in range(len(mean)):
            for d in range(3):
                s, c = math.sin(np.float64(mean[p, d])), math.cos(np.float64(mean[p, d]))
                fade = math.exp(-0.5 * np.float64(variance[p, d]))
                for o in range(octaves):
                    out[p, 3 * o + d] = F(fade * s)
                    out[p, half + 3 * o + d] = F(fade * c)
                    s, c = 2 * s * c, 1 - 2 * s * s
                    fade *= fade
                    fade *= fade

    @njit(**OPTIONS)
    def encode_along(code, direction, octaves, out):
        """Derivative of the encoding along direction (C, 3): d sin = scale cos, d cos = -scale sin."""
        half = 3 * octaves
        for p in range(len(code)):
            scale = one
            for o in range(octaves):
                for d in range(3):
                    i = 3 * o + d
                    out[p, i] = scale * direction[p, d] * code[p, half + i]
                    out[p, half + i] = -scale * direction[p, d] * code[p, i]
                scale *= two

    @njit(**OPTIONS)
    def by_point(code, pull, octaves, out):
        """The transpose of ``encode_along``: pull (C, 6 octaves) by code becomes out (C, 3) by point."""
        half = 3 * octaves
        for p in range(len(code)):
            for d in range(3):
                total, scale = zero, one
                for o in range(octaves):
                    i = 3 * o + d
                    total += scale * (pull[p, i] * code[p, half + i] - pull[p, half + i] * code[p, i])
                    scale *= two
                out[p, d] = total

    @njit(**OPTIONS)
    def activate(x, before, gain, bias, z, rho, a):
        """x += before (the last product's bias); z, rho (C,), a of the layer."""
        wide = x.shape[1]
        share = one / F(wide)
        for p in range(len(x)):
            total = zero
            for j in range(wide):
                x[p, j] += before[j]
                total += x[p, j]
            mean = total * share
            square = zero
            for j in range(wide):
                square += (x[p, j] - mean) * (x[p, j] - mean)
            r = one / math.sqrt(square * share + eps)
            rho[p] = r
            for j in range(wide):
                n = (x[p, j] - mean) * r
                z[p, j] = n
                h = gain[j] * n + bias[j]
                a[p, j] = h / (one + exp(-h))

    @njit(**OPTIONS)
    def read_out(x, before, weight, bias, out, g):
        """x += before; out (C, outputs) = weight silu(x) + bias; g = d out[0] / d x, where g is not empty."""
        wide = x.shape[1]
        a = np.empty(wide, F)
        for p in range(len(x)):
            if len(g):
                for j in range(wide):
                    v = x[p, j] + before[j]
                    s = one / (one + exp(-v))
                    x[p, j] = v
                    a[j] = v * s
                    g[p, j] = s * (one + v * (one - s)) * weight[0, j]
            else:
                for j in range(wide):
                    v = x[p, j] + before[j]
                    x[p, j] = v
                    a[j] = v / (one + exp(-v))
            for c in range(len(weight)):
                total = bias[c]
                for j in range(wide):
                    total += weight[c, j] * a[j]
                out[p, c] = total

    @njit(**OPTIONS)
    def gradient(g, u, z, rho, gain, bias):
        """g += J v with v = gain s1 u: from the derivative by x' to that by x, in place."""
        wide = g.shape[1]
        share = one / F(wide)
        v = np.empty(wide, F)
        for p in range(len(g)):
            total, along = zero, zero
            for j in range(wide):
                h = gain[j] * z[p, j] + bias[j]
                s = one / (one + exp(-h))
                w = gain[j] * s * (one + h * (one - s)) * u[p, j]
                v[j] = w
                total += w
                along += w * z[p, j]
            total *= share
            along *= share
            r = rho[p]
            for j in range(wide):
                g[p, j] += r * (v[j] - total - z[p, j] * along)

    @njit(**OPTIONS)
    def again(z, gain, bias, a):
        """a of the layer once more."""
        wide = z.shape[1]
        for p in range(len(z)):
            for j in range(wide):
                h = gain[j] * z[p, j] + bias[j]
                a[p, j] = h / (one + exp(-h))

    @njit(**OPTIONS)
    def tangent(xd, z, rho, gain, bias, a, ad):
        """a of the layer once more, and ad = s1 gain J xd."""
        wide = z.shape[1]
        share = one / F(wide)
        for p in range(len(z)):
            total, along = zero, zero
            for j in range(wide):
                total += xd[p, j]
                along += xd[p, j] * z[p, j]
            total *= share
            along *= share
            r = rho[p]
            for j in range(wide):
                h = gain[j] * z[p, j] + bias[j]
                s = one / (one + exp(-h))
                a[p, j] = h * s
                ad[p, j] = s * (one + h * (one - s)) * gain[j] * r * (xd[p, j] - total - z[p, j] * along)

    @njit(**OPTIONS)
    def from_out(x, xd, d_out, weight, y, g, d_weight, d_bias):
        """From d_out (C, outputs) to y, and g anew; adds to d_weight, d_bias. Without tangents xd is empty."""
        wide, outputs = x.shape[1], len(weight)
        a, ad = np.empty(wide, F), np.zeros(wide, F)
        for p in range(len(x)):
            for j in range(wide):
                y[p, j] = zero
            for c in range(outputs):
                d = d_out[p, c]
                d_bias[c] += d
                for j in range(wide):
                    y[p, j] += d * weight[c, j]
            if len(xd):
                for j in range(wide):
                    v = x[p, j]
                    s = one / (one + exp(-v))
                    s1 = s * (one + v * (one - s))
                    s2 = s * (one - s) * (two + v * (one - two * s))
                    a[j] = v * s
                    ad[j] = s1 * xd[p, j]
                    g[p, j] = s1 * weight[0, j]
                    y[p, j] = s1 * y[p, j] + s2 * xd[p, j] * weight[0, j]
                for j in range(wide):
                    d_weight[0, j] += ad[j]
            else:
                for j in range(wide):
                    v = x[p, j]
                    s = one / (one + exp(-v))
                    a[j] = v * s
                    y[p, j] *= s * (one + v * (one - s))
            for c in range(outputs):
                d = d_out[p, c]
                for j in range(wide):
                    d_weight[c, j] += d * a[j]

    @njit(**OPTIONS)
    def through(y, by_a, z, rho, gain, bias, d_gain, d_bias, d_before):
        """Y becomes X in place, given by_a = Y W; adds to d_gain, d_bias, and Y itself to d_before. No tangents."""
        wide = y.shape[1]
        share = one / F(wide)
        v = np.empty(wide, F)
        for p in range(len(y)):
            total, along = zero, zero
            for j in range(wide):
                h = gain[j] * z[p, j] + bias[j]
                s = one / (one + exp(-h))
                by_h = s * (one + h * (one - s)) * by_a[p, j]
                v[j] = gain[j] * by_h
                total += v[j]
                along += v[j] * z[p, j]
                d_gain[j] += by_h * z[p, j]
                d_bias[j] += by_h
            total *= share
            along *= share
            r = rho[p]
            for j in range(wide):
                d_before[j] += y[p, j]
                y[p, j] += r * (v[j] - total - z[p, j] * along)

    @njit(**OPTIONS)
    def through_both(y, g, by_a, u, xd, z, rho, gain, bias, d_gain, d_bias, d_before):
        """Y becomes X and g' becomes g, in place.

        The loss has the term sum_j v_j zd_j with v = gain s1 u, zd = J xd, u held: its derivative by h is s2 gain zd u;
        by z, for a given rho, -rho (c v + e xd), with c = mean(z xd) and e = mean(v z); by rho, v . zd / rho, which
        is -rho z mean(v zd) by x."""
        wide = y.shape[1]
        share = one / F(wide)
        v, by_z = np.empty(wide, F), np.empty(wide, F)
        for p in range(len(y)):
            r = rho[p]
            level, c = zero, zero
            for j in range(wide):
                level += xd[p, j]
                c += xd[p, j] * z[p, j]
            level *= share
            c *= share
            total, e, bend = zero, zero, zero
            for j in range(wide):
                n = z[p, j]
                h = gain[j] * n + bias[j]
                s = one / (one + exp(-h))
                s1 = s * (one + h * (one - s))
                s2 = s * (one - s) * (two + h * (one - two * s))
                zd = r * (xd[p, j] - level - n * c)
                by_hd = s1 * u[p, j]
                by_h = s1 * by_a[p, j] + s2 * gain[j] * zd * u[p, j]
                w = gain[j] * by_hd
                v[j] = w
                by_z[j] = gain[j] * by_h - r * c * w
                total += w
                e += w * n
                bend += w * zd
                d_gain[j] += by_h * n + by_hd * zd
                d_bias[j] += by_h
            total *= share
            e *= share
            bend *= share
            middle, along = zero, zero
            for j in range(wide):
                by_z[j] -= r * e * xd[p, j]
                middle += by_z[j]
                along += by_z[j] * z[p, j]
            middle *= share
            along = along * share + bend
            for j in range(wide):
                n = z[p, j]
                d_before[j] += y[p, j]
                y[p, j] += r * (by_z[j] - middle - n * along)
                g[p, j] += r * (v[j] - total - n * e)

    @njit(**OPTIONS)
    def add_rows(y, out):
        """out (wide,) += sum of the rows of y."""
        for p in range(len(y)):
            for j in range(y.shape[1]):
                out[j] += y[p, j]

    found = locals()
    names = (
        "encode encode_along by_point activate read_out gradient again tangent from_out through through_both add_rows"
    )
    return SimpleNamespace(**{name: found[name] for name in names.split()})
