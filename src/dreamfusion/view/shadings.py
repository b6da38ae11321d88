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


def known_shadings(settings: ShadingSettings, knows_depth: bool, told: bool) -> ShadingSettings:
    """The same settings without the views that a prior cannot be asked about: depths, unless it knows them and is told the camera;
    normals too, if it knows depths and is not told it. Any other prior sees normals as a picture (Fantasia3D). UserError where
    no weight is left."""
    if knows_depth and told:
        return settings
    try:
        return ShadingSettings(**settings.model_dump() | {"depth": 0.0} | ({"normals": 0.0} if knows_depth else {}))
    except ValidationError:
        raise UserError(
            "the prior cannot be asked about depths or normals here, and no other shading has a weight; set prior.asks to "
            "'camera', with the bundled prior, or shading.textureless above 0"
        ) from None
