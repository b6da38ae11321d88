"""Maps of what decimation took: a normal map and ambient occlusion, baked from the surface as it was before.

Normal maps are in tangent space as glTF 2.0 (section 3.9.3) and UsdPreviewSurface have it: x to where u grows, y up in the picture, z
outwards; a texel is (n + 1) / 2. They are the exact inverse of what ``tangents.bases`` do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ..geometry.export_settings import Maps
from ..geometry.mesh import Floats, Floats32, Mesh, with_normals
from ..geometry.raster import interpolate
from ..reports import report
from .dense_rays import DenseRays, interpolated
from .occlusion import occlusion
from .tangents import bases, tangents
from .texture import Picture, cover

REACH = 0.05
"""How far from the mesh the dense surface may be, in diagonals of the box around it."""
WORTH = 1.0
"""Mean degrees between a mesh's own normals and the dense surface's, from which on a normal map can be seen to help."""
SHARE = 0.5
"""Side of the maps, of the texture's: the dense surface has no finer detail, as its triangles span some texels."""
SMALLEST = 64
STEEPEST = 0.1
"""Least z of a normal in the map: one that looks away from the mesh cannot be shown."""


@dataclass(frozen=True)
class Relief:
    """normals (S, S, 3) uint8, in tangent space; occlusion (S, S) uint8, 255 in the open. Either may be missing."""

    normals: Picture | None = None
    occlusion: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Dense:
    """A surface before decimation: a mesh with normals; what each of its vertices sees of the sky, (V,), or nothing; and the
    means to find it."""

    mesh: Mesh
    open: Floats32 | None
    rays: DenseRays

    @classmethod
    def of(cls, mesh: Mesh, occluded: bool = True) -> Dense:
        """Of a mesh; without ``occluded`` it is not asked what its vertices see."""
        mesh = with_normals(mesh) if mesh.normals is None else mesh
        assert mesh.normals is not None
        open = occlusion(mesh, mesh.vertices, mesh.normals) if occluded else None
        return cls(mesh, open, DenseRays.of(mesh))

    @property
    def reach(self) -> float:
        """How far from a place the surface is looked for: a share of the diagonal of the box around the mesh."""
        return REACH * float(np.linalg.norm(np.ptp(self.mesh.vertices, axis=0)))

    def met(self, points: Floats, normals: Floats) -> tuple[Floats, Floats]:
        """The surface's normals (N, 3) and openness (N,) where the normals (N, 3) of places (N, 3) nearby meet it; where they do
        not, the normals are those given, and the openness is 1."""
        assert self.mesh.normals is not None
        face, weights = self.rays.nearest(points, normals, self.reach)
        hit = face >= 0
        out, open = normals.copy(), np.ones(len(points))
        found = interpolated(self.mesh.normals, self.mesh.faces, face[hit], weights[hit])
        length = np.linalg.norm(found, axis=1, keepdims=True)
        out[hit] = np.where(length > 1e-6, found / np.maximum(length, 1e-12), normals[hit])
        if self.open is not None:
            values = self.open[:, None].astype(np.float64)
            open[hit] = interpolated(values, self.mesh.faces, face[hit], weights[hit])[:, 0]
        return out, open


def bake_relief(mesh: Mesh, dense: Dense, texture_size: int, maps: Maps = "both") -> Relief:
    """The maps of a mesh with normals and uv, ``SHARE`` of the texture's side. Texels outside all charts take the value of the
    nearest one. With ``auto`` there are normals only where they are ``WORTH`` it."""
    assert mesh.normals is not None
    report("relief", 0, 1)
    size = max(round(texture_size * SHARE), min(texture_size, SMALLEST))
    face, weights = cover(mesh, size)
    filled = face >= 0
    places = (mesh.faces, face[filled], weights[filled])
    points = interpolate(mesh.vertices, *places).astype(np.float64)
    normals = interpolate(mesh.normals, *places).astype(np.float64)
    own = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    found, open = dense.met(points, own)
    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    picture = gray = None
    off = np.degrees(np.arccos(np.clip((found * own).sum(1), -1, 1))).mean() if len(own) else 0.0
    if maps in ("normal", "both") or (maps == "auto" and off > WORTH):
        picture = np.zeros((size, size, 3), np.uint8)
        along = interpolate(tangents(mesh), *places).astype(np.float64)
        picture[filled] = np.round((into(normals, along, found) + 1) * 127.5)
        picture = picture[nearest[0], nearest[1]]
    if maps in ("auto", "occlusion", "both") and dense.open is not None:
        gray = np.zeros((size, size), np.uint8)
        gray[filled] = np.round(open * 255)
        gray = gray[nearest[0], nearest[1]]
    return Relief(picture, gray)


def into(normals: Floats, along: Floats, directions: Floats) -> Floats:
    """Unit directions (N, 3) in the tangent space of interpolated normals (N, 3) and tangents (N, 4); z is ``STEEPEST`` or
    more."""
    t, b, n = np.moveaxis(bases(normals, along), 2, 0)
    # Cramer's rule; the length does not matter, the determinant's sign does.
    sides = (np.cross(b, n), np.cross(n, t), np.cross(t, b))
    sign = np.sign((t * sides[0]).sum(1))
    local = np.stack([(directions * side).sum(1) * sign for side in sides], 1)
    local /= np.maximum(np.linalg.norm(local, axis=1, keepdims=True), 1e-12)
    local[:, 2] = np.maximum(local[:, 2], STEEPEST)
    return np.asarray(local / np.linalg.norm(local, axis=1, keepdims=True))
