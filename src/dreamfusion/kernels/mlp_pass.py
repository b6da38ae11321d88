"""The MLP field's fast path on a CPU: raw density, logits and the analytic gradient of raw in one pass.

It equals ``volume.query_by_autograd`` to rounding (``tests/test_scene_mlp_fast.py``). The gradient costs one more
walk back through the layers. Its own derivative is that of a directional derivative: S = d_raw . raw + d_logits . logits
+ G . grad raw, and G . grad raw is a tangent that walks forward (forward over reverse); so the backward pass needs no
graph. Points go in chunks that stay in the cache; chunks are dealt out to the threads, each with single-threaded
matrix products, and the threads' sums are added in a fixed order.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import Barrier
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .mlp_rows import row_kernels


class Field(Protocol):
    """The networks of ``scene.mlp.MlpField``."""

    first: nn.Linear
    norms: nn.ModuleList
    layers: nn.ModuleList
    out: nn.Linear


CHUNK = 512  # points: a layer's numbers, 256 KiB at a width of 128, fit the second-level cache


@lru_cache(maxsize=4)
def single_threaded_pool(threads: int) -> ThreadPoolExecutor:
    """A pool whose threads run torch's operations on one thread each; the caller's own setting stays as it is.

    torch.set_num_threads is for the calling thread and for those that are yet to start."""
    before, started = torch.get_num_threads(), Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # the thread takes the common setting first, or would later
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "mlp", start)
    jobs = [pool.submit(int) for _ in range(threads)]
    started.wait()
    for job in jobs:
        job.result()
    torch.set_num_threads(before)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=single_threaded_pool.cache_clear)  # its threads are the parent's


def deal(work: Any, count: int) -> list[Any]:
    """work(share, range of chunks) for all threads' shares of ``count`` points, side by side; in the shares' order."""
    threads, chunks = torch.get_num_threads(), -(-count // CHUNK)
    shares = [
        [slice(i * CHUNK, min(i * CHUNK + CHUNK, count)) for i in range(s, chunks, threads)] for s in range(threads)
    ]
    shares = [share for share in shares if share] or [[]]
    if len(shares) == 1:
        return [work(shares[0])]
    return list(single_threaded_pool(threads).map(work, shares))


@dataclass(frozen=True)
class Weights:
    """The parameters, detached. L residual layers: first (wide, inputs), layers (wide, wide), out (outputs, wide)."""

    first: Tensor
    first_bias: Tensor
    gains: list[Tensor]
    shifts: list[Tensor]
    layers: list[Tensor]
    biases: list[Tensor]
    out: Tensor
    out_bias: Tensor

    @classmethod
    def of(cls, parameters: list[Tensor]) -> Weights:
        """From the order of ``parameters_of``."""
        p = [x.detach().contiguous() for x in parameters]
        middle = p[2:-2]
        return cls(p[0], p[1], middle[0::4], middle[1::4], middle[2::4], middle[3::4], p[-2], p[-1])

    def befores(self) -> list[np.ndarray]:
        """The bias that the product before each layer, and before the output, has yet to get."""
        return [b.numpy() for b in (self.first_bias, *self.biases)]


def parameters_of(field: Field) -> list[Tensor]:
    """first, its bias; norm gain, norm bias, weight, bias of every layer; out, its bias."""
    middle: list[Any] = [
        p
        for norm, layer in zip(field.norms, field.layers, strict=True)
        for p in (norm.weight, norm.bias, layer.weight, layer.bias)
    ]
    return [field.first.weight, field.first.bias, *middle, field.out.weight, field.out.bias]


class Kept:
    """What the backward pass reads again: z, u (L, P, wide), rho (L, P), x (P, wide)."""

    def __init__(self, layers: int, points: int, like: Tensor):
        wide = like.shape[0]
        self.capacity = points
        self.z, self.u = (like.new_empty(layers, points, wide) for _ in range(2))
        self.rho, self.x = like.new_empty(layers, points), like.new_empty(points, wide)


class Memory:
    """Spare ``Kept`` of a field: fresh memory costs more than the arithmetic that fills it."""

    def __init__(self) -> None:
        self.spare: list[Kept] = []

    def take(self, layers: int, points: int, like: Tensor) -> Kept:
        found = self.spare.pop() if self.spare else None
        if found is not None and found.capacity >= points and found.x.dtype == like.dtype:
            return found
        return Kept(layers, -(-points // 4096) * 4096, like)

    def give(self, kept: Kept) -> None:
        self.spare = [kept]


def forward(
    w: Weights, mean: Tensor, variance: Tensor, octaves: int, steep: bool, kept: Kept | None
) -> tuple[Tensor, Tensor]:
    """out (P, outputs) and, if ``steep``, the gradient of out[:, 0] by mean (P, 3) (else empty)."""
    k = row_kernels(mean.numpy().dtype)
    count, wide, layers = len(mean), len(w.first), len(w.layers)
    out, slope = mean.new_empty(count, len(w.out)), mean.new_empty(count if steep else 0, 3)
    befores, gains, shifts = w.befores(), [g.numpy() for g in w.gains], [s.numpy() for s in w.shifts]

    def work(chunks: list[slice]) -> None:
        size = min(CHUNK, count)
        code = mean.new_empty(size, w.first.shape[1])
        x_, a_, g_, pull_ = (mean.new_empty(size, n) for n in (wide, wide, wide, w.first.shape[1]))
        scratch = None if kept is not None else Kept(layers, size, w.first)
        for c in chunks:
            n = c.stop - c.start
            here, place = (kept, c) if kept is not None else (scratch, slice(0, n))
            assert here is not None
            e, a, g, pull = code[:n], a_[:n], g_[:n], pull_[:n]
            x = here.x[place] if kept is not None else x_[:n]
            k.encode(mean[c].numpy(), variance[c].numpy(), octaves, e.numpy())
            torch.mm(e, w.first.t(), out=x)
            for i in range(layers):
                k.activate(
                    x.numpy(), befores[i], gains[i], shifts[i],
                    here.z[i, place].numpy(), here.rho[i, place].numpy(), a.numpy(),
                )  # fmt: skip
                x.addmm_(a, w.layers[i].t())
            k.read_out(
                x.numpy(),
                befores[-1],
                w.out.numpy(),
                w.out_bias.numpy(),
                out[c].numpy(),
                g.numpy()[: n if steep else 0],
            )
            if not steep:
                continue
            for i in reversed(range(layers)):
                u = here.u[i, place]
                torch.mm(g, w.layers[i], out=u)
                k.gradient(
                    g.numpy(), u.numpy(), here.z[i, place].numpy(), here.rho[i, place].numpy(), gains[i], shifts[i]
                )
            torch.mm(g, w.first, out=pull)
            k.by_point(e.numpy(), pull.numpy(), octaves, slope[c].numpy())

    deal(work, count)
    return out, slope


def backward(
    w: Weights, mean: Tensor, variance: Tensor, octaves: int, kept: Kept, d_out: Tensor, d_slope: Tensor | None
) -> list[Tensor]:
    """Derivatives of sum(d_out out) + sum(d_slope slope) by the parameters, in the order of ``parameters_of``."""
    k = row_kernels(mean.numpy().dtype)
    count, (wide, inputs), layers = len(mean), w.first.shape, len(w.layers)
    gains, shifts = [g.numpy() for g in w.gains], [s.numpy() for s in w.shifts]
    both = 2 if d_slope is not None else 1

    def work(chunks: list[slice]) -> list[Tensor]:
        size = min(CHUNK, count)
        shapes = [(wide, inputs), (wide,), *[(wide,), (wide,), (wide, wide), (wide,)] * layers]
        sums = [mean.new_zeros(shape) for shape in (*shapes, tuple(w.out.shape), tuple(w.out_bias.shape))]
        into = [s.numpy() for s in sums]
        code_, stack_, pulled = (
            mean.new_empty(2, size, inputs),
            mean.new_empty(2, size, wide),
            mean.new_empty(size, wide),
        )
        a_ = mean.new_empty(layers if both == 2 else 1, both, size, wide)
        xd_ = mean.new_empty((layers + 1 if both == 2 else 0), size, wide)
        for c in chunks:
            n = c.stop - c.start
            # a and its tangent, y and g, lie one upon the other, so that one product adds up both halves
            code = code_.view(-1, inputs)[: both * n]
            stack = stack_.view(-1, wide)[: both * n]
            acts = [a.reshape(-1, wide)[: both * n] for a in a_]
            y, g, by_a, x = stack[:n], stack[n:], pulled[:n], kept.x[c]
            k.encode(mean[c].numpy(), variance[c].numpy(), octaves, code[:n].numpy())
            if d_slope is not None:
                k.encode_along(code[:n].numpy(), d_slope[c].numpy(), octaves, code[n:].numpy())
                xd = [v[:n] for v in xd_]
                torch.mm(code[n:], w.first.t(), out=xd[0])
                for i in range(layers):
                    a = acts[i]
                    k.tangent(
                        xd[i].numpy(), kept.z[i, c].numpy(), kept.rho[i, c].numpy(), gains[i], shifts[i],
                        a[:n].numpy(), a[n:].numpy(),
                    )  # fmt: skip
                    torch.addmm(xd[i], a[n:], w.layers[i].t(), out=xd[i + 1])
            top = xd[-1].numpy() if d_slope is not None else x[:0].numpy()
            k.from_out(x.numpy(), top, d_out[c].numpy(), w.out.numpy(), y.numpy(), g.numpy(), into[-2], into[-1])
            for i in reversed(range(layers)):
                z, rho = kept.z[i, c].numpy(), kept.rho[i, c].numpy()
                d_gain, d_shift, d_weight, d_bias = into[2 + 4 * i], into[3 + 4 * i], sums[4 + 4 * i], into[5 + 4 * i]
                torch.mm(y, w.layers[i], out=by_a)
                if d_slope is not None:
                    d_weight.addmm_(stack.t(), acts[i])
                    k.through_both(
                        y.numpy(), g.numpy(), by_a.numpy(), kept.u[i, c].numpy(), xd[i].numpy(), z, rho,
                        gains[i], shifts[i], d_gain, d_shift, d_bias,
                    )  # fmt: skip
                else:
                    k.again(z, gains[i], shifts[i], acts[0].numpy())
                    d_weight.addmm_(stack.t(), acts[0])
                    k.through(y.numpy(), by_a.numpy(), z, rho, gains[i], shifts[i], d_gain, d_shift, d_bias)
            sums[0].addmm_(stack.t(), code)
            k.add_rows(y.numpy(), into[1])
        return sums

    parts = deal(work, count)
    return [torch.stack(same).sum(0) for same in zip(*parts, strict=True)]


class _Network(torch.autograd.Function):
    """(parameters) -> (out (P, outputs), gradient of out[:, 0] (P, 3))."""

    @staticmethod
    def forward(
        ctx: Any, memory: Memory, mean: Tensor, variance: Tensor, octaves: int, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        w = Weights.of(list(parameters))
        learning = any(ctx.needs_input_grad)
        kept = memory.take(len(w.layers), len(mean), w.first) if learning else None
        out, slope = forward(w, mean, variance, octaves, True, kept)
        ctx.set_materialize_grads(False)
        if learning:
            ctx.scene, ctx.kept = (memory, mean, variance, octaves), kept
            ctx.save_for_backward(*parameters)
        return out, slope

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_slope: Tensor | None) -> tuple[Tensor | None, ...]:
        memory, mean, variance, octaves = ctx.scene
        if ctx.kept is None:
            raise RuntimeError("the fast MLP's backward pass can be walked only once")
        w = Weights.of(list(ctx.saved_tensors))
        d_out = mean.new_zeros(len(mean), len(w.out)) if d_out is None else d_out.contiguous()
        d_slope = None if d_slope is None else d_slope.contiguous()
        found = backward(w, mean, variance, octaves, ctx.kept, d_out, d_slope)
        memory.give(ctx.kept)
        ctx.kept = None
        return None, None, None, None, *found


def network(memory: Memory, field: Field, octaves: int, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """out (P, 1 + channels) and the gradient (P, 3) of out[:, 0] by mean, both differentiable by the parameters."""
    return _Network.apply(memory, mean.contiguous(), variance.contiguous(), octaves, *parameters_of(field))


@torch.no_grad()
def raw_density(field: Field, octaves: int, mean: Tensor, variance: Tensor) -> Tensor:
    """out[:, 0] alone (P,), without gradients."""
    w = Weights.of(parameters_of(field))
    return forward(w, mean.contiguous(), variance.contiguous(), octaves, False, None)[0][:, 0]
