"""Settings to scene."""

from __future__ import annotations

import torch

from .scene_settings import SceneSettings
from .field import RadianceField
from .grid import GridField
from .mlp import MlpField


def make_scene(
    settings: SceneSettings, generator: torch.Generator, device: torch.device | str = "cpu"
) -> RadianceField:
    """A fresh scene on ``device``; the same settings and seed give the same scene."""
    field = GridField if settings.kind == "grid" else MlpField
    return field(settings, generator).to(device)
