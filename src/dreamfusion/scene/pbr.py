"""Surfaces with a base colour, a roughness and a share of metal (glTF 2.0, appendix B), in the light of a studio, by the split
sum (Karis 2013, "Real Shading in Unreal Engine 4"). N points.

The studio is a uniform dome and a soft lamp about the direction of the key light. The lamp's radiance is that of
``LAMP`` exp(k (c - 1)), c the cosine of the angle from its middle, such that a matte white surface is lit as by
``shading.light_factor``, up to the lamp's size. So a matte surface looks as the same albedo does elsewhere in the package.
As everywhere in the package, light is multiplied with colours as screens show them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

LAMP = 30.0
"""Sharpness k of the lamp: its radiance falls to half within 12 degrees."""
DIELECTRIC = 0.04
"""Reflectance of what is no metal, seen from the front."""
SMOOTHEST = 0.05
"""Least roughness in the tables."""
SIDE, TURNS = 48, 96
QUADRATURE = 2048


def ggx(cosine: Tensor, alpha: Tensor) -> Tensor:
    """D(h), the distribution of microfacets whose normals have ``cosine`` with the surface's (Walter et al. 2007, eq. 33)."""
    return alpha**2 / (math.pi * (cosine**2 * (alpha**2 - 1) + 1) ** 2)


def smith(nl: Tensor, nv: Tensor, alpha: Tensor) -> Tensor:
    """G / (4 nl nv), masking and shadowing correlated by height (Heitz 2014, eq. 99)."""
    a2 = alpha**2
    return 0.5 / (nl * (nv**2 * (1 - a2) + a2).sqrt() + nv * (nl**2 * (1 - a2) + a2).sqrt())


def roughnesses() -> Tensor:
    """The roughnesses (SIDE,) of the tables, float64. alpha is their square."""
    return torch.linspace(SMOOTHEST, 1, SIDE, dtype=torch.float64)


@lru_cache(maxsize=1)
def reflectance_table() -> Tensor:
    """(2, SIDE, SIDE): for roughness (rows) and the cosine towards the camera from 0 to 1 (columns), the two parts of what a
    surface in white light reflects: F0 * first + second (Karis 2013, with Schlick's Fresnel term)."""
    count = 48
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    alpha = roughnesses()[:, None, None, None] ** 2
    nv = torch.linspace(0, 1, SIDE, dtype=torch.float64).clamp_min(1e-3)[None, :, None, None]
    nh = ((1 - u) / (1 + (alpha**2 - 1) * u)).sqrt()  # half vectors, drawn by D nh
    turn = torch.cos(math.pi * u)[:, None]  # half of the circle, as the other half is its mirror
    vh = (nh * nv + ((1 - nh**2) * (1 - nv**2)).clamp_min(0).sqrt() * turn).clamp_min(1e-9)
    nl = 2 * vh * nh - nv
    value = torch.where(nl > 0, smith(nl.clamp_min(1e-9), nv, alpha) * nl * 4 * vh / nh, 0.0)
    fresnel = (1 - vh) ** 5
    return torch.stack([(value * (1 - fresnel)).mean((2, 3)), (value * fresnel).mean((2, 3))]).float()


def lamp_through(weight: Tensor, theta: Tensor) -> Tensor:
    """The mean radiance (…, TURNS) of the lamp, about directions that are at ``turned`` angles from its middle, weighted by
    ``weight`` (…, Q) of the angles theta (Q,) from these. The mean over the circle is a Bessel function."""
    away = turned().double()
    k, sine = LAMP, torch.sin(theta) * torch.sin(away)[:, None]
    exponent = k * (torch.cos(theta) * torch.cos(away)[:, None] - 1) + k * sine
    around = torch.exp(exponent) * torch.special.i0e(k * sine)  # (TURNS, Q)
    weighted = weight * torch.sin(theta)
    strength = k / 2 / (1 - math.exp(-2 * k))  # so that it lights a white surface that faces it by 1
    return strength * (weighted @ around.T) / weighted.sum(-1, keepdim=True)


def turned() -> Tensor:
    """The angles (TURNS,) of the tables: even steps of sin(angle / 2), so that they are dense about the lamp."""
    return 2 * torch.asin(torch.linspace(0, 1, TURNS, dtype=torch.float64))


def _angles() -> Tensor:
    return (torch.arange(QUADRATURE, dtype=torch.float64) + 0.5) / QUADRATURE * math.pi / 2


@lru_cache(maxsize=1)
def lamp_table() -> Tensor:
    """(SIDE + 1, TURNS): the lamp as a surface of each roughness mirrors it, by the angle of the mirrored direction from it, with
    the camera straight above; and in the last row, as a matte surface sees it, over pi, by the angle of its normal.

    Karis (2013) weighs directions by D nl. Here masking counts too, so that straight above the sum is exact.
    """
    theta = _angles()
    alpha, cosine = roughnesses()[:, None] ** 2, torch.cos(theta)
    weight = ggx(torch.cos(theta / 2), alpha) * smith(cosine, torch.ones_like(cosine), alpha) * cosine
    return torch.cat([lamp_through(weight, theta), lamp_through(cosine[None], theta)]).float()


def look_up(table: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Values (C, N) of tables (C, H, W) at rows and columns (N,) from 0 to 1, bilinearly."""
    where = torch.stack([column, row], -1) * 2 - 1
    table = table.to(where)[None]
    return torch.nn.functional.grid_sample(
        table, where[None, None], padding_mode="border", align_corners=True
    )[0, :, 0]  # fmt: skip


def lit(base: Tensor, finish: Tensor, normal: Tensor, towards: Tensor, light: Tensor, ambient: float) -> Tensor:
    """Colours (N, 3) in [0, 1] of surfaces of base colour (N, 3), roughness and metal (N, 2), with normals, directions to the
    camera and to the lamp's middle (N, 3). ``ambient`` is the dome's share of the light."""

    def across(cosine: Tensor) -> Tensor:
        return ((1 - cosine) / 2).clamp(1e-6, 1).sqrt()

    roughness, metal = finish[:, 0], finish[:, 1:]
    rough = (roughness - SMOOTHEST) / (1 - SMOOTHEST)
    nv = (normal * towards).sum(-1).clamp(0, 1)
    mirrored = 2 * nv[:, None] * normal - towards
    table = lamp_table()
    (lamp,) = look_up(table[None, :-1], rough, across((mirrored * light).sum(-1)))
    (matte,) = look_up(table[None, -1:], torch.zeros_like(nv), across((normal * light).sum(-1)))
    first, second = look_up(reflectance_table(), rough, nv)
    facing = torch.lerp(base.new_full((1,), DIELECTRIC), base, metal)
    shine = (facing * first[:, None] + second[:, None]) * (ambient + (1 - ambient) * lamp)[:, None]
    return (base * (1 - metal) * (ambient + (1 - ambient) * matte)[:, None] + shine).clamp_max(1)
