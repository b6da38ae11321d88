"""Outlines of shapes from all round, by which a picture's shapes are looked up (``recognition.py``)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from .layout import COVER, Layout, Thing

AZIMUTHS, ELEVATIONS_DEG = 16, (0.0, 20.0, 45.0)
SIDE = 16
"""Pixels a side of an outline, which fills its frame."""
DISTANCE = 2.5
BLUR = 0.7
"""Standard deviation, in pixels, of the blur of compared outlines: thin parts a pixel aside still count."""
AT_ONCE = 256
"""Shapes that are compared at a time, which bounds the memory."""


def outline_cameras() -> Tensor:
    """The cameras (C, 3) of the stored outlines, elevation by elevation."""
    turn = torch.arange(AZIMUTHS) * (2 * math.pi / AZIMUTHS)
    e, a = torch.meshgrid(torch.tensor(ELEVATIONS_DEG).deg2rad(), turn, indexing="ij")
    return torch.stack([a, e, torch.full_like(a, DISTANCE)], -1).flatten(0, 1)


def boxes(cover: Tensor) -> Tensor:
    """Middle x, middle y and half of the longer side (N, 3) of what is covered in (N, H, W), in [-1, 1] of the picture. An edge is
    where the coverage crosses half, between two pixels: a drawing of few pixels would otherwise be framed by its grid."""
    out = []
    for along in (1, 2):  # columns, rows
        most = cover.amax(along)
        profile = F.pad(
            most / most.amax(1, keepdim=True).clamp(1e-6, 1.0), (1, 1)
        )  # what is thin may nowhere be covered whole
        size = cover.shape[3 - along]
        first, last = _crossed(profile), size - 1 - _crossed(profile.flip(1))
        out.append(((first + last + 1) / size - 1, (last - first + 1) / size))
    (x, w), (y, h) = out
    return torch.stack([x, y, torch.maximum(w, h)], 1)


def _crossed(profile: Tensor) -> Tensor:
    """Where profiles (N, 1 + S + 1) first rise above half, as the place of a pixel whose outer edge is there (N,)."""
    place = (profile > 0.5).float().argmax(1)
    row = torch.arange(len(profile))
    high, low = profile[row, place], profile[row, (place - 1).clamp_min(0)]
    inside = ((high - 0.5) / (high - low).clamp_min(1e-6)).clamp(
        0, 1
    )  # how far the crossing lies in front of the pixel's middle
    return place - 1 - inside + 0.5


def framed(pictures: Tensor, box: Tensor, side: int, fill: float = 1.0) -> Tensor:
    """Pictures (N, C, H, W) cut to boxes (N, 3), which fill so much of the new frame; empty beyond the edges."""
    theta = torch.zeros(len(pictures), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = box[:, 2] / fill
    theta[:, :, 2] = box[:, :2]
    grid = F.affine_grid(theta.to(pictures), [len(pictures), pictures.shape[1], side, side], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def shape_of(layout: Layout, number: int) -> Thing:
    """One shape, whatever names it."""
    return layout.thing(F.one_hot(torch.tensor(number), layout.sizes.shapes).float())


@torch.no_grad()
def outlines(layout: Layout, shapes: Tensor) -> Tensor:
    """Outlines of shapes (S,) by number from ``outline_cameras``, (S, C, 32): one bit a pixel."""
    cameras, out = outline_cameras(), []
    for k in shapes.tolist():
        found = layout.meet(shape_of(layout, k), cameras, 2 * SIDE)[:, COVER]
        cut = framed(found[:, None], boxes(found), SIDE)[:, 0] > 0.5
        out.append(np.packbits(cut.flatten(1).numpy(), axis=1))
    return torch.from_numpy(np.stack(out))


def steps_between() -> tuple[Tensor, Tensor]:
    """The stored cameras, by number, at both ends of each step of the grid, (T, AZIMUTHS): steps around, then steps up."""
    number = torch.arange(len(ELEVATIONS_DEG) * AZIMUTHS).view(-1, AZIMUTHS)
    return torch.cat([number, number[:-1]]), torch.cat([number.roll(-1, 1), number[1:]])


def nearest_cameras(stored: NDArray[np.uint8], outline: NDArray[np.float32]) -> tuple[NDArray[np.float32], Tensor]:
    """How far stored outlines (I, C, 32) are from one (SIDE, SIDE) in [0, 1], for each azimuth of the grid, (I, AZIMUTHS), and from which
    cameras (I, AZIMUTHS, 3) that is.

    The distance is the squared error of the blurred outlines, as a share of their squares, in [0, 1]. An outline between
    two stored ones is taken to be a mixture of both: the nearest mixture is found in closed form.
    """
    blur = np.stack([_blurred(pixel.reshape(SIDE, SIDE)).flatten() for pixel in np.eye(SIDE**2, dtype=np.float32)])
    wanted = _blurred(outline).flatten()
    square = (wanted**2).sum()
    one, other = (end.numpy() for end in steps_between())
    parts, shares = [], []
    for first in range(0, len(stored), AT_ONCE):
        seen = np.unpackbits(stored[first : first + AT_ONCE], axis=2).astype(np.float32) @ blur
        with_wanted, squares = seen @ wanted, np.einsum("icp,icp->ic", seen, seen)
        a, b, ab = squares[:, one], squares[:, other], np.einsum("itap,itap->ita", seen[:, one], seen[:, other])
        apart = np.maximum(a + b - 2 * ab, 1e-6)
        share = ((with_wanted[:, other] - with_wanted[:, one] - ab + a) / apart).clip(0, 1)
        mixed = a + 2 * share * (ab - a) + share**2 * apart
        met = with_wanted[:, one] + share * (with_wanted[:, other] - with_wanted[:, one])
        parts.append((mixed + square - 2 * met) / (mixed + square))
        shares.append(share)
    away, share = np.concatenate(parts), np.concatenate(shares)
    best = away.argmin(1)[:, None]
    begin, step = outline_cameras()[one], (outline_cameras()[other] - outline_cameras()[one])
    step[:, :, 0] = step[:, :, 0].remainder(2 * math.pi)  # from the last azimuth on to the first
    column = torch.arange(AZIMUTHS)
    place = torch.from_numpy(best[:, 0])
    moved = torch.from_numpy(np.take_along_axis(share, best, 1)[:, 0])[..., None] * step[place, column]
    return np.take_along_axis(away, best, 1)[:, 0], begin[place, column] + moved


def _blurred(outline: NDArray[np.float32]) -> NDArray[np.float32]:
    return gaussian_filter(outline, BLUR, mode="constant")
