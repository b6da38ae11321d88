"""The scene of a recorded run."""

from __future__ import annotations

import torch

from .device import pick_device
from .run import Run
from .scene.make import make_scene
from .scene.scene import Scene
from .settings.config import Config
from .settings.names import stage_configs
from .stage import load_part
from .torch_state import kept_random, own_torch


@own_torch()
@kept_random()
def load_scene(run: Run) -> tuple[Scene, Config]:
    """The scene as the run's checkpoint has it, and the settings of the stage that made it."""
    tensors, meta = run.load_checkpoint()
    config = stage_configs(run.config)[meta.get("stage", 0)]
    scene = make_scene(config.scene, torch.Generator().manual_seed(config.seed), pick_device(config.device))
    load_part(scene, tensors, "scene")
    return scene, config
