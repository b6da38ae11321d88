"""What a mesh scene's shape is made of: a signed distance in a tetrahedral grid, or a given mesh whose vertices move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..geometry.distance import filled, signed_distance
from ..geometry.mesh import Mesh
from ..geometry.tetrahedra import body_centred_grid, body_centred_points, marching_tetrahedra
from .level_grid import LevelGrid
from .scene import Penalties
from .scene_settings import MeshSettings

NEAR = 2.5
"""Cubes. Up to here the signed distance to a mesh is exact."""
SLOPED = 1.0
"""Cubes. Up to here from the surface the learned distance should have a slope of one."""


class Shape(nn.Module, ABC):
    """A closed or open surface in the unit sphere. ``grid`` holds what learns."""

    grid: LevelGrid

    @abstractmethod
    def triangles(self) -> tuple[Tensor, Tensor]:
        """Vertices (V, 3) and faces (F, 3). Differentiable by ``grid``. UserError if there is nothing left, or nothing yet."""

    @abstractmethod
    def begin(self, mesh: Mesh) -> None:
        """Take the shape of a mesh with normals."""

    def penalties(self) -> Penalties:
        """The shape's own penalties, beside those of any mesh."""
        return {}


class Tetrahedra(Shape):
    """The zero of base + offset at the points of a body-centred grid, which themselves move a little (Shen et al. 2021).

    ``base`` (P,) is the signed distance that the stage began with; the offset and the moves are learned grids, in world
    units. A point moves by less than half of a tetrahedron's height, so that none turns over. The surface stays
    within the unit sphere.

    Only the tetrahedra that the surface can have reached are looked at. They stand in the order of their ``reach`` (T,), the least
    offset that brings the surface into them, and ``points`` (P, 3) in the order in which these ``tets`` (T, 4) need them.
    """

    base: Tensor
    points: Tensor
    tets: Tensor
    reach: Tensor
    place: Tensor
    needed: Tensor

    def __init__(self, settings: MeshSettings, generator: torch.Generator):
        super().__init__()
        self.cubes, self.cube = settings.resolution, 2 / settings.resolution
        self.register_buffer("base", body_centred_points(self.cubes).norm(dim=-1) - settings.radius)
        for name in ("points", "tets", "reach", "place", "needed"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.grid = LevelGrid(settings.shape_levels, 4, 0.0, generator)

    @torch.no_grad()
    def arrange(self) -> None:
        """Bring the tetrahedra and the points into order. ``place`` (P,) says where in ``base`` a point is, and ``needed`` (T,) how many
        points the first so many tetrahedra have."""
        points, tets = (x.to(self.base.device) for x in body_centred_grid(self.cubes))
        fixed = torch.where(points.norm(dim=-1) > 1 - self.cube, torch.inf, self.base)[tets]  # the border is outside
        crossed = (fixed < 0).any(1) & (fixed >= 0).any(1)
        self.reach, order = fixed.abs().amin(1).masked_fill(crossed, 0).sort(stable=True)
        tets = tets[order]
        first = torch.full((len(points),), len(tets), device=tets.device)
        first.scatter_reduce_(
            0, tets.reshape(-1), torch.arange(len(tets), device=tets.device).repeat_interleave(4), "amin"
        )
        self.place = first.argsort(stable=True)
        number = torch.empty_like(self.place)
        number[self.place] = torch.arange(len(points), device=tets.device)
        self.points, self.tets = points[self.place], number[tets]
        self.needed = self.tets.amax(1).cummax(0).values + 1

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.reach = self.reach[:0]

    def most(self) -> float:
        """An offset that no point exceeds: interpolation stays within the grids' values."""
        sizes = [side**3 for side in self.grid.levels]
        largest = [level.abs().max() for level in self.grid.table.detach()[:, 0].split(sizes)]
        return float(sum(largest)) * 1.001 + 1e-6

    def placed(self, count: int) -> tuple[Tensor, Tensor]:
        """The first points (count, 3) where they are now, and the signed distances (count,) there."""
        points = self.points[:count]
        learned = torch.stack(self.grid(points)).sum(0)
        most = 0.2 * self.cube  # along each axis, so 0.35 at most; a tetrahedron is 0.71 of a cube's side high
        moved = points + most * torch.tanh(learned[:, 1:] / most)
        border = points.norm(dim=-1) - (1 - self.cube)
        return moved, torch.maximum(self.base[self.place[:count]] + learned[:, 0], border)

    def triangles(self) -> tuple[Tensor, Tensor]:
        if not len(self.reach):
            self.arrange()
        count = int(torch.searchsorted(self.reach, self.most(), right=True))
        points = int(self.needed[count - 1]) if count else 0
        vertices, faces = marching_tetrahedra(*self.placed(points), self.tets[:count])
        if len(faces) == 0:
            raise UserError("the mesh has vanished; lower scene.lr_shape, or start from more than a speck")
        return vertices, faces

    def begin(self, mesh: Mesh) -> None:
        distance = signed_distance(mesh, body_centred_points(self.cubes).double().numpy(), NEAR * self.cube)
        sides = (self.cubes + 1, self.cubes)
        lattices = zip(np.split(distance, [sides[0] ** 3]), sides, strict=True)
        whole = [filled(values.reshape(side, side, side), self.cube).reshape(-1) for values, side in lattices]
        self.base.copy_(torch.from_numpy(np.concatenate(whole)))
        if not (self.base < 0).any():
            raise UserError("the mesh to begin with is thinner than the tetrahedra; raise scene.resolution")
        self.reach = self.reach[:0]

    def penalties(self) -> Penalties:
        return {"eikonal": self.eikonal}

    def eikonal(self) -> Tensor:
        """Mean of (|slope| - 1)^2 at the cubes' corners near the surface, by differences along the axes."""
        side = self.cubes + 1
        base = self.base[: side**3]
        known = (
            base.abs() < (SLOPED + 1.5) * self.cube + self.most()
        )  # the others, and so their neighbours, are not near
        axis = torch.linspace(-1, 1, side, device=base.device)
        where = axis[torch.stack(torch.unravel_index(known.nonzero()[:, 0], (side,) * 3), -1)]
        learned = torch.stack(self.grid(where)).sum(0)[:, 0]
        distance = base.masked_scatter(known, base[known] + learned).reshape(side, side, side)
        a = distance[:-1, :-1, :-1]
        steps = (distance[1:, :-1, :-1] - a, distance[:-1, 1:, :-1] - a, distance[:-1, :-1, 1:] - a)
        near = a.detach().abs() < SLOPED * self.cube
        slope = (torch.stack([step[near] for step in steps]).square().sum(0) + 1e-12).sqrt() / self.cube
        return (slope - 1).square().mean() if near.any() else distance.new_zeros(())


class Vertices(Shape):
    """A given mesh whose vertices move along its normals, by at most ``reach`` (Michel et al. 2022, Text2Mesh, section 3.1; there
    an MLP says how far, here a grid)."""

    vertices: Tensor
    normals: Tensor
    faces: Tensor

    def __init__(self, settings: MeshSettings, generator: torch.Generator):
        super().__init__()
        self.reach = settings.reach
        self.grid = LevelGrid(settings.shape_levels, 1, 0.0, generator)
        for name in ("vertices", "normals"):
            self.register_buffer(name, torch.zeros(0, 3))
        self.register_buffer("faces", torch.zeros(0, 3, dtype=torch.int64))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in ("vertices", "normals", "faces"):  # as many as the checkpoint has
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.zeros_like(value, device=self.vertices.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def triangles(self) -> tuple[Tensor, Tensor]:
        if len(self.faces) == 0:
            raise UserError("scene.shape=vertices needs a mesh to begin with; give one with --mesh FILE")
        far = torch.stack(self.grid(self.vertices)).sum(0)
        return self.vertices + self.reach * torch.tanh(far / self.reach) * self.normals, self.faces

    def begin(self, mesh: Mesh) -> None:
        assert mesh.normals is not None
        device = self.vertices.device
        self.vertices, self.normals = (torch.from_numpy(x).float().to(device) for x in (mesh.vertices, mesh.normals))
        self.faces = torch.from_numpy(mesh.faces).to(device)
