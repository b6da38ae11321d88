"""Stand-ins for the tests: a prior with a closed form, small settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dreamfusion.distillation.rule import Direction
from dreamfusion.distillation.rule_settings import DistillationSettings
from dreamfusion.distillation.rules import make_rule
from dreamfusion.priors.prior import Prior, Scorer, broadcast, cosine_schedule
from dreamfusion.priors.question import Question, Tokens, Words
from dreamfusion.view.cameras import CONDITION_FOV_DEG, Cameras
from dreamfusion.view.lights import camera_lights
from dreamfusion.view.view import View

SMALL = {
    "steps": 6,
    "views_per_step": 1,
    "resolution": 12,
    "threads": 1,
    "scene.fast": False,
    "scene.levels": "6,10",
    "scene.samples": 12,
    "export.resolution": 24,
    "export.fit": False,
    "export.texture_size": 64,
    "export.faces": 300,
    "export.maps": "none",
    "export.turntable_frames": 0,
}


class PixelPrior(Prior):
    """All that a prior of pictures is, but for what it knows: ``predict_noise`` is left to others."""

    id, hash, resolution = "fake", "0" * 64, 12
    device = torch.device("cpu")

    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Tokens:
        return Tokens(torch.zeros(len(captions), 2, 4), torch.ones(len(captions), 2, dtype=torch.bool))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return cosine_schedule(t)

    def encode(self, picture: Tensor) -> Tensor:
        return picture * 2 - 1

    def decode(self, z: Tensor) -> Tensor:
        return (z + 1) / 2

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, self.resolution, self.resolution)

    def exact_noise(self, z_t: Tensor, t: Tensor, clean: Tensor) -> Tensor:
        """The noise in z_t if the clean pictures, in [-1, 1], are known: (z_t - alpha x) / sigma."""
        alpha, sigma = (broadcast(x, z_t) for x in self.alpha_sigma(t))
        return (z_t - alpha * clean) / sigma


class GrayBallPrior(PixelPrior):
    """Knows one picture, a dark disc on gray, and answers its exact score; ``on_ask`` is called at each question."""

    id = "gray-ball"

    def __init__(self, on_ask: Callable[[], None] | None = None):
        x = torch.linspace(-1, 1, 12)
        disc = (x[:, None] ** 2 + x[None] ** 2 < 0.5).float()
        self.clean = -0.5 * disc.expand(1, 3, 12, 12)
        self.on_ask = on_ask

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        if self.on_ask:
            self.on_ask()
        return (self.exact_noise(z_t, t, self.clean),) * len(about)


def looks(cameras: Sequence[Sequence[float]], background: Tensor | None = None) -> View:
    """A view from cameras told as a prior is told them (azimuth, elevation, distance), lit from 30 degrees above them, in front of
    colours (B, 3) or of nothing chosen yet."""
    azimuth, elevation, distance = torch.tensor(cameras).unbind(1)
    fov = torch.full_like(azimuth, CONDITION_FOV_DEG).deg2rad()
    behind = None if background is None else background[:, :, None, None]
    seen_from = Cameras(azimuth, elevation, distance, fov)
    lights = camera_lights(seen_from, torch.full_like(azimuth, 30.0).deg2rad(), torch.zeros_like(azimuth))
    return View(seen_from, lights, 64, background=behind)


def ask(
    words: Words, cameras: Sequence[Sequence[float]] | None = None, background: Tensor | None = None, **rest: Any
) -> Question:
    """A question about words and, where they are given, cameras; ``rest``: its other fields."""
    if cameras is None:
        assert isinstance(words, Tokens)
        view, asks = looks([[0.0, 0.0, 2.5]] * len(words), background), "words"
    else:
        view, asks = looks(cameras, background), "camera"
    return Question(words, view, **{"asks": asks, **rest})


def direction(
    picture: Tensor, prior: Prior | Scorer, question: Question, t: Tensor, noise: Tensor, settings: DistillationSettings
) -> Direction:
    """What the settings' rule answers."""
    return make_rule(settings, prior).direction(picture, question, t, noise)


def options(settings: dict[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    return [f"--{name.replace('_', '-')}={str(value).lower()}" for name, value in settings.items()]
