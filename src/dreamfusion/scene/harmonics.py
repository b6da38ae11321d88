"""Colours that depend on the direction of view: real spherical harmonics up to degree 3, with the Condon-Shortley phase."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLAT = 0.5 / math.sqrt(math.pi)
"""Y_00, the one that is the same in all directions."""


def basis(degree: int, directions: Tensor) -> Tensor:
    """Y_lm (..., (degree + 1)^2) in unit directions (..., 3): l rising, and m rising from -l to l within it.

    In Cartesian form (Sloan 2008, "Stupid spherical harmonics tricks", appendix A2); odd m are negated.
    """
    x, y, z = directions.unbind(-1)
    found = [torch.full_like(x, FLAT)]
    if degree >= 1:
        a = math.sqrt(3 / (4 * math.pi))
        found += [-a * y, a * z, -a * x]
    if degree >= 2:
        a, b = math.sqrt(15 / math.pi) / 2, math.sqrt(5 / math.pi) / 4
        found += [a * x * y, -a * y * z, b * (3 * z * z - 1), -a * x * z, a / 2 * (x * x - y * y)]
    if degree >= 3:
        a, b = math.sqrt(35 / (2 * math.pi)) / 4, math.sqrt(105 / math.pi) / 2
        c, d = math.sqrt(21 / (2 * math.pi)) / 4, math.sqrt(7 / math.pi) / 4
        found += [
            -a * y * (3 * x * x - y * y),
            b * x * y * z,
            -c * y * (5 * z * z - 1),
            d * z * (5 * z * z - 3),
            -c * x * (5 * z * z - 1),
            b / 2 * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]
    return torch.stack(found, -1)


def coloured(coefficients: Tensor, directions: Tensor) -> Tensor:
    """Colours (B, N, 3) in [0, 1]: 1/2 + sum_k c_k Y_k, of coefficients (N, K, 3) in unit directions (B, N, 3) from the camera
    to the splat (Kerbl et al. 2023). With one coefficient all directions see the same."""
    if coefficients.shape[1] == 1:
        seen = (0.5 + FLAT * coefficients[:, 0])[None].expand(len(directions), -1, -1)
    else:
        degree = math.isqrt(coefficients.shape[1]) - 1
        seen = 0.5 + torch.einsum("bnk,nkc->bnc", basis(degree, directions), coefficients)
    return seen.clamp(0, 1)


def flat_colour(coefficients: Tensor) -> Tensor:
    """The mean colours (N, 3) over all directions."""
    return (0.5 + FLAT * coefficients[:, 0]).clamp(0, 1)


def coefficients_of(colours: Tensor, degree: int) -> Tensor:
    """Coefficients (N, (degree + 1)^2, 3) of colours (N, 3) that are the same in all directions."""
    made = colours.new_zeros(len(colours), (degree + 1) ** 2, 3)
    made[:, 0] = (colours - 0.5) / FLAT
    return made


def of_degree(coefficients: Tensor, degree: int) -> Tensor:
    """The same coefficients (N, K, 3) with as many as a degree has: cut off, or followed by zeros."""
    count = (degree + 1) ** 2
    missing = coefficients.new_zeros(len(coefficients), max(0, count - coefficients.shape[1]), 3)
    return torch.cat([coefficients[:, :count], missing], 1)
