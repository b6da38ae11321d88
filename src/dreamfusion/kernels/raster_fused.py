"""The differentiable rasteriser on a CPU by compiled kernels. It equals ``scene.rasteriser.PLAIN`` (``tests/test_scene_raster.py``).

The views of a batch are dealt out to torch's threads. Gradients by values that views share are summed in the views' order,
so the number of threads changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import raster_kernels as kernels
from .threads import for_each

BEHIND, STEPS = 1e-3, 8  # as in ``scene.rasteriser``, and tested to be


class Fused:
    """See ``scene.rasteriser.Rasteriser``. For tensors on a CPU."""

    def rasterise(self, clip: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
        return _Rasterise.apply(clip, faces, size)

    def interpolate(self, values: Tensor, faces: Tensor, face: Tensor, weights: Tensor) -> Tensor:
        return _Interpolate.apply(values, faces, face, weights)

    def antialias(self, picture: Tensor, face: Tensor, clip: Tensor, faces: Tensor, neighbours: Tensor) -> Tensor:
        return _Antialias.apply(picture, face, clip, faces, neighbours)


def arrays_of(*tensors: Tensor) -> list[Any]:
    """Tensors on a CPU as arrays."""
    return [t.detach().contiguous().numpy() for t in tensors]


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
        given, triangles = arrays_of(clip, faces)
        shape = (len(clip), size, size)
        face, weights = torch.empty(shape, dtype=torch.int64), torch.empty(*shape, 3, dtype=clip.dtype)
        depth = np.empty(shape)
        into, shares = face.numpy(), weights.numpy()
        for_each(lambda b: kernels.rasterise(given[b], triangles, BEHIND, into[b], shares[b], depth[b]), len(clip))
        ctx.save_for_backward(clip, faces, face, weights)
        ctx.mark_non_differentiable(face)
        return face, weights

    @staticmethod
    def backward(ctx: Any, _: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        clip, faces, face, weights, given = arrays_of(*ctx.saved_tensors, upstream)
        out = np.zeros(clip.shape)
        for_each(lambda b: kernels.rasterise_backward(clip[b], faces, face[b], weights[b], given[b], out[b]), len(clip))
        return torch.from_numpy(out.astype(clip.dtype)), None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, faces: Tensor, face: Tensor, weights: Tensor) -> Tensor:
        out = torch.empty(*face.shape, values.shape[1], dtype=values.dtype)
        ctx.save_for_backward(values, faces, face, weights)
        given, triangles, seen, shares, into = arrays_of(values, faces, face, weights, out)
        for_each(lambda b: kernels.interpolate(given, triangles, seen[b], shares[b], into[b]), len(face))
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        values, faces, face, weights, given = arrays_of(*ctx.saved_tensors, upstream)
        d_values = np.zeros((len(face), *values.shape), values.dtype)
        d_weights = np.empty_like(weights)
        for_each(
            lambda b: kernels.interpolate_backward(
                values, faces, face[b], weights[b], given[b], d_values[b], d_weights[b]
            ),
            len(face),
        )
        return torch.from_numpy(d_values.sum(0)), None, None, torch.from_numpy(d_weights)


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, picture: Tensor, face: Tensor, clip: Tensor, faces: Tensor, neighbours: Tensor) -> Tensor:
        out = picture.detach().clone(memory_format=torch.contiguous_format)
        seen, given, triangles, around, colours, into = arrays_of(face, clip, faces, neighbours, picture, out)
        blends: list[Any] = [None] * len(face)

        def work(b: int) -> None:
            found = np.empty((2 * seen[b].size, 4), np.int64)
            n = kernels.antialias(
                colours[b], seen[b], given[b], triangles, around, STEPS, into[b], found
            )  # fmt: skip
            blends[b] = found[:n].copy()

        for_each(work, len(face))
        ctx.blends = blends
        ctx.save_for_backward(picture, clip)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        picture, clip = ctx.saved_tensors
        flat = picture.reshape(len(picture), -1, picture.shape[-1])
        d_picture = upstream.reshape(flat.shape).clone(memory_format=torch.contiguous_format)
        colours, given, above, into = arrays_of(flat, clip, upstream.reshape(flat.shape), d_picture)
        d_clip = np.zeros(clip.shape)
        for_each(
            lambda b: kernels.antialias_backward(colours[b], given[b], ctx.blends[b], above[b], into[b], d_clip[b]),
            len(picture),
        )
        return d_picture.reshape(picture.shape), None, torch.from_numpy(d_clip).to(clip.dtype), None, None


FUSED = Fused()
