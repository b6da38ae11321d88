"""Colours, materials and patterns on things whose own colours are known, as a painter would put them.

What stands on record of a thing (``Layout.paint``) is how it is painted: a rule that says what stays as it is (glass, tyres, screens,
handles), the mean luminance of what is painted, and the luminance that parts its light from its dark parts, if it has such.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .appearance import CLAY, COLOURS, FACTORS, MAINS, MATERIALS, PATTERNS, PLAIN, SECONDS
from .solid import FIELDS

AMBIENT, LIGHT_ABOVE_DEG = 0.5, 30.0
"""The light of the prior's pictures: its even share, and how far above the camera the key light stands."""
CLAY_ALBEDO = 0.8
BACKGROUND = 0.5
BRIGHTEST = 0.88
"""No painted picture is brighter than this. A scene's albedo ends at 0.93."""
LUMA = (0.299, 0.587, 0.114)
DARK, NEUTRAL, EDGE = 0.3, 0.1, 0.04
"""Largest channel of what is dark, chroma of what has no colour, and half of the way from yes to no, which is soft."""
CAMOUFLAGE = ((0.30, 0.33, 0.16), (0.42, 0.34, 0.20), (0.13, 0.16, 0.10))
MASKS = (("striped", "stripes", 0.0, 2.5), ("dotted", "dots", 0.28, 6.0), ("checkered", "checks", 0.0, 2.5))
"""Patterns of a second colour: the field, the level that it must reach, and how steeply."""


DIM = 0.12
"""Things of a lower mean luminance are nearly black: their light and dark are mostly noise, so less of it is painted."""


def wide(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return values[:, None, None, None]


def luminance(albedo: Tensor) -> Tensor:
    """(B, 1, H, W) of (B, 3, H, W)."""
    return (albedo * albedo.new_tensor(LUMA)[None, :, None, None]).sum(1, keepdim=True)


def light_and_dark(albedo: Tensor, mean_luma: Tensor) -> Tensor:
    """Luminances (B, 1, H, W) of albedo (B, 3, H, W) relative to the mean of what is painted (B,). Differences are weaker where
    that mean is below ``DIM``."""
    mean = wide(mean_luma)
    added = (DIM - mean).clamp_min(0)
    return (luminance(albedo) + added) / (mean + added)


def kept(albedo: Tensor, rule: Tensor) -> Tensor:
    """The share (B, 1, H, W) of albedo (B, 3, H, W) that a painter leaves as it is, by the things' ``paint_rule`` (B,)."""
    value = albedo.amax(1, keepdim=True)
    chroma = value - albedo.amin(1, keepdim=True)
    dark = ((DARK + EDGE - value) / (2 * EDGE)).clamp(0, 1)
    neutral = ((NEUTRAL + EDGE - chroma) / (2 * EDGE)).clamp(0, 1)
    rule = rule[:, None, None, None]
    return torch.where(rule == 2, torch.maximum(dark, neutral), dark * neutral) * (rule > 0)


def tint(albedo: Tensor, colour: Tensor, mean_luma: Tensor, rule: Tensor) -> Tensor:
    """Repaint albedo (B, 3, H, W) in colours (B, 3), keeping the pattern of light and dark, and what is ``kept``.

    The luminance is taken relative to the mean of what is painted (B,), so that black things can become yellow.
    """
    factor = light_and_dark(albedo, mean_luma).clamp(0.02, 1.8) ** 0.6
    painted = (0.97 * colour[:, :, None, None] * factor + 0.03 * albedo).clamp(0, BRIGHTEST)
    return torch.lerp(painted, albedo, kept(albedo, rule))


def surfaces(albedo: Tensor, where: Tensor, look: Tensor, thing: Tensor) -> tuple[Tensor, Tensor]:
    """Painted albedo (B, 3, H, W) and the strength (B,) of its highlights, of own albedo (B, 3, H, W) at places with solid textures
    ``where`` (B, F, H, W), in looks (B, K) as shares of which each of the three parts adds up to one. thing (B, 3): rule, mean
    luminance of what is painted, and the parting luminance, below 0 for none. A part that is undecided is painted in between."""
    main, second, pattern = look.split(FACTORS, 1)
    rule, mean_luma, parts = thing.unbind(1)
    painted, shine = painted_main(albedo, where, main, mean_luma, rule)
    on = second_part(albedo, where, second, pattern, parts)
    table = albedo.new_tensor([COLOURS.get(name, (0.5, 0.5, 0.5)) for name in SECONDS])
    surface = torch.lerp(painted, tint(albedo, second @ table, mean_luma, rule), on)
    whole = pattern[:, [PATTERNS.index("camouflage"), PATTERNS.index("rainbow")]]
    if not whole.any():
        return surface, shine
    light = (0.5 + 0.5 * light_and_dark(albedo, mean_luma)).clamp(0.6, 1.2)
    own = (whole_pattern(where, whole) * light).clamp(0, BRIGHTEST)
    stays = wide(main[:, : 2 + len(COLOURS)].sum(1)) * kept(albedo, rule)
    return torch.lerp(surface, torch.lerp(own, albedo, stays), wide(whole.sum(1))), shine


def shaded(surface: Tensor, shine: Tensor, light: Tensor, lit: Tensor, cover: Tensor) -> Tensor:
    """What painted albedo (B, 3, H, W) sends to the camera, times the coverage: (B, 3, H, W) in [0, 1].

    shine (B,) as ``surfaces`` has it. light (B, 1, H, W) is the shading times the coverage; lit (B, 1, H, W) is n . l in [0, 1].
    """
    return (surface.clamp(0, 0.92) * light + shine[:, None, None, None] * lit**12 * cover).clamp(0, 1)


def painted_main(albedo: Tensor, where: Tensor, main: Tensor, mean_luma: Tensor, rule: Tensor) -> tuple[Tensor, Tensor]:
    """Surfaces (B, 3, H, W) in their main paints (B, M), and the strength (B,) of their highlights."""
    out, shine = torch.zeros_like(albedo), torch.zeros_like(mean_luma)
    for k in (main > 0).any(0).nonzero()[:, 0].tolist():
        rows = (main[:, k] > 0).nonzero()[:, 0]
        some, name = albedo[rows], MAINS[k]
        if name == PLAIN:
            painted = some
        elif name == CLAY:
            painted = torch.full_like(some, CLAY_ALBEDO)
        elif name in COLOURS:
            painted = tint(some, some.new_tensor(COLOURS[name]).expand(len(rows), 3), mean_luma[rows], rule[rows])
        else:
            material = MATERIALS[name]
            mix = (where[rows, FIELDS.index(material.field)][:, None] * 1.5).clamp(-1, 1) * 0.5 + 0.5
            base, other = (some.new_tensor(c)[None, :, None, None] for c in (material.base, material.other))
            factor = light_and_dark(some, mean_luma[rows]).clamp(0.1, 1.8) ** 0.4
            painted = ((base + (other - base) * mix) * factor).clamp(0, BRIGHTEST)
            shine = shine.index_add(0, rows, main[rows, k] * material.highlight)
        out = out.index_add(0, rows, wide(main[rows, k]) * painted)
    return out, shine


def second_part(albedo: Tensor, where: Tensor, second: Tensor, pattern: Tensor, parts: Tensor) -> Tensor:
    """Where the second colour (B, S) goes in patterns (B, P), (B, 1, H, W) in [0, 1]."""
    by_part = ((wide(parts) - luminance(albedo)) / 0.06).clamp(-1, 1) * 0.5 + 0.5
    by_height = (-8 * (where[:, FIELDS.index("y")][:, None] + 0.05)).clamp(-1, 1) * 0.5 + 0.5
    plain = torch.where(wide(parts < 0), by_height, by_part)
    shares = {name: wide(pattern[:, PATTERNS.index(name)]) for name, *_ in MASKS}
    on = plain * (1 - sum(shares.values()))
    for name, field, level, steep in MASKS:
        on = on + shares[name] * (((where[:, FIELDS.index(field)][:, None] - level) * steep).clamp(-1, 1) * 0.5 + 0.5)
    return on * wide(1 - second[:, 0])


def whole_pattern(where: Tensor, share: Tensor) -> Tensor:
    """The colours (B, 3, H, W) of camouflage and of a rainbow from top to bottom, mixed by their shares (B, 2)."""
    blotches = where[:, FIELDS.index("blotches")][:, None]
    first, second, third = (where.new_tensor(c)[None, :, None, None] for c in CAMOUFLAGE)
    camouflage = torch.where(blotches > 0.3, second, torch.where(blotches < -0.35, third, first))
    turn = 2 * math.pi * (0.42 - 0.42 * where[:, FIELDS.index("y")][:, None])
    shift = where.new_tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])[None, :, None, None]
    rainbow = 0.46 + 0.38 * (turn - shift).cos()
    return torch.lerp(camouflage, rainbow, wide(share[:, 1] / share.sum(1).clamp_min(1e-6)))
