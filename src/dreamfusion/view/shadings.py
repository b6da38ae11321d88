"""Which shading a picture gets."""

from __future__ import annotations

import torch

from .view import Shading
from .view_settings import ShadingSettings

SHADINGS: tuple[Shading, ...] = ("albedo", "lambertian", "textureless", "latent", "normals")


def choose_shading(settings: ShadingSettings, progress: float, generator: torch.Generator) -> Shading:
    """Draw a shading by the settings' weights; albedo alone while progress < ``albedo_until``.

    One number is always drawn, so that a change of one setting does not change the random numbers of the others.
    The settings' validation keeps one weight above zero.
    """
    weights = [settings.albedo, settings.lambertian, settings.textureless, settings.latent, settings.normals]
    drawn = torch.rand((), generator=generator, device=generator.device).item() * sum(weights)
    if progress < settings.albedo_until or settings.albedo_until == 1:
        return "albedo"
    for shading, weight in zip(SHADINGS, weights, strict=True):
        if drawn < weight:
            return shading
        drawn -= weight
    return SHADINGS[max(i for i, w in enumerate(weights) if w > 0)]
