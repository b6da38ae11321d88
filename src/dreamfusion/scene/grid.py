"""A multi-resolution feature grid with a tiny colour head: quick to render on a CPU, quick to learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .scene_settings import SceneSettings
from .rays import Rays
from .scene import Rendering
from .field import RadianceField
from .volume import Frustums

if TYPE_CHECKING:
    from ..kernels.grid_fused import FusedGrid

OCCUPANCY_SIDE = 64


class GridField(RadianceField):
    """Dense grids of several resolutions over [-1, 1]^3, read trilinearly.

    A vertex holds 1 + features numbers: its share of the raw density (summed over levels) and colour features
    (concatenated over levels, then an MLP of one hidden layer). All levels lie in one ``table`` (V, 1 + features):
    level by level, x slowest, z fastest.
    """

    def __init__(self, settings: SceneSettings, generator: torch.Generator):
        super().__init__(settings, OCCUPANCY_SIDE)
        vertices = sum(r**3 for r in settings.levels)
        inputs = len(settings.levels) * settings.features

        def uniform(*shape: int, bound: float) -> nn.Parameter:
            return nn.Parameter((torch.rand(shape, generator=generator, device=generator.device) * 2 - 1) * bound)

        self.table = uniform(vertices, 1 + settings.features, bound=0.1)
        with torch.no_grad():
            self.table[:, 0] *= 0.1
        self.hidden_weight = uniform(settings.hidden, inputs, bound=math.sqrt(6 / inputs))
        self.hidden_bias = nn.Parameter(torch.zeros(settings.hidden))
        self.out_weight = uniform(settings.channels, settings.hidden, bound=1 / math.sqrt(settings.hidden))
        self.out_bias = nn.Parameter(torch.zeros(settings.channels))
        self._fused: FusedGrid | None = None

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        head = [self.hidden_weight, self.hidden_bias, self.out_weight, self.out_bias, *self.palette.parameters()]
        return {"grid": [self.table], "head": head}

    @torch.no_grad()
    def harden(self, factor: float) -> None:
        self.table[:, 0] *= factor

    def features(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Summed raw density (P,) and concatenated colour features (P, levels * features) at points (P, 3)."""
        raw, colours, start = points.new_zeros(len(points)), [], 0
        for side in self.settings.levels:
            place = (points + 1) * ((side - 1) / 2)
            corner = place.detach().floor().clamp(0, side - 2)
            f = place - corner
            x, y, z = corner.long().unbind(-1)
            first = start + (x * side + y) * side + z
            value = points.new_zeros(len(points), self.table.shape[1])
            for dx in (0, 1):
                for dy in (0, 1):
                    for dz in (0, 1):
                        wx, wy, wz = (f[:, i] if d else 1 - f[:, i] for i, d in enumerate((dx, dy, dz)))
                        value = value + (wx * wy * wz)[:, None] * self.table[first + (dx * side + dy) * side + dz]
            raw = raw + value[:, 0]
            colours.append(value[:, 1:])
            start += side**3
        return raw, torch.cat(colours, -1)

    def network(self, points: Tensor, frustums: Frustums | None, colour: bool) -> tuple[Tensor, Tensor | None]:
        raw, features = self.features(points)
        if not colour:
            return raw, None
        hidden = torch.relu(nn.functional.linear(features, self.hidden_weight, self.hidden_bias))
        return raw, nn.functional.linear(hidden, self.out_weight, self.out_bias)

    def fused(self) -> FusedGrid | None:
        """The fast path, where there is one: a float32 field on a CPU that was not told otherwise."""
        if (
            not self.settings.fast
            or self.settings.channels != 3
            or self.table.device.type != "cpu"
            or self.table.dtype != torch.float32
        ):
            return None
        if self._fused is None:
            from ..kernels.grid_fused import FusedGrid  # the compiler is slow to load, and not needed elsewhere

            self._fused = FusedGrid(self)
        return self._fused

    def density(self, points: Tensor) -> Tensor:
        learning = torch.is_grad_enabled() and (points.requires_grad or self.table.requires_grad)
        fused = None if learning or points.dtype != torch.float32 else self.fused()
        return super().density(points) if fused is None else fused.density(self, points)

    def render_between(self, rays: Rays, *args: Any) -> Rendering:
        fused = self.fused()
        if fused is None or rays.origins.dtype != torch.float32:
            return super().render_between(rays, *args)
        from ..kernels.grid_fused import render

        return render(fused, self, rays, *args[:-1])  # what has a fast path holds colours: no question of latents
