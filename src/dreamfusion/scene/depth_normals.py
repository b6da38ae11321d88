"""Normals of what a picture's depth shows. B pictures of S x S pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..view.cameras import Cameras

SHARE = 1 / 64
"""Distance of the pixels that are compared, as a share of the picture: smaller bumps do not show at any resolution."""
SEEN = 0.1
"""Pixels of less opacity have no depth."""
NEAR = 0.05
"""World units; steps in depth of this size and more count for little."""


def normals_from_depth(depth: Tensor, opacity: Tensor, cameras: Cameras) -> Tensor:
    """Unit normals (B, 3, S, S) in world axes, towards the camera, of depth (distance times opacity) and opacity
    (B, 1, S, S). Where nothing is seen they face the camera.

    The differences to the pixels on both sides are averaged, each with a weight that falls with the step in depth, so that
    a normal belongs to one surface where another is in front of it.
    """
    size = depth.shape[-1]
    cameras = cameras.to(depth.device, depth.dtype)
    origins, directions = cameras.rays(size)
    distance = (depth / opacity.clamp_min(SEEN))[:, 0, :, :, None]
    points = origins + distance * directions
    seen = (opacity.detach() > SEEN)[:, 0]
    step = max(1, round(size * SHARE))
    across = _difference(points, distance, seen, step, 2)
    down = _difference(points, distance, seen, step, 1)
    facing = torch.linalg.cross(down, across)
    length = facing.norm(dim=-1, keepdim=True)
    found = (length.detach() > 1e-9) & seen[..., None]
    safe = torch.where(found, facing, -directions)
    return torch.nn.functional.normalize(safe, dim=-1).permute(0, 3, 1, 2)


def _difference(points: Tensor, distance: Tensor, seen: Tensor, step: int, axis: int) -> Tensor:
    """Weighted mean (B, S, S, 3) of the differences to the pixels ``step`` before and behind along an axis."""
    count = points.shape[axis]
    index = torch.arange(count, device=points.device)
    total, weight = torch.zeros_like(points), torch.zeros_like(distance)
    for sign in (-1, 1):
        other = (index + sign * step).clamp(0, count - 1)
        there = points.index_select(axis, other)
        valid = seen & seen.index_select(axis, other)
        jump = (distance.index_select(axis, other) - distance).detach()
        share = valid[..., None] / (jump.square() + NEAR**2)
        total = total + share * sign * (there - points)
        weight = weight + share
    return total / weight.clamp_min(1e-9)
