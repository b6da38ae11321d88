"""From stored views (see ``render.py``) to painted pictures, and how each thing is to be painted."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from render import AMBIENT, FOV_DEG
from torch import Tensor

from dreamfusion.priors.appearance import FACTORS
from dreamfusion.priors.paint import BACKGROUND, kept, luminance, shaded
from dreamfusion.priors.paint import surfaces as painted
from dreamfusion.priors.solid import fields

RULE_VIEWS = 24
TWO_TONE_GAP, TWO_TONE_PART = 0.18, 0.15
"""Light and dark parts count as two where their mean luminances differ by so much and each is so much of the thing."""


def paint_rule(albedo: Tensor, cover: Tensor) -> tuple[int, float]:
    """How a thing is painted, from views of it: albedo (V, 3, H, W), cover (V, 1, H, W); a rule and the mean luminance of
    what is painted.

    Glass, tyres, screens and handles are not painted with a car or a television. Of a thing that is mostly coloured what is
    dark or without colour stays (2), of any other one what is both (1); but where that is most of the thing, all is
    painted (0).
    """
    chroma = albedo.amax(1, keepdim=True) - albedo.amin(1, keepdim=True)
    total = cover.sum().clamp_min(1e-3)
    coloured = float(((chroma > 0.25) * cover).sum() / total) > 0.5
    for rule in (2, 1, 0) if coloured else (1, 0):
        painted = (1 - kept(albedo, torch.full((len(albedo),), rule))) * cover
        if float(painted.sum() / total) > 0.5:
            break
    luma = luminance(albedo)
    return rule, float((luma * painted).sum() / painted.sum().clamp_min(1e-3))


def parts_of(albedo: Tensor, cover: Tensor) -> float:
    """The luminance that parts a thing's light from its dark parts (Otsu 1979), NaN where it has no such two parts."""
    luma, weight = luminance(albedo).flatten(), cover.flatten()
    share, edges = np.histogram(luma.numpy(), bins=32, range=(0, 1), weights=weight.numpy())
    share = share / max(share.sum(), 1e-9)
    middle = (edges[:-1] + edges[1:]) / 2
    below = share.cumsum()[:-1]
    inside = (below > TWO_TONE_PART) & (below < 1 - TWO_TONE_PART)
    mean_below = (share * middle).cumsum()[:-1] / np.maximum(below, 1e-9)
    mean_above = ((share * middle).sum() - mean_below * below) / np.maximum(1 - below, 1e-9)
    between = np.where(inside, below * (1 - below) * (mean_above - mean_below) ** 2, 0.0)
    k = int(between.argmax())
    if not inside[k] or mean_above[k] - mean_below[k] < TWO_TONE_GAP:
        return float("nan")
    return float(edges[k + 1])


def rule_of(pixels: NDArray[np.uint8]) -> tuple[int, float]:
    """``paint_rule`` of stored views (V, 5 or more, H, W)."""
    views = torch.from_numpy(pixels[:, :4].astype(np.float32)) / 255
    return paint_rule(views[:, :3] / views[:, 3:4].clamp_min(1 / 255), views[:, 3:4])


def rules_of(pixels: NDArray[np.uint8]) -> tuple[int, float, float]:
    """``paint_rule`` and ``parts_of`` of stored views."""
    views = torch.from_numpy(pixels[:, :4].astype(np.float32)) / 255
    albedo = views[:, :3] / views[:, 3:4].clamp_min(1 / 255)
    return *paint_rule(albedo, views[:, 3:4]), parts_of(albedo, views[:, 3:4])


def places(depth: Tensor, camera: Tensor, fov_deg: Tensor | None = None) -> Tensor:
    """Where on the object pixels lie, (B, H, W, 3) in world axes, for stored depths (B, H, W) and cameras (B, 3) of azimuth,
    elevation (radians) and distance. ``fov_deg`` (B,): the fields of view, where they are not the renderer's own."""
    azimuth, elevation, distance = camera.unbind(-1)
    back = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)
    right = torch.stack([azimuth.cos(), torch.zeros_like(azimuth), -azimuth.sin()], -1)
    up = torch.linalg.cross(back, right)
    size = depth.shape[-1]
    fov = torch.full_like(distance, FOV_DEG) if fov_deg is None else fov_deg
    across = ((torch.arange(size) + 0.5) * (2 / size) - 1) * (fov.deg2rad() / 2).tan()[:, None]
    along = depth * 2 + (distance - 1)[:, None, None]  # on the optical axis
    x, y = across[:, None, :] * along, -across[:, :, None] * along
    from_centre = distance[:, None, None] - along
    return sum(part[..., None] * axis[:, None, None] for part, axis in ((x, right), (y, up), (from_centre, back)))  # type: ignore[return-value]


def compose(pixels: Tensor, camera: Tensor, look: Tensor, mean_luma: Tensor, rule: Tensor, parts: Tensor) -> Tensor:
    """Stored views (B, 6, H, W) in [0, 1] to pictures (B, 3, H, W) in [-1, 1] over mid-gray.

    camera (B, 3); look (B, 3) as ``Look.numbers``; mean_luma, rule (B,) as ``paint_rule`` and parts (B,) as ``parts_of`` have them.
    """
    cover = pixels[:, 3:4]
    surface, shine = surfaces(pixels, camera, look, mean_luma, rule, parts)
    lit = ((pixels[:, 4:5] / cover.clamp_min(1 / 255) - AMBIENT) / (1 - AMBIENT)).clamp(0, 1)
    return (shaded(surface, shine, pixels[:, 4:5], lit, cover) + (1 - cover) * BACKGROUND) * 2 - 1


def surfaces(
    pixels: Tensor,
    camera: Tensor,
    look: Tensor,
    mean_luma: Tensor,
    rule: Tensor,
    parts: Tensor,
    fov_deg: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Painted albedo (B, 3, H, W) of stored views, arguments as ``compose`` and ``places`` have them, and the strength (B,) of
    the highlights."""
    cover = pixels[:, 3:4]
    albedo = (pixels[:, :3] / cover.clamp_min(1 / 255)).clamp(0, 1)
    depth = (pixels[:, 5] / cover[:, 0].clamp_min(1 / 255)).clamp(0, 1)
    where = fields(places(depth, camera, fov_deg)).permute(0, 3, 1, 2)
    shares = torch.cat([F.one_hot(part, size).float() for part, size in zip(look.T, FACTORS, strict=True)], 1)
    return painted(albedo, where, shares, torch.stack([rule, mean_luma, parts.nan_to_num(nan=-1.0)], 1))
