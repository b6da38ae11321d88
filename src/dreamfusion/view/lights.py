"""How the object is lit: one key light a picture, given relative to its camera."""

from __future__ import annotations

import torch
from torch import Tensor

from .cameras import Cameras, uniform
from .view_settings import ViewSettings


def camera_lights(cameras: Cameras, above: Tensor, around: Tensor) -> Tensor:
    """Unit directions (B, 3) in the world towards lights that stand ``above`` and ``around`` (B,) in radians.

    In camera axes (x right, y up, z towards the viewer) a light is at (sin r cos v, sin v, cos r cos v) for an angle v
    above and a turn r about the camera's vertical: (0, 0) is a lamp at the camera.
    """
    right, up, back = cameras.axes()
    x, y, z = around.sin() * above.cos(), above.sin(), around.cos() * above.cos()
    return x[:, None] * right + y[:, None] * up + z[:, None] * back


def sample_lights(settings: ViewSettings, cameras: Cameras, generator: torch.Generator) -> Tensor:
    """One unit direction (B, 3) towards the key light for each camera, uniform in the settings' ranges."""
    above = torch.deg2rad(uniform(*settings.light_above_deg, len(cameras), generator))
    around = torch.deg2rad(uniform(*settings.light_around_deg, len(cameras), generator))
    return camera_lights(cameras, above.to(cameras.azimuth), around.to(cameras.azimuth))
