"""Coarser versions of a textured mesh, for things that are far away (levels of detail; Clark 1976)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..geometry.distance import surface_points
from ..geometry.mesh import Floats, Mesh, decimate, with_normals
from .texture import Picture, bake, sample_texture, unwrap_within

SHARE = 4
"""Each level has a fourth of the triangles of the one before: seen from twice as far, they are as large."""
LEAST = 100
"""No level has fewer triangles."""
SMALLEST = 128
"""Side of the smallest texture; each level's is half of the one before."""
SAMPLES = 200_000
NEAREST = 3
"""A place takes the mean colour of so many samples of the mesh before."""


class Level(NamedTuple):
    """A coarser mesh with normals and uv, its texture (S, S, 3), and its finish (S, S, 3) if the given mesh has one."""

    mesh: Mesh
    texture: Picture
    finish: Picture | None


def triangles_of(faces: int, count: int) -> list[int]:
    """The triangles of the levels 1 to ``count`` of a mesh of so many faces, as far as they are at least ``LEAST``."""
    return [wanted for k in range(1, count + 1) if (wanted := faces // SHARE**k) >= LEAST]


def levels_of_detail(
    mesh: Mesh, texture: Picture, count: int, seconds: float = np.inf, finish: Picture | None = None
) -> list[Level]:
    """Up to ``count`` coarser meshes, each with its own texture; fewer where the mesh has too few triangles.

    The colours, the roughness and the metal are those of the nearest places of the given mesh. Each is unwrapped within so
    many seconds, or else projected from six sides.
    """
    body = mesh.geometry()
    whole = Mesh(np.asarray(body.vertices), np.asarray(body.faces))
    made: list[Level] = []
    before = len(whole.faces)
    samples = Samples(mesh)
    colours, glosses = samples.of(texture), None if finish is None else samples.of(finish)
    for k, wanted in enumerate(triangles_of(len(whole.faces), count), 1):
        coarse = with_normals(decimate(whole, wanted))
        if len(coarse.faces) >= before:  # it would tear
            break
        before = len(coarse.faces)
        size = max(len(texture) >> k, min(SMALLEST, len(texture)))
        unwrapped, _ = unwrap_within(coarse, size, seconds)
        picture = bake(unwrapped, colours, size)
        made.append(Level(unwrapped, picture, None if glosses is None else bake(unwrapped, glosses, size)))
    return made


class Samples:
    """Places all over a mesh with uv, at which its textures are read for points nearby."""

    def __init__(self, mesh: Mesh):
        assert mesh.uv is not None
        face, weights = surface_points(mesh, SAMPLES)
        self.tree = cKDTree(at(mesh.vertices, mesh, face, weights))
        self.uv = at(mesh.uv, mesh, face, weights)

    def of(self, texture: Picture) -> Callable[[Tensor, Tensor], Tensor]:
        """A texture's values (N, 3) in [0, 1] near points (N, 3), whatever their normals."""
        values = sample_texture(texture, self.uv)

        def near(points: Tensor, normals: Tensor) -> Tensor:
            _, index = self.tree.query(points.numpy(), k=NEAREST)
            return torch.from_numpy(values[index].mean(1))

        return near


def at(values: Floats, mesh: Mesh, face: np.ndarray, weights: Floats) -> Floats:
    """Values (V, C) of a mesh's vertices at places of its surface: faces (N,) and weights (N, 3); (N, C)."""
    return np.asarray(np.einsum("nk,nkc->nc", weights, values[mesh.faces[face]]))
