# ruff: noqa: NPY002 - compiled code has NumPy's old generator only
"""Pixels out of stored views, and looking planes up with a gradient: the inner loops of ``fit.py``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from dreamfusion.kernels import hull_kernels
from dreamfusion.kernels.hull_kernels import AXES, look_up
from dreamfusion.priors import planes as plain


@njit(cache=True)
def chosen(pixels: NDArray, rows: NDArray, count: int, empty: float, seed: int) -> tuple[NDArray, NDArray]:
    """``count`` random pixels of each of the views ``rows`` of pixels (N, 6, 64, 64): their numbers (V, count), and what is stored
    there (V, count, 6). An empty pixel is chosen ``empty`` times as often as a covered one."""
    np.random.seed(seed)
    number = np.empty((len(rows), count), np.int64)
    value = np.empty((len(rows), count, 6), np.float32)
    for v in range(len(rows)):
        view = pixels[rows[v]]
        for k in range(count):
            y, x = np.random.randint(64), np.random.randint(64)
            for _ in range(200):
                if view[3, y, x] > 0 or np.random.random() < empty:
                    break
                y, x = np.random.randint(64), np.random.randint(64)
            number[v, k] = y * 64 + x
            for c in range(6):
                value[v, k, c] = view[c, y, x] / 255.0
    return number, value


@njit(cache=True, fastmath=True, error_model="numpy")
def each_corner(planes: NDArray, points: NDArray, shape: NDArray, met: NDArray, backward: bool) -> None:
    """Look planes (G, 3, P, P, C) of shapes (N,) up at points (N, 3), as ``planes.looked_up`` does: add to ``met`` (N, 3, C); or,
    ``backward``, add what is in ``met`` to the planes."""
    for n in range(len(points)):
        for k in range(3):
            look_up(planes[shape[n], k], points[n, AXES[k, 0]], points[n, AXES[k, 1]], met[n, k], backward)


def marched(
    origin: Tensor, towards: Tensor, near: Tensor, spacing: Tensor, samples: int, inside: Tensor, shape: Tensor
) -> tuple[Tensor, Tensor]:
    """``planes.marched``, on the CPU by its kernel."""
    given = (origin, towards, near, spacing)
    if origin.device.type != "cpu":
        return plain.marched(*given, samples, inside, shape)
    ray, depth = hull_kernels.marched(*(x.numpy() for x in given), samples, inside.numpy(), shape.numpy())
    return torch.from_numpy(ray), torch.from_numpy(depth)


def features_of(planes: Tensor, points: Tensor, shape: Tensor) -> Tensor:
    """Planes (G, 3, P, P, C) of shapes (N,) at points (N, 3): (N, 3 C); on the CPU by a kernel."""
    if planes.device.type == "cpu":
        return LookedUp.apply(planes, points, shape)  # type: ignore[no-any-return]
    return plainly_looked_up(planes, points, shape)


def plainly_looked_up(planes: Tensor, points: Tensor, shape: Tensor) -> Tensor:
    """``features_of`` on any device."""
    side = planes.shape[2]
    index, weight = plain.corners(points, side)
    index = index + shape.repeat_interleave(3)[:, None] * (3 * side**2)
    return F.embedding_bag(index, planes.flatten(0, 3), mode="sum", per_sample_weights=weight).view(len(points), -1)


class LookedUp(torch.autograd.Function):
    """``planes.looked_up`` of many shapes at once: planes (G, 3, P, P, C), points (N, 3), shape (N,) -> (N, 3 C). PyTorch's own
    gradient of ``embedding_bag`` takes many times as long."""

    @staticmethod
    def forward(ctx, planes: Tensor, points: Tensor, shape: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        ctx.save_for_backward(points, shape)
        ctx.planes = planes.shape
        met = np.zeros((len(points), 3, planes.shape[-1]), np.float32)
        each_corner(planes.detach().numpy(), points.numpy(), shape.numpy(), met, False)
        return torch.from_numpy(met).flatten(1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def, override]
        points, shape = ctx.saved_tensors
        out = np.zeros(ctx.planes, np.float32)
        each_corner(out, points.numpy(), shape.numpy(), grad.contiguous().view(len(points), 3, -1).numpy(), True)
        return torch.from_numpy(out), None, None
