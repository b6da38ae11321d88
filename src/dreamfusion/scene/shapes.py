"""What a mesh scene's shape is made of: a signed distance in a tetrahedral grid, or a given mesh whose vertices move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..geometry.distance import signed_distance
from ..geometry.mesh import Mesh
from ..geometry.tetrahedra import body_centred_grid, marching_tetrahedra
from .level_grid import LevelGrid
from .scene_settings import MeshSettings

NEAR = 3.0  # cubes; distances farther from the surface than this say nothing about their slope


class Shape(nn.Module, ABC):
    """A closed or open surface in the unit sphere. ``grid`` holds what learns."""

    grid: LevelGrid

    @abstractmethod
    def triangles(self) -> tuple[Tensor, Tensor]:
        """Vertices (V, 3) and faces (F, 3). Differentiable by ``grid``. UserError if there is nothing left, or nothing yet."""

    @abstractmethod
    def begin(self, mesh: Mesh) -> None:
        """Take the shape of a mesh with normals."""

    def penalties(self) -> dict[str, Tensor]:
        """The shape's own penalties, beside those of any mesh."""
        return {}


class Tetrahedra(Shape):
    """The zero of base + offset at the points of a body-centred grid, which themselves move a little (Shen et al. 2021).

    ``base`` (P,) is the signed distance that the stage began with; the offset and the moves are learned grids, in world
    units. A point moves by less than half of a tetrahedron's height, so that none turns over. The surface stays
    within the unit sphere.
    """

    base: Tensor
    points: Tensor
    tets: Tensor

    def __init__(self, settings: MeshSettings, generator: torch.Generator):
        super().__init__()
        points, tets = body_centred_grid(settings.resolution)
        self.cube = 2 / settings.resolution
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("tets", tets, persistent=False)
        self.register_buffer("base", points.norm(dim=-1) - settings.radius)
        self.grid = LevelGrid(settings.shape_levels, 4, 0.0, generator)

    def placed(self) -> tuple[Tensor, Tensor]:
        """Points (P, 3) where they are now, and the signed distances (P,) there."""
        learned = torch.stack(self.grid(self.points)).sum(0)
        most = 0.2 * self.cube  # along each axis, so 0.35 at most; a tetrahedron is 0.71 of a cube's side high
        moved = self.points + most * torch.tanh(learned[:, 1:] / most)
        border = self.points.norm(dim=-1) - (1 - self.cube)
        return moved, torch.maximum(self.base + learned[:, 0], border)

    def triangles(self) -> tuple[Tensor, Tensor]:
        vertices, faces = marching_tetrahedra(*self.placed(), self.tets)
        if len(faces) == 0:
            raise UserError("the mesh has vanished; lower scene.lr_shape, or start from more than a speck")
        return vertices, faces

    def begin(self, mesh: Mesh) -> None:
        distance = signed_distance(mesh, self.points.cpu().double().numpy())
        self.base.copy_(torch.from_numpy(distance).clamp(-NEAR * self.cube, NEAR * self.cube))
        if not (self.base < 0).any():
            raise UserError("the mesh to begin with is thinner than the tetrahedra; raise scene.resolution")

    def penalties(self) -> dict[str, Tensor]:
        """eikonal: mean of (|slope| - 1)^2 at the cubes' corners near the surface, by differences along the axes."""
        side = round(2 / self.cube) + 1
        learned = torch.stack(self.grid(self.points[: side**3])).sum(0)[:, 0]
        distance = (self.base[: side**3] + learned).reshape(side, side, side)
        a = distance[:-1, :-1, :-1]
        steps = (distance[1:, :-1, :-1] - a, distance[:-1, 1:, :-1] - a, distance[:-1, :-1, 1:] - a)
        slope = (torch.stack(steps).square().sum(0) + 1e-12).sqrt() / self.cube
        near = a.detach().abs() < (NEAR - 2) * self.cube
        return {"eikonal": (slope - 1).square()[near].mean() if near.any() else distance.new_zeros(())}


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
