"""The pictures that are judged. Cameras and lights are the evaluation's own and the same for every run."""

from __future__ import annotations

import torch
from torch import Tensor

from ..export.pictures import Kind, render_view
from ..scene.scene import Scene
from ..view.cameras import Cameras, orbit_cameras, uniform
from ..view.view import View, orbit_view
from .janus import VIEWS

GRAY = 0.5
RESOLUTION = 128
"""Judges resize; rendering larger than the bundled one's 64 is its antialiasing."""
SEED_OFFSET = 0x5EED_0F_1D
"""Keeps the evaluation's random numbers apart from every training seed's."""


def random_views(count: int, seed: int = 0) -> View:
    """``count`` looks: azimuths one in each of ``count`` equal sectors, elevations -10 to 45 degrees, the prior's lens and
    distances; lights 10 to 60 degrees above; every other one in front of mid-gray, the others in front of a gray of 0.2 to 0.9."""
    rng = torch.Generator().manual_seed(SEED_OFFSET + seed)
    azimuth = (torch.arange(count) + torch.rand(count, generator=rng)) * (360 / count) - 180
    elevation = uniform(-10, 45, count, rng)
    cameras = Cameras(
        azimuth.deg2rad(), elevation.deg2rad(), uniform(2.3, 2.7, count, rng), torch.full((count,), 47.0).deg2rad()
    )
    above, around = uniform(10, 60, count, rng), uniform(-40, 40, count, rng)
    gray = torch.where(torch.arange(count) % 2 == 0, torch.tensor(GRAY), uniform(0.2, 0.9, count, rng))
    return orbit_view(cameras, RESOLUTION, light_above_deg=above, light_around_deg=around, background=gray[:, None])


def ring() -> View:
    """The looks of the Janus score: twelve azimuths from the front on, 15 degrees above, in front of mid-gray."""
    return orbit_view(orbit_cameras([360 * k / VIEWS for k in range(VIEWS)]), RESOLUTION, background=GRAY)


def draw(scene: Scene, view: View, kind: Kind = "lambertian") -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] of a scene, on the CPU."""
    return render_view(scene, view, kind).cpu()
