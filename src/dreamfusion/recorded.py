"""The scene of a recorded run."""

from __future__ import annotations

import torch

from .device import pick_device
from .run import Run
from .scene.field import RadianceField
from .scene.make import make_scene
from .scene.particles import Particles
from .scene.scene import Scene
from .scene.scene_settings import MeshSettings, SceneSettings, SplatSettings
from .settings.building import stage_configs
from .settings.config import Config
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


def start_scene_of(folder: str, wanted: SceneSettings) -> Scene:
    """The scene of a recorded run as another run, whose first scene is ``wanted``, begins with it (``Config.start``). A field
    becomes as soft as it was when its run began, since the new field hardens again. A mesh or splats begin with its surface as it is."""
    run = Run.open(folder)
    scene, config = load_scene(run)
    if not isinstance(wanted, MeshSettings | SplatSettings):
        progress = min(1.0, run.read_meta()["stage_step"] / (config.schedule_steps or config.steps))
        with own_torch():
            for one in scene.each if isinstance(scene, Particles) else [scene]:
                if isinstance(one, RadianceField):
                    one.soften(progress)
    return scene
