"""How pictures are roughened: moved, blurred, noisy, half transparent, over anything; and pictures of nothing.

The judge will look at volume renderings, which are all of that, in front of any background. So that is what it is shown, and it is
shown junk too, which it must call nothing. Pictures are S pixels a side; blur and grain are as of 64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(low: float, high: float, count: int, rng: torch.Generator) -> Tensor:
    """(count,) in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=rng)


def moved(pixels: Tensor, flip: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Layers (B, C, S, S) turned by up to 8 degrees, shifted by up to 9 %, scaled by 0.72 to 1.15, all of it times ``strength``
    (B,); mirrored where ``flip`` (B,)."""
    count = len(pixels)
    turn, scale = uniform(-0.14, 0.14, count, rng) * strength, uniform(0.72, 1.15, count, rng) ** -strength
    c, s = turn.cos() * scale, turn.sin() * scale
    sign = torch.where(flip, -1.0, 1.0)
    shift = uniform(-0.18, 0.18, 2 * count, rng).reshape(2, count) * strength
    matrix = torch.stack([torch.stack([c * sign, -s, shift[0]], -1), torch.stack([s * sign, c, shift[1]], -1)], 1)
    grid = F.affine_grid(matrix, [count, 1, *pixels.shape[2:]], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def smooth_noise(count: int, size: int, rng: torch.Generator, channels: int = 3, side: int = 64) -> Tensor:
    """Soft random colours, (count, channels, side, side) in [0, 1], from a grid of ``size`` x ``size`` numbers."""
    coarse = torch.rand(count, channels, size, size, generator=rng)
    return F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)


def backgrounds(count: int, rng: torch.Generator, side: int = 64) -> Tensor:
    """(count, 3, side, side): mid-gray in half, else a gray, a colour, a gradient or blotches."""
    kind = torch.rand(count, generator=rng)[:, None, None, None]
    out = torch.full((count, 3, side, side), 0.5)
    gray = torch.rand(count, 1, 1, 1, generator=rng)
    out = torch.where(kind > 0.5, gray.expand_as(out), out)
    out = torch.where(kind > 0.65, torch.rand(count, 3, 1, 1, generator=rng).expand_as(out), out)
    out = torch.where(kind > 0.8, smooth_noise(count, 2, rng, side=side), out)
    return torch.where(kind > 0.9, smooth_noise(count, 8, rng, side=side), out)


def blurred(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Half of the batch, blurred by a Gaussian of one of three widths up to 1.6 pixels of 64."""
    out, scale = pictures.clone(), pictures.shape[-1] / 64
    for sigma, part in zip((0.6, 1.0, 1.6), torch.randperm(len(pictures), generator=rng).chunk(6), strict=False):
        x = torch.arange(-4, 5) / (sigma * scale)
        line = (-(x**2) / 2).exp()
        line = (line / line.sum()).expand(3, 1, -1)
        soft = F.conv2d(F.pad(pictures[part], (4, 4, 4, 4), mode="replicate"), line[:, :, None, :], groups=3)
        out[part] = F.conv2d(soft, line[:, :, :, None], groups=3)
    return out


def junk(count: int, rng: torch.Generator, side: int = 64) -> Tensor:
    """Pictures of nothing: white noise, soft blotches of several sizes, plain backgrounds, a random blob."""
    kinds = [torch.rand(count, 3, side, side, generator=rng)]
    kinds += [smooth_noise(count, size, rng, side=side) for size in (4, 16)]
    blob = (smooth_noise(count, 5, rng, 1, side) * 12 - 6).sigmoid()
    kinds += [
        backgrounds(count, rng, side),
        blob * smooth_noise(count, 3, rng, side=side) + (1 - blob) * 0.5,
        0.5 + 0.2 * torch.randn(count, 3, side, side, generator=rng),
    ]
    pick = torch.randint(len(kinds), (count,), generator=rng)
    return torch.stack(kinds)[pick, torch.arange(count)].clamp(0, 1)


def grain(shape: torch.Size, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Noise of a strength of its own for each picture, up to 0.08; none in three of seven. What a box of pixels has left of it
    where pictures are smaller than 64."""
    level = uniform(-0.06, 0.08, shape[0], rng).clamp_min(0) * strength * (shape[-1] / 64)
    return torch.randn(shape, generator=rng) * level[:, None, None, None]
