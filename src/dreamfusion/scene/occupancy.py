"""Which cells of space may hold something, so that rays can skip the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

EVERY = 16  # optimiser steps between refreshes
DECAY = 0.8  # of a cell's remembered density at each refresh
NEGLIGIBLE = 1.5e-3  # largest alpha of a sample that may be skipped
VAGUE = 0.5  # largest optical thickness of a cell, as remembered
_R3 = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)  # Roberts' low-discrepancy sequence in 3D


class Occupancy(nn.Module):
    """A grid of ``side``^3 cells over [-1, 1]^3 that remembers the largest density recently seen in each (Mueller et
    al. 2022, appendix C). All of it is state: a resumed run skips the same samples.

    Before the first refresh everything counts as occupied.
    """

    values: Tensor
    cells: Tensor
    refreshes: Tensor

    def __init__(self, side: int, samples: int):
        super().__init__()
        self.side, self.samples = side, samples
        self.threshold = NEGLIGIBLE * samples / 2  # density whose alpha over one step of 2 / samples is negligible
        self.vague = VAGUE * side / 2
        self.register_buffer("values", torch.zeros(side, side, side))
        self.register_buffer("cells", torch.ones(side, side, side, dtype=torch.bool))
        self.register_buffer("refreshes", torch.zeros((), dtype=torch.int64))
        self.started = False  # whether there was a refresh, known without asking the device

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        values, refreshes = (state_dict.get(prefix + name) for name in ("values", "refreshes"))
        if values is not None and len(values) != self.side:  # an older run's grid of another side is taken as it is
            self.side, self.vague = len(values), VAGUE * len(values) / 2
            self.values = values.new_zeros(values.shape, device=self.values.device)
            self.cells = self.cells.new_ones(values.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.started = refreshes is not None and bool(refreshes)

    def lookup(self, points: Tensor) -> Tensor:
        """Whether the cells of points (P, 3) in [-1, 1]^3 may hold something, (P,) bool."""
        i = ((points + 1) * (self.side / 2)).long().clamp(0, self.side - 1)
        return self.cells[i[:, 0], i[:, 1], i[:, 2]]

    def remembered(self, points: Tensor) -> Tensor:
        """Density (P,) as remembered around points (P, 3): between the middles of eight cells, trilinearly; 0 in cells
        that hold nothing. No more than ``vague``: what was seen in a cell may stand anywhere in it."""
        place = points.clamp(-1, 1).flip(-1).reshape(1, 1, 1, -1, 3)
        found = torch.nn.functional.grid_sample(
            self.values[None, None].to(points), place, padding_mode="border", align_corners=False
        )
        return found.reshape(-1).clamp_max(self.vague) * self.lookup(points)

    @torch.no_grad()
    def refresh(self, density: Callable[[Tensor], Tensor], step: int) -> None:
        """Look at one point of every cell (the same place in all, another at each step) and mark what is dense.

        A cell is marked if it or one of its 26 neighbours holds more than the threshold.
        """
        shift = [(0.5 + step * r) % 1 for r in _R3]
        axes = [(torch.arange(self.side, device=self.values.device) + s) * (2 / self.side) - 1 for s in shift]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).to(self.values)
        seen = torch.cat([density(p) for p in points.split(1 << 18)]).reshape(self.values.shape)
        self.values.copy_(torch.maximum(self.values * DECAY, seen))
        around = torch.nn.functional.max_pool3d(self.values[None], 3, stride=1, padding=1)[0]
        self.cells.copy_(around > self.threshold)
        self.refreshes += 1
        self.started = True

    def after_step(self, density: Callable[[Tensor], Tensor], step: int) -> None:
        """Refresh now and then. The first refresh comes at once, because skipping makes rendering fast."""
        if step % EVERY == 0 or not self.started:
            self.refresh(density, step)
