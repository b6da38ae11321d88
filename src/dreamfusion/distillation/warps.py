"""Random perspectives of pictures, for losses that should hold for any framing. B pictures of S x S pixels."""

from __future__ import annotations

import torch
from torch import Tensor

NUMBERS = 10
"""Random numbers that one warp takes: two for each corner, two for the shift."""
SHIFT = 0.125
"""Farthest shift, in widths of the picture (Zhao et al. 2020, DiffAugment)."""
GRAY = 0.5
"""What a warped picture is surrounded by. PureCLIPNeRF has black there; the bundled CLIP tells gray borders better from the thing."""
CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""Of a picture: x to the right, y down, both in [-1, 1]."""


def moved_corners(normal: Tensor, strength: float) -> Tensor:
    """Where the corners of pictures go, (B, 4, 2), for normal numbers (B, ``NUMBERS``). Each goes towards the middle by a uniform part of
    strength / 2 of the width along each axis, as in torchvision's RandomPerspective; then all are shifted alike."""
    uniform = torch.special.ndtr(normal)
    corners = normal.new_tensor(CORNERS)
    inwards = corners * (1 - strength * uniform[:, :8].reshape(-1, 4, 2))
    return inwards + 2 * SHIFT * (2 * uniform[:, None, 8:] - 1)


def homographies(source: Tensor, target: Tensor) -> Tensor:
    """The projective maps (B, 3, 3), with a 1 in their last corner, that take four points to four others, (B, 4, 2) each. Solves the
    eight linear equations (Hartley & Zisserman 2004, section 4.1)."""
    x, y = source.unbind(-1)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    u, v = target.unbind(-1)
    for_u = torch.stack([x, y, one, none, none, none, -u * x, -u * y], -1)
    for_v = torch.stack([none, none, none, x, y, one, -v * x, -v * y], -1)
    found = torch.linalg.solve(torch.cat([for_u, for_v], 1), torch.cat([u, v], 1))
    return torch.cat([found, torch.ones_like(found[:, :1])], 1).reshape(-1, 3, 3)


def warped(picture: Tensor, corners: Tensor) -> Tensor:
    """Pictures (B, C, S, S) whose corners are moved to ``corners`` (B, 4, 2), read bilinearly; gray outside. Differentiable by the
    pictures."""
    size = picture.shape[-1]
    back = homographies(corners, corners.new_tensor(CORNERS).expand_as(corners)).to(picture)
    axis = (torch.arange(size, device=picture.device, dtype=picture.dtype) * 2 + 1) / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    place = torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3) @ back.transpose(1, 2)
    # Behind the horizon of a strong perspective w is not positive: far outside.
    where = torch.where(place[..., 2:] > 1e-6, place[..., :2] / place[..., 2:].clamp_min(1e-6), 4.0)
    grid = where.reshape(-1, size, size, 2)
    return torch.nn.functional.grid_sample(picture - GRAY, grid, padding_mode="zeros", align_corners=False) + GRAY
