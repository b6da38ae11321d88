"""Cameras for meshes: vertices to what the rasteriser takes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..view.cameras import Cameras


def clip_positions(vertices: Tensor, cameras: Cameras) -> Tensor:
    """Vertices (V, 3) of the world as each camera sees them, (B, V, 3); see ``raster``."""
    relative = vertices - cameras.positions()[:, None]
    right, up, back = cameras.axes()
    reach = torch.tan(cameras.fov / 2)[:, None]
    x, y, w = (torch.einsum("bvk,bk->bv", relative, axis) for axis in (right, up, back))
    return torch.stack([x / reach, y / reach, -w], -1)
