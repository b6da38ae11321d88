"""Where a shape cannot be: the cells of its hull, carved out of its views (Kutulakos and Seitz 2000, "A theory of shape by space
carving")."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from numpy.typing import NDArray
from render import FOV_DEG
from torch import Tensor

from dreamfusion.priors.planes import HULL
from dreamfusion.view.cameras import Cameras

AROUND = 5
"""Pixels a side that a cell may show in; a cell is two pixels wide."""
MARGIN = 0.065
"""Half of a cell's diagonal, and the error of a stored depth."""


def hull(pixels: NDArray, camera: Tensor) -> Tensor:
    """The cells (HULL^3,) that no view looks past: of stored views (V, 6, 64, 64) uint8 from cameras (V, 3).

    A view looks past a cell if around it every pixel is empty or shows something that lies behind it.
    """
    stored = torch.from_numpy(pixels[:, [3, 5]]).float()
    cover, distance = stored[:, :1], camera[:, 2, None, None, None]
    nearest = torch.where(cover > 0, stored[:, 1:] / cover.clamp_min(0.1) * 2 + distance - 1, 99.0)
    nearest = -F.max_pool2d(-nearest, AROUND, 1, AROUND // 2)[:, 0]
    axes = torch.stack(Cameras.of_condition(camera).axes(), 1)
    zoom = 32 / math.tan(math.radians(FOV_DEG) / 2)
    return torch.from_numpy(carved(nearest.numpy(), axes.numpy(), camera[:, 2].numpy(), zoom))


@njit(cache=True)
def carved(nearest: NDArray, axes: NDArray, distance: NDArray, zoom: float) -> NDArray:
    """Which cells (HULL^3,) lie in front of nothing: the nearest thing around each pixel (V, 64, 64) along the optical axis, of cameras
    with axes right, up and back (V, 3, 3)."""
    out = np.ones(HULL**3, np.bool_)
    for cell in range(HULL**3):
        x = (cell // (HULL * HULL) + 0.5) * (2 / HULL) - 1
        y = (cell // HULL % HULL + 0.5) * (2 / HULL) - 1
        z = (cell % HULL + 0.5) * (2 / HULL) - 1
        for v in range(len(nearest)):
            a = axes[v]
            along = distance[v] - (a[2, 0] * x + a[2, 1] * y + a[2, 2] * z)
            column = int((a[0, 0] * x + a[0, 1] * y + a[0, 2] * z) / along * zoom + 32)
            row = int(32 - (a[1, 0] * x + a[1, 1] * y + a[1, 2] * z) / along * zoom)
            if nearest[v, min(max(row, 0), 63), min(max(column, 0), 63)] > along + MARGIN:
                out[cell] = False
                break
    return out
