"""Which shading a picture gets."""

from __future__ import annotations

import torch
from pydantic import ValidationError

from ..errors import UserError
from .view import Shading
from .view_settings import ShadingSettings

SHADINGS: tuple[Shading, ...] = ("albedo", "lambertian", "textureless", "latent", "normals", "depth")


def choose_shading(settings: ShadingSettings, progress: float, generator: torch.Generator) -> Shading:
    """Draw a shading by the settings' weights; albedo alone while progress < ``albedo_until``.

    One number is always drawn, so that a change of one setting does not change the random numbers of the others.
    The settings' validation keeps one weight above zero.
    """
    weights: list[float] = [getattr(settings, name) for name in SHADINGS]
    drawn = torch.rand((), generator=generator, device=generator.device).item() * sum(weights)
    if progress < settings.albedo_until or settings.albedo_until == 1:
        return "albedo"
    for shading, weight in zip(SHADINGS, weights, strict=True):
        if drawn < weight:
            return shading
        drawn -= weight
    return SHADINGS[max(i for i, w in enumerate(weights) if w > 0)]


def without_depth(settings: ShadingSettings) -> ShadingSettings:
    """The same settings without views of depths, for a prior that knows none. UserError where they have no others."""
    try:
        return ShadingSettings(**settings.model_dump() | {"depth": 0.0})
    except ValidationError:
        raise UserError(
            "shading.depth is the only weight above 0, and this prior knows no depths, or is not told the camera"
        ) from None
