"""A coarse mesh as a loose guide for a field (Metzer et al. 2022, "Latent-NeRF for Shape-Guided Generation of 3D Shapes and
Textures", section 3.2, "Sketch-Shape"). P points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.distance import signed_distance
from ..geometry.mesh import Mesh, decimate, winding_numbers, with_normals

THICK = 0.2
"""World units: a point is as occupied as a wall of this thickness and of its density is opaque (its code: DELTA)."""
SURE = 0.99
"""What the mesh says at most about a point, so that the cross entropy is finite (its code: clamp)."""
POINTS, EACH = 1 << 14, 4096
"""Points that are known, and those that a step looks at."""
FACES = 1000
"""A guide is coarse: a finer mesh is decimated to so many triangles, since each point looks at each triangle."""


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
    """Points of the unit ball (P, 3), whether they are inside of a mesh (P,), and their distance (P,) from its surface."""

    points: Tensor
    inside: Tensor
    distance: Tensor

    @classmethod
    def of(cls, mesh: Mesh, device: torch.device | str = "cpu") -> MeshGuide:
        """The guide of a mesh with normals. A point is inside where the winding number is above 1/2, so parts may overlap and surfaces
        may have holes (Jacobson et al. 2013)."""
        rng = torch.Generator().manual_seed(0)
        direction = torch.nn.functional.normalize(torch.randn(POINTS, 3, generator=rng), dim=-1)
        points = direction * torch.rand(POINTS, 1, generator=rng) ** (1 / 3)
        places = points.double().numpy()
        coarse = mesh if len(mesh.faces) <= FACES else with_normals(decimate(mesh, FACES))
        inside = winding_numbers(places, coarse.vertices, coarse.faces) > 0.5
        distance = abs(signed_distance(coarse, places))
        return cls(
            points.to(device), torch.from_numpy(inside).to(device), torch.from_numpy(distance).float().to(device)
        )

    def penalty(self, density: Callable[[Tensor], Tensor], width: float, rng: torch.Generator | None) -> Tensor:
        """``guide_loss`` of a field's ``density`` at ``EACH`` of the points, drawn by ``rng``; at all without one."""
        some = (
            torch.arange(len(self.points)) if rng is None else torch.randint(len(self.points), (EACH,), generator=rng)
        )
        some = some.to(self.points.device)
        return guide_loss(density(self.points[some]), self.inside[some], self.distance[some], width)
