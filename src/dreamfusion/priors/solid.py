"""Solid textures: a few fixed fields over space, out of which patterns and materials are painted (Perlin 1985, "An image
synthesizer"; Peachey 1985, "Solid texturing of complex surfaces").

A field is a function of the place on the object and nothing else. So stripes and grain stay where they are when the camera
turns. The layout network gets them as channels beside what its rays met, and the training pictures are painted with the same
ones.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

FIELDS = ("x", "y", "z", "stripes", "checks", "dots", "blotches", "grain", "speckle", "bricks")
STRIPE, CHECK, DOT, BRICK = 0.42, 0.5, 0.42, (0.44, 0.24)
"""Periods in world units; an object is about two units long. A brick's is its length and its height."""
WAVES = 6


@cache
def waves(frequency: float, seed: int) -> tuple[Tensor, Tensor]:
    """Random wave vectors (``WAVES``, 3) of about this frequency, in radians a unit, and phases (``WAVES``,)."""
    g = torch.Generator().manual_seed(seed)
    towards = torch.randn(WAVES, 3, generator=g)
    towards = towards / towards.norm(dim=1, keepdim=True) * frequency * (0.6 + 0.8 * torch.rand(WAVES, 1, generator=g))
    return towards, 2 * math.pi * torch.rand(WAVES, generator=g)


def noise(points: Tensor, frequency: float, seed: int) -> Tensor:
    """Smooth noise in about [-1, 1] at points (..., 3): a sum of plane waves."""
    towards, phase = (x.to(points) for x in waves(frequency, seed))
    return ((points @ towards.T + phase).sin().mean(-1) * 2.2).clamp(-1, 1)


def fields(points: Tensor) -> Tensor:
    """``FIELDS`` at points (..., 3) of an object in the unit sphere: (..., 10), each in [-1, 1]."""
    x, y, z = points.unbind(-1)

    def wave(along: Tensor, period: float) -> Tensor:
        return (2 * math.pi / period * along).sin()

    # A quarter of a period off, so that sheets through the middle have squares too.
    checks = wave(x + CHECK / 4, CHECK) * wave(y + CHECK / 4, CHECK) * wave(z + CHECK / 4, CHECK)
    dots = (wave(x + DOT / 4, DOT) + wave(y + DOT / 4, DOT) + wave(z + DOT / 4, DOT)) / 3
    warped = y + 0.08 * noise(points, 5.0, 1)
    course = (y / BRICK[1]).floor()
    joints = torch.minimum(
        (2 * (y / BRICK[1] - course) - 1).abs().neg() + 1,
        (((x + z) / BRICK[0] + 0.5 * (course % 2)) % 1 * 2 - 1).abs().neg().add(1) * (BRICK[0] / BRICK[1]),
    )
    grain = (2 * math.pi / 0.16 * warped).sin() * 0.6 + 0.4 * noise(points, 14.0, 2)
    return torch.stack(
        [
            x, y, z, wave(y, STRIPE), (3 * checks).tanh(), dots, noise(points, 6.0, 3), grain, noise(points, 18.0, 4),
            (6 * joints - 1.5).tanh(),
        ],
        -1,
    ).clamp(-1, 1)  # fmt: skip
