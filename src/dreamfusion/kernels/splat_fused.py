"""3D Gaussians drawn on a CPU by compiled kernels. They equal ``scene.splatting.PLAIN`` (``tests/test_scene_splatting.py``).

The views of a batch are dealt out to torch's threads. Gradients by what views share are summed in the views' order, so the
number of threads changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import splat_kernels as kernels
from .raster_fused import arrays_of
from .threads import for_each

NEAR, MARGIN, BLUR, THINNEST = 0.1, 1.5, 0.3, 1e-8  # as in ``scene.splatting``, and tested to be
FAINT, MOST, OPAQUE = 1 / 255, 0.99, 1e-4
LIMITS, ENDS = (NEAR, MARGIN, BLUR, THINNEST), (MOST, OPAQUE)


class Project(torch.autograd.Function):
    """(centres, covariances, axes, position, focal, size) -> place, conic, kept; see ``scene.splatting.Splatter.project``."""

    @staticmethod
    def forward(
        ctx: Any, centres: Tensor, covs: Tensor, axes: Tensor, position: Tensor, focal: Tensor, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape = (len(axes), len(centres))
        place, conic, kept = (centres.new_empty(*shape, 2), centres.new_empty(*shape, 3), centres.new_empty(shape))
        x, c, a, o = arrays_of(centres, covs, axes.double(), position.double())
        f, into = focal.tolist(), arrays_of(place, conic, kept)
        for_each(lambda b: kernels.project(x, c, a[b], o[b], f[b], size, LIMITS, *(i[b] for i in into)), len(axes))
        ctx.save_for_backward(centres, covs, axes, position, focal)
        ctx.size = size
        return place, conic, kept

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        centres, covs, axes, position, focal = ctx.saved_tensors
        x, c, a, o = arrays_of(centres, covs, axes.double(), position.double())
        f, given = focal.tolist(), arrays_of(*upstream)
        d_x, d_c = np.zeros((len(axes), *x.shape)), np.zeros((len(axes), *c.shape))
        for_each(
            lambda b: kernels.project_backward(
                x, c, a[b], o[b], f[b], ctx.size, LIMITS, *(g[b] for g in given), d_x[b], d_c[b]
            ),
            len(axes),
        )
        summed = (torch.from_numpy(d.sum(0).astype(x.dtype)) for d in (d_x, d_c))
        return *summed, None, None, None, None


class Composite(torch.autograd.Function):
    """(place, conic, opacity, features, distance, size) -> pictures; see ``scene.splatting.Splatter.composite``."""

    @staticmethod
    def forward(
        ctx: Any, place: Tensor, conic: Tensor, opacity: Tensor, features: Tensor, distance: Tensor, size: int
    ) -> Tensor:
        given, order = arrays_of(place, conic, opacity, features), distance.argsort(dim=1, stable=True).numpy()
        out = features.new_empty(len(place), size, size, features.shape[-1] + 1)
        into, count = out.numpy(), len(place)
        kept: list[Any] = [None] * count

        def work(b: int) -> None:
            splats = [v[b] for v in given]
            bound = np.empty(len(order[b]))
            starts, lists = kernels.tile_lists(*splats[:3], order[b], size, FAINT, bound)
            left, last = np.empty((size, size)), np.empty((size, size), np.int64)
            kernels.composite(*splats, starts, lists, bound, ENDS, into[b], left, last)
            kept[b] = (starts, lists, bound, ENDS, left, last)

        for_each(work, count)
        ctx.kept = kept
        ctx.save_for_backward(place, conic, opacity, features)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *splats, above = arrays_of(*ctx.saved_tensors, upstream)
        into = [np.zeros(v.shape) for v in splats]
        for_each(
            lambda b: kernels.composite_backward(
                *(v[b] for v in splats), *ctx.kept[b], above[b], *(d[b] for d in into)
            ),
            len(above),
        )
        return *(torch.from_numpy(d.astype(v.dtype)) for d, v in zip(into, splats, strict=True)), None, None
