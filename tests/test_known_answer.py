"""The whole chain against a known answer: an oracle prior holds the exact score of a known object's own pictures.

For one picture x a camera, p(z_t) is normal around alpha x, so the best noise prediction is (z_t - alpha x) / sigma.
Score distillation must then rebuild the object from nothing, and look right from cameras that were never used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamfusion.priors.question import Question, Words
from dreamfusion.scene.rays import camera_rays, to_pictures
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import Cameras
from dreamfusion.view.lights import camera_lights
from dreamfusion.view.view import orbit_view
from tests.fakes import PixelPrior

SPHERES = [
    ((0.0, -0.15, 0.0), 0.5, (0.8, 0.2, 0.15)),
    ((0.0, 0.45, 0.2), 0.3, (0.2, 0.7, 0.3)),
    ((0.5, -0.2, 0.3), 0.22, (0.2, 0.3, 0.9)),
]
AMBIENT = 0.5


def cameras_of(camera: Tensor) -> Cameras:
    """Cameras from what a prior is told (47 degree lens, so that the apparent distance is the radius)."""
    return Cameras(camera[:, 0], camera[:, 1], camera[:, 2], torch.full((len(camera),), math.radians(47.0)))


def photograph(cameras: Cameras, size: int, background: Tensor) -> Tensor:
    """The known object in closed form: lit spheres before colours (B, 3), (B, 3, size, size), 2 x 2 rays a pixel."""
    fine = size * 2
    rays = camera_rays(cameras, fine)
    angle = torch.full_like(cameras.azimuth, math.radians(30.0))
    light = camera_lights(cameras, angle, torch.zeros_like(angle)).repeat_interleave(fine * fine, 0)
    colour = background.repeat_interleave(fine * fine, 0)
    nearest = torch.full_like(rays.origins[:, 0], math.inf)
    for centre, radius, albedo in SPHERES:
        offset = rays.origins - torch.tensor(centre)
        b = (offset * rays.directions).sum(-1)
        root = b**2 - offset.square().sum(-1) + radius**2
        distance = -b - root.clamp_min(0).sqrt()
        hit = (root > 0) & (distance < nearest)
        normal = (offset + distance[:, None] * rays.directions) / radius
        lit = AMBIENT + (1 - AMBIENT) * (normal * light).sum(-1).clamp_min(0)
        colour = torch.where(hit[:, None], torch.tensor(albedo) * lit[:, None], colour)
        nearest = torch.where(hit, distance, nearest)
    return torch.nn.functional.avg_pool2d(to_pictures(colour, fine), 2)


class OraclePrior(PixelPrior):
    """Knows one object from every camera, exactly."""

    id = "oracle"

    def __init__(self, resolution: int):
        self.resolution = resolution

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        behind = question.view.plain_background
        assert question.asks == "camera" and behind is not None
        clean = photograph(cameras_of(question.view.cameras.condition()), self.resolution, behind)
        return (self.exact_noise(z_t, t, self.encode(clean)),) * len(about)


def rebuild(steps: int, size: int, **overrides: Any) -> float:
    """PSNR in dB of a scene distilled from the oracle, on eight views never rendered in training, before white: what hides
    before another colour shows there."""
    settings = {
        "steps": steps, "resolution": size, "views_per_step": 4, "distillation.guidance_scale": 0.0, "shading.albedo": 0.0,
        "shading.lambertian": 1.0, "shading.textureless": 0.0, "view.elevation_deg": (-30.0, 60.0), "threads": 1, "seed": 3,
    } | overrides  # fmt: skip
    config = resolve("balanced", settings, "a known object")
    trainer = Trainer(config, OraclePrior(size))
    while trainer.done < steps:
        trainer.step()
    angles = torch.tensor([[math.radians(k * 45 + 11), math.radians(-20 + 10 * k), 2.5] for k in range(8)])
    cameras = cameras_of(angles)
    view = orbit_view(cameras, size, "lambertian", light_above_deg=30.0, ambient=AMBIENT, background=1.0)
    assert view.background is not None
    with torch.no_grad():
        picture = trainer.scene.render(view).over(view.background)
    white = torch.ones(8, 3)
    return float(-10 * (picture - photograph(cameras, size, white)).square().mean().log10())


def test_sds_rebuilds_a_known_object_as_a_grid() -> None:
    assert rebuild(150, 24, **{"scene.levels": "12,30"}) >= 25.0  # more vertices than pixels


@pytest.mark.slow
def test_sds_rebuilds_a_known_object_at_full_size() -> None:
    assert rebuild(300, 64) >= 32.0


@pytest.mark.slow
def test_sds_rebuilds_a_known_object_as_an_mlp() -> None:
    mlp = {"scene.kind": "mlp", "scene.hidden": 64, "scene.depth": 4, "scene.samples": 48, "scene.density_scale": 20.0}
    assert rebuild(150, 32, views_per_step=2, **mlp) >= 22.0
