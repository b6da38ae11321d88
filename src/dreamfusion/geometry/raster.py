"""A small software rasteriser, for baking textures and for drawing the exported mesh."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..kernels.caching import njit


@njit(nogil=True)
def rasterise(
    corners: NDArray[np.float32], nearness: NDArray[np.float32], height: int, width: int, slack: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Which face does each pixel's centre see, and where on it?

    corners (F, 3, 2): x to the right, y down, in pixels; the centre of the top left pixel is (0.5, 0.5).
    nearness (F, 3): 1 / distance along the optical axis (all equal for a flat picture such as a texture); the nearest
    face wins. Faces with a corner of nearness <= 0 (behind the camera) are left out.
    slack: pixels up to this far outside a face are given to it too (at its nearest edge) if no face covers them.

    Returns face (H, W), -1 if there is none, and the weights (H, W, 3) of its corners, which interpolate whatever
    is linear in space (perspective-correct: Blinn 1992, "Hyperbolic interpolation").
    """
    face = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 3), np.float32)
    best = np.full((height, width), -np.inf, np.float64)
    edge = np.empty((3, 3), np.float64)
    for f in range(len(corners)):
        n0, n1, n2 = nearness[f, 0], nearness[f, 1], nearness[f, 2]
        if min(n0, n1, n2) <= 0:
            continue
        xs, ys = corners[f, :, 0], corners[f, :, 1]
        twice = float(xs[1] - xs[0]) * (ys[2] - ys[0]) - float(xs[2] - xs[0]) * (ys[1] - ys[0])
        if abs(twice) < 1e-9:
            continue
        sign = 1.0 if twice > 0 else -1.0
        for i in range(3):  # distance to edge i (opposite corner i), positive inside: e0 x + e1 y + e2
            j, k = (i + 1) % 3, (i + 2) % 3
            dx, dy = float(xs[k] - xs[j]), float(ys[k] - ys[j])
            length = math.sqrt(dx * dx + dy * dy)
            edge[i, 0], edge[i, 1] = -dy * sign / length, dx * sign / length
            edge[i, 2] = -(edge[i, 0] * xs[j] + edge[i, 1] * ys[j])
        # A corner's height above its opposite edge turns distances into barycentric coordinates.
        h0 = edge[0, 0] * xs[0] + edge[0, 1] * ys[0] + edge[0, 2]
        h1 = edge[1, 0] * xs[1] + edge[1, 1] * ys[1] + edge[1, 2]
        h2 = edge[2, 0] * xs[2] + edge[2, 1] * ys[2] + edge[2, 2]
        left = max(0, math.ceil(min(xs[0], xs[1], xs[2]) - slack - 0.5))
        right = min(width - 1, math.floor(max(xs[0], xs[1], xs[2]) + slack - 0.5))
        top = max(0, math.ceil(min(ys[0], ys[1], ys[2]) - slack - 0.5))
        bottom = min(height - 1, math.floor(max(ys[0], ys[1], ys[2]) + slack - 0.5))
        for r in range(top, bottom + 1):
            for c in range(left, right + 1):
                x, y = c + 0.5, r + 0.5
                d0 = edge[0, 0] * x + edge[0, 1] * y + edge[0, 2]
                d1 = edge[1, 0] * x + edge[1, 1] * y + edge[1, 2]
                d2 = edge[2, 0] * x + edge[2, 1] * y + edge[2, 2]
                outside = min(d0, d1, d2)
                if outside < -slack - 1e-6:
                    continue
                b0, b1, b2 = d0 / h0, d1 / h1, d2 / h2
                distance = 0.0
                if outside < -1e-6:  # take the nearest point of the edge that the pixel lies beyond
                    i = 0 if outside == d0 else 1 if outside == d1 else 2
                    j, k = (i + 1) % 3, (i + 2) % 3
                    dx, dy = float(xs[k] - xs[j]), float(ys[k] - ys[j])
                    along = min(1.0, max(0.0, ((x - xs[j]) * dx + (y - ys[j]) * dy) / (dx * dx + dy * dy)))
                    distance = math.hypot(x - xs[j] - along * dx, y - ys[j] - along * dy)
                    if distance > slack:
                        continue
                    b0 = 1 - along if j == 0 else along if k == 0 else 0.0
                    b1 = 1 - along if j == 1 else along if k == 1 else 0.0
                    b2 = 1 - along if j == 2 else along if k == 2 else 0.0
                p0, p1, p2 = b0 * n0, b1 * n1, b2 * n2
                near = p0 + p1 + p2
                rank = near if distance == 0 else -distance
                if rank > best[r, c]:
                    best[r, c] = rank
                    face[r, c] = f
                    weights[r, c, 0], weights[r, c, 1], weights[r, c, 2] = p0 / near, p1 / near, p2 / near
    return face, weights


def interpolate(
    values: NDArray[np.float64], faces: NDArray[np.int64], face: NDArray[np.int32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Values (V, C) of the vertices at chosen places: face (N,) and weights (N, 3); (N, C)."""
    return np.asarray(np.einsum("nk,nkc->nc", weights, values.astype(np.float32)[faces[face]]), np.float32)
