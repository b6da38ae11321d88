"""Settings to scene."""

from __future__ import annotations

import torch

from .field import RadianceField
from .grid import GridField
from .mlp import MlpField
from .particles import Particles
from .scene import Scene
from .scene_settings import GridSettings, SceneSettings


def make_scene(settings: SceneSettings, rng: torch.Generator, device: torch.device | str = "cpu") -> Scene:
    """A fresh scene on ``device``; the same settings and seed give the same scene."""
    if settings.particles > 1:
        return Particles([make_field(settings, rng) for _ in range(settings.particles)]).to(device)
    return make_field(settings, rng).to(device)


def make_field(settings: SceneSettings, rng: torch.Generator) -> RadianceField:
    """One field."""
    return GridField(settings, rng) if isinstance(settings, GridSettings) else MlpField(settings, rng)
