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
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.view import orbit_view
from tests.fakes import PixelPrior
from tests.known_object import AMBIENT, cameras_of, photograph


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
