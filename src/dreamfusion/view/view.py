"""The one type for looks: from where a picture of the scene is taken, in which light, and of what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..torch_state import plain_torch
from .cameras import Cameras
from .lights import camera_lights

Shading = Literal["albedo", "lambertian", "textureless", "latent", "normals", "depth"]
"""Plain colours, lit colours, a lit clay model; the latents of a scene that holds latents; or normals in the camera's axes, as
(n + 1) / 2."""


@dataclass(frozen=True)
class View:
    """B looks at the scene, each a square picture of ``size`` pixels per side.

    cameras: B cameras, on the CPU; lights (B, 3): unit directions towards the key lights; shading and ambient (the share of
    light that comes from everywhere) are the same for all. background: what is behind the object, (B, C, 1, 1) if
    it is plain, else (B, C, size, size), or None if it is not chosen yet. prompt (B,) int64: which of the run's
    prompts. Looks come in groups of ``group`` that follow one another and are asked about together.

    ``view[i]`` (a slice or a number) is the view of some of the looks.
    """

    cameras: Cameras
    lights: Tensor
    size: int
    shading: Shading = "lambertian"
    ambient: float = 0.5
    background: Tensor | None = None
    prompt: Tensor | None = None
    group: int = 1

    def __len__(self) -> int:
        return len(self.lights)

    def __getitem__(self, index: int | slice) -> View:
        some = slice(index, index + 1) if isinstance(index, int) else index
        background, prompt = (None if x is None else x[some] for x in (self.background, self.prompt))
        return replace(self, cameras=self.cameras[some], lights=self.lights[some], background=background, prompt=prompt)

    def over(self, background: Tensor) -> View:
        """The same looks in front of a background."""
        return replace(self, background=background)

    @property
    def plain_background(self) -> Tensor | None:
        """The colours (B, 3) behind the object, without gradients. None if the background is not plain colours."""
        behind = self.background
        if self.shading == "latent" or behind is None or behind.shape[1:] != (3, 1, 1):
            return None
        return behind.detach()[:, :, 0, 0]


@plain_torch()
def orbit_view(
    cameras: Cameras,
    size: int,
    shading: Shading = "lambertian",
    *,
    light_above_deg: float | Tensor = 30.0,
    light_around_deg: float | Tensor = 0.0,
    ambient: float = 0.5,
    background: float | Tensor = 0.5,
) -> View:
    """A view for previews, films and evaluation: key lights at angles to each camera's own direction (numbers, or one for
    each camera), in front of a gray (a number), a colour (3,), or one of these for each camera, (B, 1) or (B, 3)."""
    count = len(cameras)

    def radians(angle: float | Tensor) -> Tensor:
        return torch.as_tensor(angle, dtype=torch.float32).expand(count).deg2rad()

    lights = camera_lights(cameras, radians(light_above_deg), radians(light_around_deg))
    colours = torch.as_tensor(background, dtype=torch.float32).expand(count, 3)
    return View(cameras, lights, size, shading, ambient, colours[:, :, None, None])


def hues(height: Tensor) -> Tensor:
    """Colours (..., 3) of how much nearer to the camera than the origin something is (...), from -1 to 1.

    They go round most of a colour wheel. Grays of the same range say the same, but move a scene too little: a surface that is 0.1
    too near is wrong by 0.05 in gray, and by up to 0.13 in each channel of a hue.
    """
    turn = torch.arange(3).to(height) / 3 + 0.4 * (height[..., None] + 1)
    return (1 + (2 * torch.pi * turn).cos()) / 2
