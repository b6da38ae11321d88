"""Settings to scene."""

from __future__ import annotations

import torch

from .grid import GridField
from .mlp import MlpField
from .scene import Scene
from .scene_settings import GridSettings, SceneSettings


def make_scene(settings: SceneSettings, rng: torch.Generator, device: torch.device | str = "cpu") -> Scene:
    """A fresh scene on ``device``; the same settings and seed give the same scene."""
    scene = GridField(settings, rng) if isinstance(settings, GridSettings) else MlpField(settings, rng)
    return scene.to(device)
