"""The grid field's fast path on a CPU: sampling, lookup, normals, shading and compositing in one pass, and their
derivatives in another. It equals ``volume.render`` to rounding (``tests/test_scene_fused.py``).

Rays are dealt out to the threads in tiles. Each thread adds up its gradients in a table of its own, and the tables are
summed in a fixed order. So the result depends only on the number of threads, and on that only in rounding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import grid_kernels as kernels
from .grid_backward import backward_kernel
from .grid_forward import forward_kernel

TILE = 256  # neighbouring rays that stay together: rows of a picture that follow one another look up the same vertices
MODES = {"albedo": kernels.ALBEDO, "lambertian": kernels.LAMBERTIAN, "textureless": kernels.TEXTURELESS}


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="render")


@lru_cache(maxsize=16)
def _shares(rays: int, threads: int) -> list[np.ndarray]:
    """Which rays each thread walks: tiles dealt out in turn, so that the object's rays are spread evenly."""
    tile = np.arange(rays) // TILE
    return [np.flatnonzero(tile % threads == s) for s in range(threads)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # its threads are the parent's


class FusedGrid:
    """A grid field's kernels, geometry and scratch memory. Not for use from several threads at once."""

    def __init__(self, levels: Sequence[int], features: int, model: Sequence[float]):
        """levels: vertices per side; model: see ``scene.grid.GridField.model``."""
        self.threads = torch.get_num_threads()
        sides = np.array(levels, np.int64)
        self.sides = sides
        self.starts = np.concatenate([[0], np.cumsum(sides**3)[:-1]])
        self.rows = np.concatenate([[0], np.cumsum(sides**2)[:-1]])
        self.row_count = int((sides**2).sum())
        self.model = np.array(model, np.float32)
        self.features = features
        self.parts: np.ndarray | None = None

    def run(self, work: Any, jobs: list[Any]) -> list[Any]:
        """work(job) for all jobs, in parallel if there are threads; results in the jobs' order."""
        if self.threads == 1 or len(jobs) == 1:
            return [work(job) for job in jobs]
        return list(_pool(self.threads).map(work, jobs))

    def scratch(self, vertices: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Per-thread gradient tables and their marks; zero between uses."""
        if self.parts is None:
            self.parts = np.zeros((self.threads, vertices, channels), np.float32)
            self.dirty = np.zeros((self.threads, self.row_count), np.uint8)
        return self.parts, self.dirty

    def density(self, table: Tensor, points: Tensor) -> Tensor:
        """Density (P,) of a field's table at points (P, 3), zero outside the unit sphere."""
        out = torch.empty(len(points))
        where, into, table = points.contiguous().numpy(), out.numpy(), table.detach()
        flat = table.reshape(-1).numpy()
        cuts = np.linspace(0, len(points), self.threads + 1).astype(int)

        def work(s: int) -> None:
            part = slice(cuts[s], cuts[s + 1])
            kernels.density(where[part], flat, table.shape[1], self.sides, self.starts, self.model, into[part])

        self.run(work, list(range(self.threads)))
        return out

    def render(
        self,
        learned: Sequence[Tensor],
        arrays: dict[str, Tensor],
        shading: str,
        ambient: float,
        samples: int,
        cells: Tensor,
    ) -> tuple[Tensor, ...]:
        """Colour, opacity, depth, normal, orientation of rays, as ``volume.render`` gives them for regular samples.

        learned: table, hidden weight and bias, out weight and bias; arrays: origins, directions, lights (N, 3), near, far,
        offset (N,); cells: the occupancy's.
        """
        scene: dict[str, Any] = {k: v.detach().contiguous().numpy() for k, v in arrays.items()}
        scene |= {"samples": samples, "step": np.float32(2 / samples), "ambient": np.float32(ambient)}
        scene |= {"mode": MODES[shading], "cells": cells.numpy()}
        return _Render.apply(self, scene, *learned)


class _Render(torch.autograd.Function):
    """(table, head weights) -> (colour, opacity, depth, normal, orientation)."""

    @staticmethod
    def forward(ctx: Any, fused: FusedGrid, scene: dict[str, Any], *parameters: Tensor) -> tuple[Tensor, ...]:
        learned = [p.detach().contiguous().numpy() for p in parameters]
        rays = len(scene["near"])
        out = [torch.empty(rays, 3), torch.empty(rays), torch.empty(rays), torch.empty(rays, 3), torch.empty(rays)]
        results = [o.numpy() for o in out]
        forward = forward_kernel(fused.features)
        inputs = len(fused.sides) * fused.features

        def work(order: np.ndarray) -> tuple[Any, ...]:
            kept = np.empty(len(order) * (scene["samples"] + 1), np.int16)
            bounds = np.empty(len(order) + 1, np.int64)
            n = kernels.candidates(
                order, scene["origins"], scene["directions"], scene["near"], scene["far"], scene["offset"],
                scene["step"], scene["cells"], kept, bounds,
            )  # fmt: skip
            blocks = -(-n // kernels.LANES)
            lanes = kernels.LANES
            shapes: list[tuple[int, ...]] = [(n, 4), (n,), (blocks, 3, lanes), (blocks, lanes)]
            shapes += [(blocks, inputs, lanes), (blocks, 3, lanes), (n,), (n,)]
            saved = (np.empty(len(order) + 1, np.int64), *(np.empty(shape, np.float32) for shape in shapes))
            forward(
                order, kept, bounds, scene["origins"], scene["directions"], scene["lights"], scene["near"],
                scene["offset"], scene["step"], scene["ambient"], scene["mode"],
                learned[0].reshape(-1), fused.sides, fused.starts, fused.model, *learned[1:], *saved, *results,
            )  # fmt: skip
            return saved

        saved = fused.run(work, _shares(rays, fused.threads))
        if any(ctx.needs_input_grad):
            ctx.fused, ctx.scene, ctx.kept = fused, scene, saved
            ctx.save_for_backward(*parameters)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        fused, scene = ctx.fused, ctx.scene
        learned = [p.detach().contiguous().numpy() for p in ctx.saved_tensors]
        given = [g.contiguous().numpy() for g in upstream]
        table = learned[0]
        parts, dirty = fused.scratch(*table.shape)
        heads = [np.empty((fused.threads, *w.shape), np.float32) for w in learned[1:]]
        backward = backward_kernel(fused.features)
        shares = _shares(len(scene["near"]), fused.threads)

        def work(s: int) -> None:
            backward(
                shares[s], scene["directions"], scene["lights"], scene["ambient"], scene["mode"],
                fused.sides, fused.starts, fused.model, *learned[1:4], *ctx.kept[s], *given,
                parts[s].reshape(-1), dirty[s], fused.rows, *(h[s] for h in heads),
            )  # fmt: skip

        fused.run(work, list(range(fused.threads)))
        d_table = torch.empty(table.shape)
        cuts = np.linspace(0, fused.row_count, fused.threads + 1).astype(int)

        def gather(s: int) -> None:
            ends = int(cuts[s]), int(cuts[s + 1])
            kernels.collect(parts, dirty, fused.sides, fused.starts, fused.rows, *ends, d_table.numpy())

        fused.run(gather, list(range(fused.threads)))
        return None, None, d_table, *(torch.from_numpy(h.sum(0)) for h in heads)
