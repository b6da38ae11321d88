"""What every scene is: something that is optimised, drawn and exported. It knows no prior, prompt or loss on pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..geometry.export_settings import ExportSettings
from ..geometry.surface import Surface
from ..view.backdrops import Groups
from ..view.cameras import Cameras
from ..view.view import View, hues
from .transfer import Volume

Penalties = Mapping[str, Tensor | Callable[[], Tensor]]
"""Penalties by name: each a number, or a function that computes it."""


@dataclass(frozen=True)
class Rendering:
    """What a view saw, without a background. B looks of H x W pixels.

    colour (B, 3, H, W), or latents (B, channels, H, W) where the shading is 'latent', premultiplied by the opacity; opacity
    (B, 1, H, W); depth (B, 1, H, W): expected distance times opacity; normal (B, 3, H, W) in world axes, times opacity.
    penalties: the scene's own; the settings' ``regularizers.<name>`` weighs them.
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    penalties: Penalties = field(default_factory=dict)

    def facing(self, cameras: Cameras) -> Tensor:
        """The normals in the axes of the B cameras (right, up, towards the camera) as colours (n + 1) / 2, (B, 3, H, W),
        premultiplied by the opacity."""
        axes = torch.stack(cameras.axes(), 1).to(self.normal)  # (B, 3, 3), rows right, up, back
        unit = torch.nn.functional.normalize(self.normal, dim=1)
        return (torch.einsum("bij,bjhw->bihw", axes, unit) + 1) / 2 * self.opacity

    def nearness(self, cameras: Cameras) -> Tensor:
        """How near the scene is to the B cameras, as ``hues`` (B, 3, H, W) premultiplied by the opacity."""
        away = cameras.radius.to(self.depth)[:, None, None, None] - self.depth / self.opacity.clamp_min(1e-3)
        return hues(away.squeeze(1)).movedim(-1, 1) * self.opacity

    def over(self, background: Tensor) -> Tensor:
        """The pictures (B, C, H, W) in front of their backgrounds: colour + (1 - opacity) background."""
        return self.colour + (1 - self.opacity) * background.to(self.colour)


class Moments(Protocol):
    """What a growing scene needs from its optimiser."""

    def replace(self, group: str, name: str, parameter: nn.Parameter, rows: Tensor) -> None:
        """Replace the parameter ``name`` by another one. rows (N,) int64: the old row that each new row comes from, or -1
        for a new row. The moments move with the rows."""
        ...


class Scene(nn.Module, ABC):
    """A learned scene inside the unit sphere."""

    @abstractmethod
    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        """Pictures of the scene. With a generator the samples are jittered (training). Without one they are fixed.

        Differentiable under the caller's grad mode. Views of any size: without gradients the memory is bounded.
        """

    def look(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        """``render``; its colours are the normals where the view shows 'normals', and how near it is where it shows 'depth'."""
        if view.shading not in ("normals", "depth"):
            return self.render(view, rng)
        seen = self.render(replace(view, shading="textureless"), rng)
        shown = seen.facing if view.shading == "normals" else seen.nearness
        return replace(seen, colour=shown(view.cameras))

    @abstractmethod
    def groups(self) -> Groups:
        """What learns: {group: ({name: parameter}, learning rate)}."""

    @abstractmethod
    def surface(self, settings: ExportSettings) -> Surface:
        """The surface as a mesh, and its material at any point. UserError if there is no surface."""

    def as_volume(self) -> Volume | None:
        """This scene as a density and an albedo everywhere, to which a surface can be fitted; None if it has none."""
        return None

    def after_step(self, step: int, steps: int, moments: Moments) -> None:
        """Upkeep after the optimiser's step ``step`` of this stage. Schedules run over ``steps``; later steps may follow."""

    def begin(self) -> None:
        """Prepare a run's first scene. UserError if it needs something that it does not have."""

    def is_like(self, other: Scene) -> bool:
        """Whether the two are the same scene, so that one's state is the other's."""
        return False

    def set_palette(self, weight: Tensor, bias: Tensor) -> None:
        """Start the map from latents to colours, in scenes that hold latents: weight (3, channels), bias (3,)."""
        raise UserError(f"a scene of kind {type(self).__name__} holds no latents; set scene.channels to 3")

    def begin_from(self, previous: Scene, rng: torch.Generator) -> None:
        """Start a stage from another scene by sampling it. UserError if this kind cannot start from that one."""
        raise UserError(f"a scene of kind {type(self).__name__} cannot start from {type(previous).__name__}")
