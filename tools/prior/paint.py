"""From stored views (see ``render.py``) to the pictures that the networks learn: colours, materials and patterns go on as a
painter would put them."""

from __future__ import annotations

import math

import numpy as np
import torch
from looks import CLAY, COLOURS, MAINS, MATERIALS, PATTERNS, PLAIN, SECONDS
from numpy.typing import NDArray
from render import AMBIENT, FOV_DEG
from torch import Tensor

from dreamfusion.priors.solid import FIELDS, fields

CLAY_ALBEDO = 0.8
BACKGROUND = 0.5
BRIGHTEST = 0.88
"""No painted picture is brighter: a scene's albedo ends at 0.93, and what it cannot reach its shape would have to answer for."""
LUMA = torch.tensor([0.299, 0.587, 0.114])
RULE_VIEWS = 24
DARK, NEUTRAL, EDGE = 0.3, 0.1, 0.04
"""Largest channel of what is dark, chroma of what has no colour, and half of the way from yes to no, which is soft."""
CAMOUFLAGE = ((0.30, 0.33, 0.16), (0.42, 0.34, 0.20), (0.13, 0.16, 0.10))
TWO_TONE_GAP, TWO_TONE_PART = 0.18, 0.15
"""Light and dark parts count as two where their mean luminances differ by so much and each is so much of the thing."""


def luminance(albedo: Tensor) -> Tensor:
    """(B, 1, H, W) of (B, 3, H, W)."""
    return (albedo * LUMA[None, :, None, None]).sum(1, keepdim=True)


def kept(albedo: Tensor, rule: Tensor) -> Tensor:
    """The share (B, 1, H, W) of albedo (B, 3, H, W) that a painter leaves as it is, by the things' ``paint_rule`` (B,)."""
    value = albedo.amax(1, keepdim=True)
    chroma = value - albedo.amin(1, keepdim=True)
    dark = ((DARK + EDGE - value) / (2 * EDGE)).clamp(0, 1)
    neutral = ((NEUTRAL + EDGE - chroma) / (2 * EDGE)).clamp(0, 1)
    rule = rule[:, None, None, None]
    return torch.where(rule == 2, torch.maximum(dark, neutral), dark * neutral) * (rule > 0)


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


def tint(albedo: Tensor, colour: Tensor, mean_luma: Tensor, rule: Tensor) -> Tensor:
    """Repaint albedo (B, 3, H, W) in colours (B, 3), keeping the pattern of light and dark, and what is ``kept``.

    The luminance is taken relative to the mean of what is painted (B,), so that black things can become yellow.
    """
    luma = luminance(albedo) / mean_luma[:, None, None, None]
    factor = luma.clamp(0.02, 1.8) ** 0.6
    painted = (0.97 * colour[:, :, None, None] * factor + 0.03 * albedo).clamp(0, BRIGHTEST)
    return torch.lerp(painted, albedo, kept(albedo, rule))


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
    main, shine = painted_main(albedo, where, look[:, 0], mean_luma, rule)
    on, colours = second_part(albedo, where, look, mean_luma, parts)
    second = tint(albedo, colours, mean_luma, rule)
    whole = (look[:, 2] == PATTERNS.index("camouflage")) | (look[:, 2] == PATTERNS.index("rainbow"))
    stays = torch.where(look[:, 0] >= 2 + len(COLOURS), 0.0, 1.0)[:, None, None, None] * kept(albedo, rule)
    own = whole_pattern(where, look[:, 2]) * (0.5 + 0.5 * luminance(albedo) / mean_luma[:, None, None, None]).clamp(
        0.6, 1.2
    )
    surface = torch.lerp(main, second, on)
    return torch.where(whole[:, None, None, None], torch.lerp(own.clamp(0, BRIGHTEST), albedo, stays), surface), shine


def shaded(surface: Tensor, shine: Tensor, light: Tensor, lit: Tensor, cover: Tensor) -> Tensor:
    """What painted albedo (B, 3, H, W) sends to the camera, times the coverage: (B, 3, H, W) in [0, 1].

    shine (B,) as ``surfaces`` has it. light (B, 1, H, W) is the shading times the coverage; lit (B, 1, H, W) is n . l in [0, 1].
    """
    return (surface.clamp(0, 0.92) * light + shine[:, None, None, None] * lit**12 * cover).clamp(0, 1)


def painted_main(albedo: Tensor, where: Tensor, main: Tensor, mean_luma: Tensor, rule: Tensor) -> tuple[Tensor, Tensor]:
    """Surfaces (B, 3, H, W) in their main paint (B,), and the strength (B,) of their highlights."""
    colours = torch.tensor([COLOURS.get(name, (0.5, 0.5, 0.5)) for name in MAINS])
    out = tint(albedo, colours[main], mean_luma, rule)
    out = torch.where((main == MAINS.index(PLAIN))[:, None, None, None], albedo, out)
    out = torch.where((main == MAINS.index(CLAY))[:, None, None, None], torch.full_like(albedo, CLAY_ALBEDO), out)
    shine = torch.zeros(len(main))
    for k in main.unique().tolist():
        if (material := MATERIALS.get(MAINS[k])) is not None:
            rows = (main == k).nonzero()[:, 0]
            mix = (where[rows, FIELDS.index(material.field)][:, None] * 1.5).clamp(-1, 1) * 0.5 + 0.5
            base, other = (torch.tensor(c)[None, :, None, None] for c in (material.base, material.other))
            factor = (luminance(albedo[rows]) / mean_luma[rows][:, None, None, None]).clamp(0.1, 1.8) ** 0.4
            out[rows] = ((base + (other - base) * mix) * factor).clamp(0, BRIGHTEST)
            shine[rows] = material.highlight
    return out, shine


def second_part(albedo: Tensor, where: Tensor, look: Tensor, mean_luma: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Where the second colour goes, (B, 1, H, W) in [0, 1], and which it is, (B, 3)."""
    _, second, pattern = look.unbind(1)
    colours = torch.tensor([COLOURS.get(name, (0.5, 0.5, 0.5)) for name in SECONDS])[second]
    light = luminance(albedo)
    threshold = parts.nan_to_num()[:, None, None, None]
    by_part = ((threshold - light) / 0.06).clamp(-1, 1) * 0.5 + 0.5
    by_height = (-8 * (where[:, FIELDS.index("y")][:, None] + 0.05)).clamp(-1, 1) * 0.5 + 0.5
    on = torch.where(parts.isnan()[:, None, None, None], by_height, by_part)
    for name, field, level, steep in (
        ("striped", "stripes", 0.0, 2.5), ("dotted", "dots", 0.28, 6.0), ("checkered", "checks", 0.0, 2.5)
    ):  # fmt: skip
        mask = ((where[:, FIELDS.index(field)][:, None] - level) * steep).clamp(-1, 1) * 0.5 + 0.5
        on = torch.where((pattern == PATTERNS.index(name))[:, None, None, None], mask, on)
    return on * (second > 0)[:, None, None, None], colours


def whole_pattern(where: Tensor, pattern: Tensor) -> Tensor:
    """The colours (B, 3, H, W) of camouflage and of a rainbow from top to bottom."""
    blotches = where[:, FIELDS.index("blotches")][:, None]
    first, second, third = (torch.tensor(c)[None, :, None, None] for c in CAMOUFLAGE)
    camouflage = torch.where(blotches > 0.3, second, torch.where(blotches < -0.35, third, first))
    turn = 2 * math.pi * (0.42 - 0.42 * where[:, FIELDS.index("y")][:, None])
    shift = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])[None, :, None, None]
    rainbow = 0.46 + 0.38 * (turn - shift).cos()
    return torch.where((pattern == PATTERNS.index("rainbow"))[:, None, None, None], rainbow, camouflage)
