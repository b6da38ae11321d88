"""A shape as three feature planes through the origin (Chan et al. 2022, EG3D), inside a hull: where the planes have features, and
which stretches of a ray may meet the shape at all.

A hull is a block of ``HULL`` cells a side over [-1, 1], as bits. Outside it there is nothing, so nothing need be asked there: of the
samples along all rays of a picture, one in six or so is left.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.hull_kernels import AXES, HULL

PLANE_WIDTH = 8
SAMPLES = 48
"""Along a ray, in the unit sphere."""
THICKNESS = 0.08
"""The length over which a density of 1 lets 1 / e through."""


def corners(points: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Which features points (N, 3) lie between, as rows (3 N, 4) of planes that lie one after another as (3, side, side), and their
    bilinear weights (3 N, 4). As ``grid_sample`` without aligned corners and with zeros outside."""
    columns, rows = (torch.stack([points[:, a[k]] for a in AXES], 1) for k in (0, 1))  # (N, 3)
    x, y = ((v + 1) * (side / 2) - 0.5 for v in (columns, rows))
    left, top = x.floor(), y.floor()
    right_share, low_share = x - left, y - top
    first = (torch.arange(3, device=points.device) * side * side)[None]
    index, weight = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            u, v = left + dx, top + dy
            inside = (u >= 0) & (u < side) & (v >= 0) & (v < side)
            share = (right_share if dx else 1 - right_share) * (low_share if dy else 1 - low_share)
            weight.append(share * inside)
            index.append(first + v.clamp(0, side - 1).long() * side + u.clamp(0, side - 1).long())
    return torch.stack(index, -1).flatten(0, 1), torch.stack(weight, -1).flatten(0, 1)


def looked_up(planes: Tensor, points: Tensor) -> Tensor:
    """The three planes' features (N, 3 C) at points (N, 3) of one shape's planes (3, P, P, C), one plane's after another."""
    index, weight = corners(points, planes.shape[1])
    found = F.embedding_bag(index, planes.flatten(0, 2), mode="sum", per_sample_weights=weight)
    return found.view(len(points), -1)


def cells(points: Tensor) -> Tensor:
    """The number of the hull's cell that points (..., 3) are in, or of the nearest one."""
    place = ((points + 1) * (HULL / 2)).long().clamp(0, HULL - 1)
    return (place[..., 0] * HULL + place[..., 1]) * HULL + place[..., 2]


def packed_hull(cells: Tensor) -> Tensor:
    """Hulls (I, HULL^3) of booleans as bits, (I, HULL^3 / 8) uint8."""
    weight = (1 << torch.arange(8, device=cells.device)).to(torch.uint8)
    return (cells.unflatten(-1, (-1, 8)).to(torch.uint8) * weight).sum(-1).to(torch.uint8)


def unpacked_hull(bits: Tensor) -> Tensor:
    """Hulls (..., HULL^3) of booleans from their bits."""
    return ((bits[..., None] >> torch.arange(8, device=bits.device)) & 1).flatten(-2).bool()


def marched(
    origin: Tensor, towards: Tensor, near: Tensor, spacing: Tensor, samples: int, inside: Tensor, shape: Tensor
) -> tuple[Tensor, Tensor]:
    """The samples along rays (R,) that lie in cells of their shapes' hulls (G, HULL^3): the number of the ray, and the distance
    from its origin, ray by ray and near to far. ``kernels.hull_kernels`` does the same without the samples that it drops."""
    depth = near[:, None] + (torch.arange(samples, device=near.device) + 0.5) * spacing[:, None]
    cell = cells(origin[:, None] + towards[:, None] * depth[..., None])
    ray, k = inside[shape[:, None], cell].nonzero(as_tuple=True)
    return ray, depth[ray, k]


def composited(values: Tensor, optical: Tensor, ray: Tensor, count: int) -> Tensor:
    """Values (N, C) of samples with optical thicknesses (N,), along ``count`` rays by alpha compositing, and the rays' opacities:
    (count, C + 1). Samples are sorted by ray, and near to far."""
    with torch.no_grad():
        many = torch.bincount(ray, minlength=count)
        first = many.cumsum(0) - many
    thick = optical.double()  # sums over all rays, of which differences are taken
    total = torch.cat([thick.new_zeros(1), thick.cumsum(0)])
    before = total[:-1] - total[first][ray]
    weight = ((-before).exp() - (-before - thick).exp()).float()
    found = values.new_zeros(count, values.shape[1]).index_add(0, ray, values * weight[:, None])
    return torch.cat([found, values.new_zeros(count).index_add(0, ray, weight)[:, None]], 1)
