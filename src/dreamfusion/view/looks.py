"""Where a step of a run looks from: views drawn at random from the settings."""

from __future__ import annotations

import torch

from .cameras import sample_cameras
from .lights import sample_lights
from .shadings import choose_shading
from .view import View
from .view_settings import ShadingSettings, ViewSettings


def sample_view(
    settings: ViewSettings,
    shading: ShadingSettings,
    progress: float,
    rng: torch.Generator,
    *,
    count: int,
    size: int,
    group: int = 1,
) -> View:
    """Draw ``count`` looks at ``progress`` in [0, 1], in groups of ``group`` that stand evenly around the object and share
    elevation and distance. The background is chosen later (``backdrops``)."""
    cameras = sample_cameras(settings, count, rng, group)
    lights = sample_lights(settings, cameras, rng)
    chosen = choose_shading(shading, progress, rng)
    prompt = torch.zeros(count, dtype=torch.int64)
    return View(cameras, lights, size, chosen, settings.ambient, prompt=prompt, group=group)
