"""Where along its rays a scene is sampled. N = rays, M = samples per ray; distances in world units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EVEN = 0.3  # share of a ray's samples that is spread over what can be seen, whatever is remembered of it
FLOOR = 0.01  # transmittance that is given to what cannot be seen, against densities remembered wrongly
DAMPING = 0.3  # of remembered densities, so that the samples reach on through a surface until nothing is seen
RULE = (DAMPING, EVEN, FLOOR)
LEAST = 2  # samples of a ray that meets occupied cells


@dataclass(frozen=True)
class Samples:
    """distance (N, M) of each sample, width (N, M) of its interval, inside (N, M) bool: whether it counts."""

    distance: Tensor
    width: Tensor
    inside: Tensor


def unit_sphere(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the unit sphere, (N,) each; both are equal where the sphere is missed.

    Solves |o + t d| = 1 for unit d; a ray that starts inside enters at 0.
    """
    middle = -(origins * directions).sum(-1)
    nearest = origins + middle[:, None] * directions
    half = (1 - (nearest * nearest).sum(-1)).clamp_min(0).sqrt()
    near, far = (middle - half).clamp_min(0), (middle + half).clamp_min(0)
    return near, torch.where(half > 0, far, near)


def ray_offsets(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """One offset in [0, 1) for each ray (N,), shaped and placed as ``like``; 0.5 without a generator."""
    if generator is None:
        return torch.full_like(like, 0.5)
    return torch.rand(like.shape, generator=generator, device=generator.device, dtype=torch.float32).to(like)


def regular_samples(near: Tensor, far: Tensor, samples: int, offset: Tensor) -> Samples:
    """Steps of 2 / samples from the entry on: sample k of a ray stands at near + (k + offset) * step, while inside."""
    step = 2.0 / samples
    k = torch.arange(samples, device=near.device, dtype=near.dtype)
    distance = near[:, None] + (k + offset[:, None]) * step
    return Samples(distance, torch.full_like(distance, step), distance < far[:, None])


def inverse_cdf(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Invert the piecewise linear distribution function of a histogram.

    edges (N, M + 1) rising, weights (N, M) >= 0, u (N, K) in [0, 1) -> (N, K) distances. Rows without any weight are
    spread evenly over the intervals.
    """
    weights = torch.where(weights.sum(-1, keepdim=True) > 1e-8, weights, torch.ones_like(weights)) + 1e-8
    cdf = torch.cumsum(weights / weights.sum(-1, keepdim=True), -1)
    cdf = torch.nn.functional.pad(cdf, (1, 0))
    high = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, weights.shape[-1])
    c0, c1, e0, e1 = (x.gather(-1, i) for x, i in ((cdf, high - 1), (cdf, high), (edges, high - 1), (edges, high)))
    return e0 + ((u - c0) / (c1 - c0)).clamp(0, 1) * (e1 - e0)


def bins(near: Tensor, far: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Middles and lengths (N, count) of a ray's bins of 2 / count, cut off at far (length 0 behind it)."""
    step = 2.0 / count
    low = near[:, None] + torch.arange(count, device=near.device, dtype=near.dtype) * step
    length = (torch.minimum(low + step, far[:, None]) - low).clamp_min(0)
    return low + length / 2, length


def shares(density: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """How to spread a ray's samples over its bins, given their densities and lengths (N, M); empty bins have length 0.

    A bin's share (N, M) of the samples: EVEN goes by length * (T + FLOOR), the rest by the largest weight
    w_i = T_i (1 - exp(-sigma_i l_i)) of the bin and its two neighbours (Barron et al. 2021, section 3.1), with T_i and
    w_i of densities damped by DAMPING. They sum to 1 on rays with any length. Also the rays' opacity (N,), undamped.
    """
    optical = DAMPING * density * length
    seen = torch.exp(optical - torch.cumsum(optical, -1))
    even = length * (seen + FLOOR)
    even = even / even.sum(-1, keepdim=True).clamp_min(1e-12)
    weight = seen * -torch.expm1(-optical)
    weight = torch.nn.functional.max_pool1d(weight[:, None], 3, stride=1, padding=1)[:, 0] * (length > 0)
    total = weight.sum(-1, keepdim=True)
    mixed = (1 - EVEN) * weight / total.clamp_min(1e-8) + EVEN * even
    return torch.where(total > 1e-8, mixed, even), -torch.expm1(-optical.sum(-1) / DAMPING)


def sample_counts(opacity: Tensor, length: Tensor, most: int, points: int) -> Tensor:
    """How many samples each ray gets (N,) int64: most * sqrt(opacity), but LEAST, none where the length is 0.

    All get proportionally fewer, though not less than one, where they would be more than ``points`` together (0: any
    number may be). A linear rule would starve faint fog, which has to be seen to be cleared."""
    wanted = (most * opacity.clamp(0, 1).sqrt()).ceil().clamp(min(LEAST, most), most) * (length.sum(-1) > 0)
    total = float(wanted.sum())
    if points and total > points:
        wanted = torch.minimum(wanted, (wanted * (points / total)).floor().clamp_min(1))
    return wanted.long()


def placed_samples(near: Tensor, length: Tensor, share: Tensor, counts: Tensor, offset: Tensor) -> Samples:
    """Split what the bins of a ray hold into counts (N,) pieces of equal share; samples stand in their middles.

    Bins of length 0 are left out: a piece that reaches over a gap has only the length on its two sides. The inner ends
    are moved by offset (N,) in [0, 1), by up to half a piece to each side.
    """
    most = max(int(counts.max()), 1)
    ends = torch.nn.functional.pad(torch.cumsum(length, -1), (1, 0))
    k = torch.arange(1, most, device=near.device, dtype=near.dtype)
    u = (k - 0.5 + offset[:, None]) / counts[:, None].clamp_min(1)
    inner = torch.where(k < counts[:, None], inverse_cdf(ends, share, u.clamp_max(1)), ends[:, -1:])
    edges = torch.cat([torch.zeros_like(near)[:, None], inner, ends[:, -1:]], -1)
    width = torch.where(counts[:, None] > 0, edges[:, 1:] - edges[:, :-1], 0.0)
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    bin_ = (torch.searchsorted(ends, middle.contiguous(), right=True) - 1).clamp(0, length.shape[-1] - 1)
    distance = near[:, None] + bin_ * (2.0 / length.shape[-1]) + (middle - ends.gather(-1, bin_))
    return Samples(distance, width, width > 0)
