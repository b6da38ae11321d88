"""A multi-resolution feature grid with a tiny colour head: quick to render on a CPU, quick to learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..geometry.export_settings import ExportSettings
from ..geometry.surface import Surface, distance_surface
from ..torch_state import plain_torch
from ..view.backdrops import Groups
from ..view.view import Shading, View
from .field import PLAIN, SHARPNESS, SHIFT, RadianceField, Way
from .laplace import UNIT, eikonal, laplace_cdf, points_of_ball
from .level_grid import read_levels
from .rays import RayRendering, Rays
from .scene import Penalties, Rendering
from .scene_settings import GridSettings
from .shading import CLAY
from .transfer import Volume
from .volume import NORMAL_EPS, OPAQUE, Frustums

if TYPE_CHECKING:
    from ..kernels.grid_fused import FusedGrid

OCCUPANCY_SIDE = 64  # at most; half of the finest level's spacing is fine enough


class GridField(RadianceField):
    """Dense grids of several resolutions over [-1, 1]^3, read trilinearly.

    A vertex holds 1 + features numbers: its share of the raw density (summed over levels) and colour features
    (concatenated over levels, then an MLP of one hidden layer). All levels lie in one ``table`` (V, 1 + features):
    level by level, x slowest, z fastest.

    With ``density`` 'sdf' the raw density is -d / ``UNIT`` for a signed distance d, positive outside, which begins as that
    of a ball; the density is (1 / beta) Psi(-d / beta) (Yariv et al. 2021, VolSDF, eq. 2 and 3).
    """

    settings: GridSettings
    beta: Tensor

    def __init__(self, settings: GridSettings, generator: torch.Generator):
        super().__init__(settings, min(OCCUPANCY_SIDE, 2 * max(settings.levels)))
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
        self.signed = settings.density == "sdf"
        if self.signed:
            self.register_buffer("beta", torch.tensor(1 / settings.density_scale))

    def groups(self) -> Groups:
        named = dict(self.named_parameters())
        table = named.pop("table")
        return {"features": ({"table": table}, self.settings.lr), "head": (named, self.settings.lr_head)}

    @torch.no_grad()
    def harden(self, factor: float) -> None:
        if self.signed:
            self.beta /= factor
        else:
            self.table[:, 0] *= factor

    def blob(self, points: Tensor) -> Tensor:
        if not self.signed:
            return super().blob(points)
        return (self.settings.density_bias_width - points.norm(dim=-1)) / UNIT

    def activate(self, raw: Tensor) -> Tensor:
        return laplace_cdf(raw * UNIT / self.beta) / self.beta if self.signed else super().activate(raw)

    @plain_torch()
    def distance(self, points: Tensor) -> Tensor:
        """Signed distance (P,), positive outside, at points (P, 3) of the cube [-1, 1]^3."""
        points = points.to(self.table.device)
        learned = torch.stack(read_levels(self.table[:, :1], self.settings.levels, points)).sum(0)[:, 0]
        return -UNIT * (learned + self.blob(points))

    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        rendering = super().render(view, rng)
        if not torch.is_grad_enabled():
            return rendering
        penalties: Penalties = {**rendering.penalties, "total_variation": self.total_variation}
        if self.signed:
            step = 2 / (max(self.settings.levels) - 1)
            ball = points_of_ball(rng)  # drawn now, so that no weight changes the step's later random numbers
            penalties = {**penalties, "eikonal": partial(eikonal, self.distance, step, ball)}
        return replace(rendering, penalties=penalties)

    def total_variation(self) -> Tensor:
        """Mean |difference| of the values of neighbouring vertices, over all axes and levels (Rudin et al. 1992)."""
        sizes = [side**3 for side in self.settings.levels]
        found = []
        for side, level in zip(self.settings.levels, self.table.split(sizes), strict=True):
            lattice = level.reshape(side, side, side, -1)
            found += [lattice.diff(dim=axis).abs().mean() for axis in range(3)]
        return torch.stack(found).mean()

    def as_volume(self) -> Volume | None:
        return None if self.signed else super().as_volume()  # no other level than zero is to be looked for

    def surface(self, settings: ExportSettings) -> Surface:
        if not self.signed:
            return super().surface(settings)
        return distance_surface(self.distance, self.density, self.albedo, settings)

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
            low_high = (1 - f, f)
            for dx, dy, dz in product((0, 1), repeat=3):
                share = low_high[dx][:, 0] * low_high[dy][:, 1] * low_high[dz][:, 2]
                value = value + share[:, None] * self.table[first + (dx * side + dy) * side + dz]
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

    def kernels(self) -> FusedGrid:
        """The compiled kernels for this field's geometry, with their scratch memory."""
        if self._fused is None:
            from ..kernels.grid_fused import FusedGrid  # the compiler is slow to load, and not needed elsewhere

            self._fused = FusedGrid(self.settings.levels, self.settings.features, self.model())
        if self.signed:
            self._fused.model[:] = self.model()  # beta falls
        return self._fused

    def model(self) -> tuple[float, ...]:
        """What the kernels need of the field's mathematics: height and narrowness of what it begins with, and factors of density,
        sharpness, shift, clay, normals' epsilon, thickness of an opaque ray, and whether it is a signed distance."""
        s = self.settings
        if self.signed:
            beta = float(self.beta)
            start = (s.density_bias_width / UNIT, 1 / UNIT, 1 / beta, UNIT / beta, 0.0)
        else:
            start = (s.density_bias, 0.5 / s.density_bias_width**2, s.density_scale, SHARPNESS, SHIFT)
        return (*start, CLAY, NORMAL_EPS, -math.log(OPAQUE), float(self.signed))

    def ways(self) -> Sequence[Way]:
        return (FUSED, PLAIN)

    def density(self, points: Tensor) -> Tensor:
        learning = torch.is_grad_enabled() and (points.requires_grad or self.table.requires_grad)
        if learning or points.dtype != torch.float32 or not FUSED.suits_field(self):
            return super().density(points)
        return self.kernels().density(self.table, points)


class Fused:
    """The compiled kernels: for a float32 field of colours on a CPU, unless the settings say otherwise."""

    def suits_field(self, field: GridField) -> bool:
        table = field.table
        plain = field.settings.fast and field.settings.channels == 3
        return plain and table.device.type == "cpu" and table.dtype == torch.float32

    def suits(self, field: GridField, rays: Rays, shading: Shading) -> bool:
        return self.suits_field(field) and rays.origins.dtype == torch.float32

    def render(
        self, field: GridField, rays: Rays, shading: Shading, light: Tensor, ambient: float, near: Tensor, far: Tensor,
        offset: Tensor, samples: int,
    ) -> RayRendering:  # fmt: skip
        learned = (field.table, field.hidden_weight, field.hidden_bias, field.out_weight, field.out_bias)
        arrays = {"origins": rays.origins, "directions": rays.directions, "lights": light}
        arrays |= {"near": near, "far": far, "offset": offset}
        shown = "albedo" if shading == "latent" else shading
        return RayRendering(*field.kernels().render(learned, arrays, shown, ambient, samples, field.occupancy.cells))


FUSED = Fused()
