"""Unwrap a mesh and bake the field's colours into a texture.

Texture coordinates have v = 0 at the bottom of the picture (OBJ, USD, trimesh; the glTF writer turns them over).
Texel (row r from the top, column c) of an S x S texture has its centre at u = (c + 0.5) / S, v = 1 - (r + 0.5) / S.
Albedo is what screens show, so texels are stored as they are: glTF's and USD's base colour is sRGB-encoded too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..geometry.mesh import Floats, Mesh
from ..geometry.raster import interpolate, rasterise
from ..reports import report
from .box_projection import box_projection
from .packing import charts_of, packed
from .unwrap_limit import generate_within
from .vertex_order import in_cache_order

Picture = NDArray[np.uint8]

PADDING = 2
"""Texels between charts."""
CHARTS = 20
"""A chart has at most this fraction of the surface."""
TEXELS = 1 << 18
"""Texels whose colours are asked for at once: some seconds of work, after which it can be stopped."""


def unwrap(mesh: Mesh, size: int) -> Mesh:
    """``unwrap_within`` without a limit of time."""
    return unwrap_within(mesh, size, np.inf)[0]


def unwrap_within(mesh: Mesh, size: int, seconds: float) -> tuple[Mesh, bool]:
    """Give the mesh texture coordinates (xatlas; least-squares conformal charts after Lévy et al. 2002), and bring its
    triangles ``in_cache_order``. Where that takes more than so many seconds, or fails, they are those of a
    ``box_projection``, and the answer is False.

    Vertices on the charts' borders are doubled. Charts are kept small, because the time to flatten one grows faster
    than its size. They are ``packed`` anew, ``PADDING`` texels apart, or stay as xatlas packs them where that is closer: rings
    hold others.
    """
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    # xatlas drops edges shorter than an absolute limit; the object is a few units large, its triangles are not.
    points = ((mesh.vertices - mesh.vertices.min(0)) * 100).astype(np.float32)
    faces, chart_area = mesh.faces.astype(np.uint32), float(area) / CHARTS * 100**2
    atlas = generate_within(seconds, points=points, faces=faces, chart_area=chart_area, size=size, padding=PADDING)
    if atlas is None:
        report("projecting", 0, 1)
        return in_cache_order(box_projection(mesh, PADDING / 2 / size)), False
    source = atlas["source"]
    normals = None if mesh.normals is None else mesh.normals[source]
    placed = np.asarray(atlas["uv"], np.float64)
    made = Mesh(mesh.vertices[source], atlas["faces"].astype(np.int64), normals, placed)
    texels = np.asarray(placed * atlas["sides"], np.float64)  # at one scale in both directions
    closer = packed(texels, made.faces, charts_of(made)[1], PADDING / 2 / size)
    if closer is not None and uv_area(closer, made.faces) > uv_area(placed, made.faces):
        made = replace(made, uv=closer)
    return in_cache_order(made), True


def uv_area(uv: Floats, faces: NDArray[np.int64]) -> float:
    """The share of the unit square that triangles of texture coordinates (V, 2) cover."""
    a, b = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    return float(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2)


def cover(mesh: Mesh, size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Which face does each texel belong to: face (S, S), -1 for none, and weights (S, S, 3) of its corners. Texels
    whose centre lies just outside a chart belong to it too, since bilinear filtering reads them."""
    assert mesh.uv is not None
    corners = mesh.uv[mesh.faces] * [1, -1] * size + [0, size]
    return rasterise(corners.astype(np.float32), np.ones((len(mesh.faces), 3), np.float32), size, size, 1.5)


def bake(mesh: Mesh, colour: Callable[[Tensor, Tensor], Tensor], size: int) -> Picture:
    """A texture (S, S, 3) of ``colour(points (N, 3), normals (N, 3)) -> (N, 3) in [0, 1]`` over the surface.

    Texels outside all charts take the colour of the nearest texel of a chart, so that no filter finds a seam.
    """
    assert mesh.normals is not None
    report("texels", 0, 1)
    face, weights = cover(mesh, size)
    filled = face >= 0
    face, weights = face[filled], weights[filled]
    colours = np.zeros((len(face), 3), np.uint8)
    for start in range(0, len(face), TEXELS):
        report("texture", start, len(face))
        some = slice(start, start + TEXELS)
        points = torch.from_numpy(interpolate(mesh.vertices, mesh.faces, face[some], weights[some]))
        normals = torch.from_numpy(interpolate(mesh.normals, mesh.faces, face[some], weights[some]))
        found = colour(points, torch.nn.functional.normalize(normals)).float().cpu()
        colours[some] = np.round(torch.nan_to_num(found).clamp(0, 1).numpy() * 255).astype(np.uint8)
    texture = np.zeros((size, size, 3), np.uint8)
    texture[filled] = colours
    report("texels without a face", 0, 1)
    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    return np.asarray(texture[nearest[0], nearest[1]], np.uint8)


def sample_texture(texture: Picture, uv: Floats) -> NDArray[np.float32]:
    """Colours (N, 3) in [0, 1] at texture coordinates (N, 2): bilinear between texel centres, clamped at the border."""
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    c, r = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    c1, r1 = np.minimum(c + 1, width - 1), np.minimum(r + 1, height - 1)
    fx, fy = (x - c)[:, None], (y - r)[:, None]
    t = texture.astype(np.float32) / 255
    rows = (t[r, c] * (1 - fx) + t[r, c1] * fx, t[r1, c] * (1 - fx) + t[r1, c1] * fx)
    return np.asarray(rows[0] * (1 - fy) + rows[1] * fy, np.float32)


def vertex_colours(mesh: Mesh, texture: Picture) -> tuple[Mesh, Picture]:
    """The mesh with the doubled vertices of the charts' borders made one, and a colour (V, 3) for each vertex."""
    assert mesh.uv is not None
    vertices, first, index = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    normals = None if mesh.normals is None else mesh.normals[first]
    welded = replace(mesh, vertices=vertices, faces=index.reshape(-1)[mesh.faces], normals=normals, uv=None)
    return welded, np.round(sample_texture(texture, mesh.uv[first]) * 255).astype(np.uint8)
