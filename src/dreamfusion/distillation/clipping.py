"""Bounds on a rule's answer, for any rule: by pixel of the picture, or by element of the prior's space."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .rule import Direction


def clip_pixels(direction: Direction, bound: float) -> Direction:
    """Pixel-wise gradient clipping (Pan et al. 2023, PGC-3D, eq. 6): a pixel's colour gradient keeps its hue, and its
    largest channel stays below ``bound``; 0 is off. The bound is for the gradient of a sum over pixels, as in the paper."""
    if bound == 0:
        return direction
    gradient = direction.gradient
    bound = bound / (gradient.shape[-2] * gradient.shape[-1])
    largest = gradient.abs().amax(1, keepdim=True)
    factor = (bound / largest.clamp_min(torch.finfo(gradient.dtype).tiny)).clamp_max(1)
    figures = direction.figures | {"clipped": (largest > bound).float().mean()}
    return replace(direction, gradient=gradient * factor, figures=figures)


def clip_score(residual: Tensor, bound: float) -> Tensor:
    """Each element of a residual within +-bound; 0 is off (Hong et al. 2023, D-SDS, eq. 9, with a bound that grows)."""
    return residual.clamp(-bound, bound) if bound else residual
