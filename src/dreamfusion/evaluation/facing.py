"""From which side pictures show a thing: each is compared with the vocabulary's shapes of the prompt's name from all around.

The bundled prior draws these shapes, in the prompt's look and with the same lens. All shapes of the name are compared.
Each picture is read alone, so a thing may show its front on several sides.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..priors.bundled_prior import BundledPrior
from ..priors.outlines import shape_of
from .janus import VIEWS

STEPS = 2 * VIEWS
"""Azimuths from which each shape is drawn."""
ELEVATION_DEG, DISTANCE = 15.0, 2.5
"""Where the cameras of a ring stand (``judged_views.ring``)."""
SIDE = 32
"""Pixels a side of what is compared."""
MEANT = 0.02
"""A shape counts as one of the prompt's name from this share on."""
COVER_WEIGHT = 3.0
SHARPNESS = 700.0
"""Log-odds between two sides for a difference of 1 between their mean squared errors."""


@cache
def bundled() -> BundledPrior:
    """The prior whose shapes are compared, loaded once."""
    return BundledPrior()


def around() -> Tensor:
    """Cameras (STEPS, 3) around a thing, from its front on: azimuth, elevation, distance."""
    turn = torch.arange(STEPS) * (2 * math.pi / STEPS)
    return torch.stack([turn, torch.full((STEPS,), math.radians(ELEVATION_DEG)), torch.full((STEPS,), DISTANCE)], 1)


def small(pictures: Tensor) -> Tensor:
    """Pictures (V, 4, H, W) at SIDE x SIDE."""
    return F.interpolate(pictures, (SIDE, SIDE), mode="area")


def beliefs(errors: Tensor) -> Tensor:
    """Mean squared errors (V, shapes, STEPS) as probabilities (V, VIEWS): class k is an azimuth within 15 degrees of 30 k."""
    share = (-errors * SHARPNESS).flatten(1).softmax(1).unflatten(1, errors.shape[1:]).sum(1)
    exact, between = share[:, ::2], share[:, 1::2]  # one halfway between two classes belongs to both
    return exact + (between + between.roll(1, 1)) / 2


def shapes_meant(prompt: str) -> list[int]:
    """The shapes, by number, that show the name in a prompt; none where the bundled prior knows no name in it."""
    meant = bundled().meant(prompt)
    return [] if meant is None else (meant > MEANT).nonzero()[:, 0].tolist()


@torch.no_grad()
def azimuths(pictures: Tensor, cover: Tensor, prompt: str, without: tuple[int, ...] = ()) -> Tensor:
    """Probabilities (V, VIEWS) of the side that each picture of a ring shows.

    pictures (V, 3, H, W) in [0, 1] in front of mid-gray, from ``around``'s height and distance; cover (V, H, W) in [0, 1];
    ``without``: shapes, by number, that are not compared. UserError if the bundled prior knows no name in the prompt.
    """
    shapes = [k for k in shapes_meant(prompt) if k not in without]
    if not shapes:
        raise UserError(f"the sides of {prompt!r} cannot be told: the bundled prior knows no such thing")
    layout, subject, cameras = bundled().layout, bundled().embed([prompt])[0], around()
    seen = small(torch.cat([2 * pictures - 1, cover[:, None]], 1).float())
    weight = torch.tensor([1.0, 1.0, 1.0, COVER_WEIGHT])[:, None, None]
    errors = []
    for k in shapes:
        thing = shape_of(layout, k)
        drawn = small(layout.draw(thing, subject.look[None], cameras, stretch=subject.stretch).float())
        errors.append(((seen[:, None] - drawn[None]).square() * weight).mean((2, 3, 4)))
    return beliefs(torch.stack(errors, 1))
