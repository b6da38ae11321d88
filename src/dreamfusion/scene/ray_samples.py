"""Where along its rays a scene is sampled. N = rays, M = samples per ray; distances in world units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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


def importance_samples(near: Tensor, far: Tensor, weights: Tensor, count: int, offset: Tensor) -> Samples:
    """Split the regular intervals further where ``weights`` (N, M) say something is (Mildenhall et al. 2020, 5.2).

    The interval ends are the regular ones and ``count`` drawn from the weights; samples stand in the middles.
    """
    step = 2.0 / weights.shape[-1]
    k = torch.arange(weights.shape[-1] + 1, device=near.device, dtype=near.dtype)
    edges = torch.minimum(near[:, None] + k * step, far[:, None])
    u = (torch.arange(count, device=near.device, dtype=near.dtype) + offset[:, None]) / count
    edges = torch.sort(torch.cat([edges, inverse_cdf(edges, weights, u)], -1), -1).values
    width = edges[:, 1:] - edges[:, :-1]
    return Samples((edges[:, 1:] + edges[:, :-1]) / 2, width, width > 0)
