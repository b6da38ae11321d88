"""``ray_samples.shares`` and ``ray_samples.placed_samples`` with ``Occupancy.remembered``, one ray after another."""

# mypy: disable-error-code="no-untyped-def, assignment"
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .caching import njit
from .grid_kernels import INDEX, OPTIONS, corner, exponential
from .mlp_pass import single_threaded_pool

_F = np.float32
_ONE, _HALF, _ZERO = _F(1), _F(0.5), _F(0)


@njit(**OPTIONS)
def shares(origins, directions, near, far, step, values, cells, rule, length, share, opacity):
    """Fill length and share (N, M) and opacity (N,); ``values`` and ``cells`` are the occupancy's.

    ``rule`` holds its ``vague`` and ``ray_samples.RULE``: compiled code would not notice a change."""
    vague, damping, evenly, floor = rule[0], rule[1], rule[2], rule[3]
    side, bins = values.shape[0], length.shape[1]
    flat, marks = values.ravel(), cells.ravel()
    half, reach = _F(side) * _HALF, _F(side) / _F(side - 1)
    weight, even = np.empty(bins + 2, np.float32), np.empty(bins, np.float32)
    for r in range(len(near)):
        begin, end = near[r], far[r]
        thickness, total_even, total_weight = _ZERO, _ZERO, _ZERO
        weight[0], weight[bins + 1] = _ZERO, _ZERO
        for n in range(bins):
            low = begin + _F(n) * step
            span = min(low + step, end) - low
            length[r, n], weight[n + 1], even[n] = _ZERO, _ZERO, _ZERO
            if span <= _ZERO:
                continue
            t = low + _HALF * span
            x, y, z = (
                origins[r, 0] + t * directions[r, 0], origins[r, 1] + t * directions[r, 1], origins[r, 2] + t * directions[r, 2]
            )  # fmt: skip
            i = min(max(int((x + _ONE) * half), 0), side - 1)
            j = min(max(int((y + _ONE) * half), 0), side - 1)
            k = min(max(int((z + _ONE) * half), 0), side - 1)
            if not marks[((i * side + j) * side + k) & INDEX]:
                continue
            length[r, n] = span
            # cells are known by their middles: a grid of vertices from the first middle to the last
            ix, fx = corner(min(max(x * reach, -_ONE), _ONE), side)
            iy, fy = corner(min(max(y * reach, -_ONE), _ONE), side)
            iz, fz = corner(min(max(z * reach, -_ONE), _ONE), side)
            b = ((ix * side + iy) * side + iz) & INDEX
            c, d, e = (b + side) & INDEX, (b + side * side) & INDEX, (b + side * side + side) & INDEX
            v00 = flat[b] + (flat[b + 1] - flat[b]) * fz
            v01 = flat[c] + (flat[c + 1] - flat[c]) * fz
            v10 = flat[d] + (flat[d + 1] - flat[d]) * fz
            v11 = flat[e] + (flat[e + 1] - flat[e]) * fz
            v0, v1 = v00 + (v01 - v00) * fy, v10 + (v11 - v10) * fy
            optical = min(v0 + (v1 - v0) * fx, vague) * span * damping
            seen = exponential(-thickness)
            even[n] = span * (seen + floor)
            weight[n + 1] = seen * (_ONE - exponential(-optical))
            thickness += optical
            total_even += even[n]
        opacity[r] = _ONE - exponential(-thickness / damping)
        for n in range(bins):
            share[r, n] = max(weight[n], weight[n + 1], weight[n + 2]) if length[r, n] > _ZERO else _ZERO
            total_weight += share[r, n]
        if total_even <= _ZERO:
            continue
        found = total_weight > _F(1e-8)
        for n in range(bins):
            share[r, n] = (
                (_ONE - evenly) * share[r, n] / total_weight + evenly * even[n] / total_even
                if found
                else even[n] / total_even
            )


@njit(**OPTIONS)
def place(near, step, length, share, counts, offset, distance, width):
    """Fill distance and width (N, most), zero before: the k-th sample of a ray is the middle of its k-th piece."""
    bins = length.shape[1]
    for r in range(len(near)):
        count = counts[r]
        if count == 0:
            continue
        total = _ZERO
        for n in range(bins):
            total += share[r, n]
        # `below` is the distribution function before bin n, `along` the occupied length before it
        n, below, along = 0, _ZERO, _ZERO
        m, before = 0, _ZERO  # the same for the bin of the piece's middle
        last = _ZERO
        for k in range(count):
            if k + 1 < count:
                u = (_F(k) + _HALF + offset[r]) / _F(count) * total
                while n < bins - 1 and below + share[r, n] <= u:
                    below += share[r, n]
                    along += length[r, n]
                    n += 1
                edge = along
                if share[r, n] > _ZERO:
                    edge += min((u - below) / share[r, n], _ONE) * length[r, n]
            else:
                edge = along
                for i in range(n, bins):
                    edge += length[r, i]
            middle = _HALF * (last + edge)
            while m < bins - 1 and before + length[r, m] <= middle:
                before += length[r, m]
                m += 1
            distance[r, k] = near[r] + _F(m) * step + (middle - before)
            width[r, k] = edge - last
            last = edge


def _side_by_side(work: Any, count: int) -> None:
    """work(slice) over ``count`` rays, split evenly between torch's threads."""
    threads = torch.get_num_threads()
    cuts = np.linspace(0, count, threads + 1).astype(int)
    parts = [slice(int(a), int(b)) for a, b in pairwise(cuts)]
    if threads == 1:
        work(parts[0])
    else:
        list(single_threaded_pool(threads).map(work, parts))


def remembered_shares(
    rays: tuple[Tensor, Tensor, Tensor, Tensor], bins: int, memory: tuple[Tensor, Tensor], rule: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """``ray_samples.shares`` of the densities that an occupancy remembers, for float32 on a CPU.

    rays: origins, directions (N, 3), near, far (N,); memory: the occupancy's values and cells; rule: its ``vague`` and
    ``ray_samples.RULE``.
    """
    count = len(rays[2])
    length, share, opacity = torch.empty(count, bins), torch.empty(count, bins), torch.empty(count)
    given = [x.contiguous().numpy() for x in rays]
    into = [x.numpy() for x in (length, share, opacity)]
    values, cells = memory[0].numpy(), memory[1].numpy()
    numbers = np.array(rule, np.float32)

    def work(s: slice) -> None:
        shares(*(x[s] for x in given), _F(2 / bins), values, cells, numbers, *(x[s] for x in into))

    _side_by_side(work, count)
    return length, share, opacity


def placed_samples(
    near: Tensor, length: Tensor, share: Tensor, counts: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``ray_samples.placed_samples`` for float32 on a CPU: distance, width, inside."""
    distance, width = torch.zeros(2, len(near), max(int(counts.max()), 1))
    given = [x.contiguous().numpy() for x in (length, share, counts, offset)]
    into = [x.numpy() for x in (distance, width)]
    begin, step = near.contiguous().numpy(), _F(2 / length.shape[1])

    def work(s: slice) -> None:
        place(begin[s], step, *(x[s] for x in given), *(x[s] for x in into))

    _side_by_side(work, len(near))
    return distance, width, width > 0
