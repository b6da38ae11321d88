"""The pictures that are judged: from cameras and under lights of the evaluation's own, the same for every run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..export.pictures import GRAY, Kind, render_views
from ..scene.scene import Scene
from ..view.cameras import Cameras, orbit_cameras, uniform
from .janus import VIEWS

RESOLUTION = 128
"""Judges resize; rendering larger than the bundled one's 64 is its antialiasing."""
SEED_OFFSET = 0x5EED_0F_1D
"""Keeps the evaluation's random numbers apart from every training seed's."""


@dataclass(frozen=True)
class Views:
    """Cameras, light directions in degrees from the camera's own (B,), and grays (B,) behind."""

    cameras: Cameras
    above_deg: Tensor
    around_deg: Tensor
    gray: Tensor

    def part(self, index: int) -> Views:
        """One of the views."""
        c, span = self.cameras, slice(index, index + 1)
        one = Cameras(c.azimuth[span], c.elevation[span], c.radius[span], c.fov[span])
        return Views(one, self.above_deg[span], self.around_deg[span], self.gray[span])


def random_views(count: int, seed: int = 0) -> Views:
    """``count`` views: azimuths one in each of ``count`` equal sectors, elevations -10 to 45 degrees, the prior's lens and
    distances; lights 10 to 60 degrees above; every other one over mid-gray, the others over a gray of 0.2 to 0.9."""
    rng = torch.Generator().manual_seed(SEED_OFFSET + seed)
    azimuth = (torch.arange(count) + torch.rand(count, generator=rng)) * (360 / count) - 180
    elevation = uniform(-10, 45, count, rng)
    cameras = Cameras(
        azimuth.deg2rad(), elevation.deg2rad(), uniform(2.3, 2.7, count, rng), torch.full((count,), 47.0).deg2rad()
    )
    above, around = uniform(10, 60, count, rng), uniform(-40, 40, count, rng)
    gray = uniform(0.2, 0.9, count, rng)
    return Views(cameras, above, around, torch.where(torch.arange(count) % 2 == 0, torch.tensor(GRAY), gray))


def ring() -> Views:
    """The views of the Janus score: twelve azimuths from the front on, 15 degrees above, over mid-gray."""
    same = torch.ones(VIEWS)
    cameras = orbit_cameras([360 * k / VIEWS for k in range(VIEWS)])
    return Views(cameras, 30 * same, 0 * same, GRAY * same)


def draw(scene: Scene, views: Views, kind: Kind = "lambertian", resolution: int = RESOLUTION) -> Tensor:
    """Pictures (B, 3, resolution, resolution) in [0, 1] of a scene, rendered from the field."""
    pictures = []
    for k in range(len(views.gray)):
        one = views.part(k)
        pictures.append(
            render_views(
                scene,
                one.cameras,
                resolution,
                kind,
                light_above_deg=float(one.above_deg),
                light_around_deg=float(one.around_deg),
                background=float(one.gray),
            )
        )
    return torch.cat(pictures).cpu()
