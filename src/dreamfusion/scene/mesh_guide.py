"""A coarse mesh as a loose guide for a field (Metzer et al. 2022, "Latent-NeRF for Shape-Guided Generation of 3D Shapes and
Textures", section 3.2, "Sketch-Shape"). P points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..geometry.distance import surface_samples
from ..geometry.mesh import Mesh, decimate, winding_numbers, with_normals
from .level_grid import read_levels

THICK = 0.2
"""World units: a point is as occupied as a wall of this thickness and of its density is opaque (its code: DELTA)."""
SURE = 0.99
"""What the mesh says at most about a point, so that the cross entropy is finite (its code: clamp)."""
POINTS = 1 << 14
"""Points that a step looks at."""
SAMPLES, NEARLY = 30_000, 0.02
"""Points of the surface from which the distance is taken, and the share by which it may be too large: the exact search is
slow in the middle of a ball, where all of them are equally near."""
SIDE = 48
"""Vertices per side of the lattice at which the mesh is known. Its spacing is far below the width in which the field is free."""
FACES = 1000
"""A guide is coarse: a finer mesh is decimated to so many triangles, since each vertex of the lattice looks at each triangle."""


def guide_loss(density: Tensor, inside: Tensor, distance: Tensor, width: float) -> Tensor:
    """Mean of CE(O, M) (1 - exp(-d^2 / 2 width^2)) over points (its eq. 4): O = 1 - exp(-density ``THICK``) is the field's occupancy,
    M that of the mesh, d the distance from its surface; all (P,).

    CE(O, M) = -O log M - (1 - O) log(1 - M), which is linear in O: a point pulls alike however wrong it is.
    """
    occupied = -torch.expm1(-density * THICK)
    sure = occupied.new_full((), SURE)
    mesh = torch.where(inside, sure, 1 - sure)
    entropy = -occupied * mesh.log() - (1 - occupied) * (1 - mesh).log()
    return (entropy * -torch.expm1(-distance.square() / (2 * width**2))).mean()


@dataclass(frozen=True)
class MeshGuide:
    """A mesh at the vertices of a lattice: winding number and distance from the surface, ``table`` (``SIDE``^3, 2)."""

    table: Tensor

    @classmethod
    def of(cls, mesh: Mesh, device: torch.device | str = "cpu") -> MeshGuide:
        """The guide of a mesh with normals."""
        axis = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
        places = torch.cartesian_prod(axis, axis, axis).numpy()
        coarse = mesh if len(mesh.faces) <= FACES else with_normals(decimate(mesh, FACES))
        boxed = ((places >= coarse.vertices.min(0)) & (places <= coarse.vertices.max(0))).all(1)
        winding = np.zeros(len(places))
        winding[boxed] = winding_numbers(places[boxed], coarse.vertices, coarse.faces)
        distance, _ = cKDTree(surface_samples(coarse, SAMPLES)[0]).query(places, eps=NEARLY)
        known = np.stack([winding, distance], 1)
        return cls(torch.from_numpy(known).float().to(device))

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether points (P, 3) are inside of the mesh, and their distance from its surface, (P,) each. A point is inside where the
        winding number is above 1/2, so parts may overlap and surfaces may have holes (Jacobson et al. 2013)."""
        winding, distance = read_levels(self.table, (SIDE,), points)[0].unbind(1)
        return winding > 0.5, distance

    def penalty(self, density: Callable[[Tensor], Tensor], width: float, rng: torch.Generator | None) -> Tensor:
        """``guide_loss`` of a field's ``density`` at ``POINTS`` random points of the unit ball."""
        rng = rng or torch.Generator().manual_seed(0)
        direction = torch.nn.functional.normalize(torch.randn(POINTS, 3, generator=rng), dim=-1)
        points = (direction * torch.rand(POINTS, 1, generator=rng) ** (1 / 3)).to(self.table.device)
        return guide_loss(density(points), *self.at(points), width)
