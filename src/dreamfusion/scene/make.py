"""Settings to scene."""

from __future__ import annotations

import torch

from .grid import GridField
from .mesh_scene import MeshScene
from .mlp import MlpField
from .particles import Particles
from .scene import Scene
from .scene_settings import GridSettings, MeshSettings, SceneSettings, SplatSettings
from .splat_scene import SplatScene


def make_scene(settings: SceneSettings, rng: torch.Generator, device: torch.device | str = "cpu") -> Scene:
    """A fresh scene on ``device``; the same settings and seed give the same scene."""
    if settings.particles > 1:
        return Particles([make_one(settings, rng) for _ in range(settings.particles)]).to(device)
    return make_one(settings, rng).to(device)


def make_one(settings: SceneSettings, rng: torch.Generator) -> Scene:
    """One scene."""
    if isinstance(settings, MeshSettings):
        return MeshScene(settings, rng)
    if isinstance(settings, SplatSettings):
        return SplatScene(settings, rng)
    return GridField(settings, rng) if isinstance(settings, GridSettings) else MlpField(settings, rng)
