"""Dense grids of several resolutions, read trilinearly, and a texture that is one (as ``grid.GridField`` holds its colours)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..adam import Adam
from .scene_settings import MeshSettings

STEPS, POINTS, RATE = 150, 4096, 0.02
FINISH = ((0.08, 0.9), (0.0, 0.9))
"""Least and most roughness and share of metal that are learned (Fantasia3D's code)."""
BEGIN = (0.7, 0.05)
"""Roughness and metal that a surface begins with."""


class LevelGrid(nn.Module):
    """A ``table`` (vertices of all levels, channels) over [-1, 1]^3: level by level, x slowest, z fastest."""

    def __init__(self, levels: Sequence[int], channels: int, bound: float, generator: torch.Generator):
        super().__init__()
        self.levels = tuple(levels)
        vertices = sum(side**3 for side in levels)
        drawn = torch.rand(vertices, channels, generator=generator, device=generator.device) if bound else None
        start = torch.zeros(vertices, channels) if drawn is None else (drawn * 2 - 1) * bound
        self.table = nn.Parameter(start)

    def forward(self, points: Tensor) -> list[Tensor]:
        """Each level's values (P, channels) at points (P, 3)."""
        return read_levels(self.table, self.levels, points)


def read_levels(table: Tensor, levels: Sequence[int], points: Tensor) -> list[Tensor]:
    """Each level's values (P, channels) at points (P, 3), of a table (vertices of all levels, channels)."""
    where = points.flip(-1).reshape(1, 1, 1, -1, 3)  # grid_sample wants the fastest axis first
    found, start = [], 0
    for side in levels:
        level = table[start : start + side**3].reshape(1, side, side, side, -1).permute(0, 4, 1, 2, 3)
        start += side**3
        value = nn.functional.grid_sample(level, where, padding_mode="border", align_corners=True)
        found.append(value.reshape(value.shape[1], -1).T)
    return found


class Texture(nn.Module):
    """Colours of points: features of all levels through one hidden layer. Latents, where ``channels`` is not 3. With the
    material 'pbr' two more outputs, roughness and metal."""

    def __init__(self, settings: MeshSettings, generator: torch.Generator):
        super().__init__()
        inputs = len(settings.levels) * settings.features
        self.grid = LevelGrid(settings.levels, settings.features, 0.1, generator)
        self.channels, self.pbr = settings.channels, settings.material == "pbr"
        self.hidden = nn.Linear(inputs, settings.hidden)
        self.out = nn.Linear(settings.hidden, settings.channels + 2 * self.pbr)
        self.palette: nn.Module = nn.Identity() if settings.channels == 3 else nn.Linear(settings.channels, 3)
        with torch.no_grad():
            for layer, bound in ((self.hidden, math.sqrt(6 / inputs)), (self.out, 1 / math.sqrt(settings.hidden))):
                drawn = torch.rand(layer.weight.shape, generator=generator, device=generator.device)
                layer.weight.copy_((drawn * 2 - 1) * bound)
                layer.bias.zero_()
            if self.pbr:
                shares = [(value - low) / (high - low) for value, (low, high) in zip(BEGIN, FINISH, strict=True)]
                self.out.bias[-2:] = torch.logit(torch.tensor(shares))

    def forward(self, points: Tensor, latent: bool = False) -> Tensor:
        """Albedo (P, 3) in [0, 1] at points (P, 3), or with ``latent`` the latents (P, channels) that it stands for."""
        return self.coloured(self.values(points), latent)

    def material(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Base colour (P, 3), and roughness and metal (P, 2), at points (P, 3), of a texture that has them."""
        value = self.values(points)
        low, high = value.new_tensor(FINISH).T
        return self.coloured(value, False), low + (high - low) * value[:, -2:]

    def values(self, points: Tensor) -> Tensor:
        """All outputs (P, channels, and 2 more with roughness and metal), in [0, 1]."""
        hidden = torch.relu(self.hidden(torch.cat(self.grid(points), -1)))
        return torch.sigmoid(self.out(hidden))

    def coloured(self, value: Tensor, latent: bool) -> Tensor:
        """Albedo or latents of the outputs."""
        value = value[:, : self.channels]
        return value if latent or isinstance(self.palette, nn.Identity) else self.palette(value).clamp(0, 1)

    def fit(self, points: Tensor, wanted: Tensor, rng: torch.Generator) -> None:
        """Learn the colours ``wanted`` (N, 3) at points (N, 3), by regression."""
        optimiser = Adam(self.parameters(), lr=RATE)
        for _ in range(STEPS):
            some = torch.randint(len(points), (POINTS,), generator=rng).to(points.device)
            off = (self(points[some]) - wanted[some]).square().mean()
            optimiser.zero_grad()
            off.backward()
            optimiser.step()
