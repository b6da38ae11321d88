"""From a density to a clean triangle mesh: extract, drop floaters, fill cavities, smooth, decimate.

World units throughout; V = vertices, F = faces. Faces wind counter-clockwise seen from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import fast_simplification
import numpy as np
import scipy.sparse
import skimage.measure
import torch
import trimesh
import trimesh.smoothing
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..errors import UserError
from ..kernels.caching import njit
from ..reports import report
from .flips import without_slivers
from .manifold import unpinch

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

SPECK = 20  # a surface that encloses less than a cube of a 20th of the grid's side is no object yet
FAINTEST = 0.05
"""Lowest level tried: a ray through the whole unit sphere at this density is only 1 - exp(-0.1) = 10 % opaque."""


PACES = (3, 7)
"""How fast edges collapse. The slow pace comes first: it makes fewer slivers and a third of the error."""
EDGE_SHARE, SIZE_SHARE = 0.25, 0.002
"""Of an edge's mean length, and of the diagonal of the box around the mesh: see ``leeway``."""


@dataclass(frozen=True)
class Mesh:
    """vertices (V, 3), faces (F, 3), normals (V, 3) of unit length, uv (V, 2) in [0, 1] with v = 0 at the bottom."""

    vertices: Floats
    faces: Ints
    normals: Floats | None = None
    uv: Floats | None = None

    def geometry(self) -> trimesh.Trimesh:
        """The same triangles as a trimesh, with vertices that stand in the same place (texture seams) made one."""
        vertices, index = np.unique(self.vertices, axis=0, return_inverse=True)
        return trimesh.Trimesh(vertices, index.reshape(-1)[self.faces], process=False)


def sample_grid(
    density: Callable[[Tensor], Tensor], resolution: int, radius: float | None = None, chunk: int = 1 << 18
) -> NDArray[np.float32]:
    """Density at the vertices of a (resolution,)*3 grid over [-1, 1]^3, indexed [x, y, z]; values that are not finite
    count as empty.

    With ``radius`` only points within that sphere are asked for. Those up to two cells outside it (so that every
    edge of the grid that crosses the sphere has two good ends) get the density of the nearest point of the sphere,
    the rest is empty.
    """
    axis = torch.linspace(-1, 1, resolution)
    grid = torch.zeros(resolution**3)
    wanted = torch.arange(resolution**3)
    if radius is not None:
        square = axis**2
        reach = radius + 4 / (resolution - 1)
        wanted = wanted[(square[:, None, None] + square[None, :, None] + square[None, None, :]).flatten() < reach**2]
    with torch.no_grad():
        for start in range(0, len(wanted), chunk):
            report("surface", start, len(wanted))
            index = wanted[start : start + chunk]
            points = torch.stack([axis[index // resolution**k % resolution] for k in (2, 1, 0)], -1)
            if radius is not None:
                distance = points.norm(dim=-1, keepdim=True)
                points = points * (radius * (1 - 1e-5) / distance.clamp_min(1e-6)).clamp_max(1)
            grid[index] = density(points).detach().reshape(-1).float().cpu()
    grid = torch.nan_to_num(grid, nan=0.0, posinf=torch.finfo(torch.float32).max, neginf=0.0)
    return grid.reshape(resolution, resolution, resolution).numpy()


def reachable_level(highest: float, level: float) -> float:
    """``level``, or where the density's maximum does not exceed it, ``level`` halved until it lies at or under half the
    maximum (so that the surface encloses more than a speck). UserError if that is fainter than ``FAINTEST``."""
    if highest <= level:
        while level > highest / 2 and level >= FAINTEST:
            level /= 2
    if highest <= level or level < FAINTEST:
        raise UserError(
            f"the scene is empty: its highest density is {highest:.3g}; train longer, or raise scene.density_bias"
        )
    return level


def extract_surface(
    density: Callable[[Tensor], Tensor],
    resolution: int,
    level: float,
    radius: float | None = None,
    blur: float = 1.0,
) -> Mesh:
    """``extract_with_level`` without the level."""
    return extract_with_level(density, resolution, level, radius, blur)[0]


def extract_with_level(
    density: Callable[[Tensor], Tensor],
    resolution: int,
    level: float,
    radius: float | None = None,
    blur: float = 1.0,
) -> tuple[Mesh, float]:
    """The surface density = level within [-1, 1]^3, closed where the object meets the border of the cube
    (half a grid cell outside it).

    ``density`` maps points (N, 3) to (N,) in 1 / world unit. Where it nowhere reaches the level, a lower level is
    taken (see ``reachable_level``); so it is where no more than a speck does, as early in a run. ``radius`` cuts the object
    off at a sphere; ``blur`` is the standard deviation, in grid cells, of a smoothing of the field against stair steps.
    Marching cubes after Lewiner et al. (2003). Also the level that was taken.
    """
    grid = sample_grid(density, resolution, radius)
    level = found_level(grid, level, radius, blur)
    return surface_of(around_level(grid, level, radius, blur)), level


def found_level(grid: Floats32, level: float, radius: float | None = None, blur: float = 1.0) -> float:
    """``level``, or a lower one where the density (R, R, R) does not reach it in more than a speck. UserError if the scene
    is empty."""
    level = reachable_level(float(grid.max()), level)
    least = (len(grid) / SPECK) ** 3
    while (around_level(grid, level, radius, blur) > 0).sum() < least and level / 2 >= FAINTEST:
        level /= 2
    return level


def surface_of(field: Floats32) -> Mesh:
    """The surface field = 0 of a field (R, R, R) over [-1, 1]^3, in [-1, 1] and positive inside. See ``extract_with_level``."""
    if not (field > 0).any():
        raise UserError("the scene is empty: nothing in it is as large as a grid cell; raise export.resolution")
    boxes = [np.flatnonzero((field > -0.9).any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    low = np.array([max(box[0] - 2, 0) for box in boxes])
    x, y, z = (slice(start, box[-1] + 3) for start, box in zip(low, boxes, strict=True))
    inner = np.pad(field[x, y, z], 1, constant_values=-1)
    inner[inner == 0] = 1e-6  # A vertex exactly on the surface would make triangles without area.
    vertices, faces, _, _ = skimage.measure.marching_cubes(inner, 0.0, allow_degenerate=False)
    vertices = (vertices.astype(np.float64) - 1 + low) * (2 / (len(field) - 1)) - 1
    return _outward(Mesh(vertices, faces.astype(np.int64)))


def around_level(grid: Floats32, level: float, radius: float | None, blur: float) -> Floats32:
    """A field (R, R, R) that is positive inside the surface grid = level and within ``radius``, smoothed by ``blur`` cells."""
    resolution = len(grid)
    # Linear interpolation puts the surface right only where the field is about linear. Density climbs steeply, and
    # twice the level says no less about where the surface is than a thousand times it.
    field = np.clip(grid / level - 1, -1, 1)
    if radius is not None:
        square = np.linspace(-1, 1, resolution) ** 2
        distance = np.sqrt(square[:, None, None] + square[None, :, None] + square[None, None, :])
        field = np.minimum(field, (radius - distance) * (resolution - 1) / 4).astype(np.float32)
    if blur > 0:
        field = gaussian_filter(field, blur, mode="nearest")
    return field


def _outward(mesh: Mesh) -> Mesh:
    """Flip all faces where the mesh as a whole encloses a negative volume."""
    return mesh if signed_volumes(mesh).sum() >= 0 else replace(mesh, faces=mesh.faces[:, ::-1].copy())


def signed_volumes(mesh: Mesh) -> Floats:
    """(F,) signed volumes of the tetrahedra between each face and the origin; over a closed component they add up to
    its volume, negative where its faces look inwards."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return np.asarray(np.einsum("ij,ij->i", a, np.cross(b, c)) / 6, np.float64)


def face_components(mesh: Mesh) -> tuple[int, Ints]:
    """Connected components (faces that share a vertex): their number, and each face's label (F,)."""
    f, n = mesh.faces, len(mesh.vertices)
    edges = (np.concatenate([f[:, 0], f[:, 1]]), np.concatenate([f[:, 1], f[:, 2]]))
    graph = scipy.sparse.coo_matrix((np.ones(2 * len(f), np.int8), edges), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    values, of_face = np.unique(label[f[:, 0]], return_inverse=True)
    return len(values), of_face.reshape(-1).astype(np.int64)


def keep_faces(mesh: Mesh, keep: NDArray[np.bool_]) -> Mesh:
    """The mesh of the chosen faces (F,) alone, without the vertices that no face uses any more."""
    used, index = np.unique(mesh.faces[keep], return_inverse=True)
    pick = [None if a is None else a[used] for a in (mesh.normals, mesh.uv)]
    return Mesh(mesh.vertices[used], index.reshape(-1, 3).astype(np.int64), *pick)


def substantial(mesh: Mesh, min_share: float = 0.02) -> tuple[NDArray[np.bool_], Ints]:
    """Which components are no floaters, (C,), and each face's component (F,): the largest one and those that enclose at least
    ``min_share`` of its volume or, for thin parts, have at least 5 ``min_share`` of its area. The walls of cavities are
    judged the same way, by |volume|."""
    count, label = face_components(mesh)
    volume = np.abs(np.bincount(label, signed_volumes(mesh), count))
    corners = mesh.vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.bincount(label, np.linalg.norm(normal, axis=1) / 2, count)
    largest = volume.argmax()
    return (volume >= min_share * volume[largest]) | (area >= 5 * min_share * area[largest]), label


def remove_floaters(mesh: Mesh, min_share: float = 0.02) -> Mesh:
    """The mesh of its ``substantial`` components."""
    kept, label = substantial(mesh, min_share)
    return keep_faces(mesh, kept[label])


@njit(nogil=True)
def winding_number(point: Floats, vertices: Floats, faces: Ints) -> float:
    """How often the closed mesh of vertices (V, 3) and faces (F, 3) surrounds the point (3,): 1 inside, 0 outside (Van
    Oosterom & Strackee 1983, eq. 8)."""
    x, y, z = point
    total = 0.0
    for i, j, k in faces:
        ax, ay, az = vertices[i, 0] - x, vertices[i, 1] - y, vertices[i, 2] - z
        bx, by, bz = vertices[j, 0] - x, vertices[j, 1] - y, vertices[j, 2] - z
        cx, cy, cz = vertices[k, 0] - x, vertices[k, 1] - y, vertices[k, 2] - z
        la = math.sqrt(ax * ax + ay * ay + az * az)
        lb = math.sqrt(bx * bx + by * by + bz * bz)
        lc = math.sqrt(cx * cx + cy * cy + cz * cz)
        triple = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
        ab, bc, ca = ax * bx + ay * by + az * bz, bx * cx + by * cy + bz * cz, cx * ax + cy * ay + cz * az
        total += math.atan2(triple, la * lb * lc + ab * lc + bc * la + ca * lb)
    return total / (2 * math.pi)


@njit(nogil=True)
def winding_numbers(points: Floats, vertices: Floats, faces: Ints) -> Floats:
    """``winding_number`` (N,) of points (N, 3)."""
    found = np.empty(len(points))
    for n in range(len(points)):
        found[n] = winding_number(points[n], vertices, faces)
    return found


def fill_cavities(mesh: Mesh) -> Mesh:
    """Drop what no camera outside can see: the inner walls of hollow bodies, and bodies enclosed in a cavity.

    On the border of a padded density a component that looks inwards can only be the wall of a cavity.
    """
    count, label = face_components(mesh)
    volume = np.bincount(label, signed_volumes(mesh), count)
    kept = volume > 0
    faces = mesh.faces[np.argsort(label, kind="stable")]
    ends = np.cumsum(np.bincount(label, minlength=count))
    starts = ends - np.bincount(label, minlength=count)
    corners = mesh.vertices[faces]
    low = np.minimum.reduceat(corners.min(1), starts) if count else corners
    high = np.maximum.reduceat(corners.max(1), starts) if count else corners
    for i in np.flatnonzero(volume > 0):
        around = (volume > volume[i]) & (low[i] >= low).all(1) & (high[i] <= high).all(1)
        kept[i] = not any(
            winding_number(corners[starts[i], 0], mesh.vertices, faces[starts[j] : ends[j]]) > 0.5
            for j in np.flatnonzero(around)
        )
    return keep_faces(mesh, kept[label])


def smooth(mesh: Mesh, iterations: int = 10) -> Mesh:
    """Taubin smoothing (1995): takes off the stair steps of the grid, and keeps the volume (a last scaling about the
    middle makes good what little it loses)."""
    if iterations == 0:
        return mesh
    body = trimesh.Trimesh(mesh.vertices.copy(), mesh.faces, process=False)
    body = trimesh.smoothing.filter_taubin(body, lamb=0.5, nu=0.53, iterations=iterations)
    before, after = signed_volumes(mesh).sum(), float(body.volume)
    vertices = np.asarray(body.vertices, np.float64)
    ratio = before / after if after > 0 else 1.0
    if 0.8 < ratio < 1.25:
        middle = vertices.mean(0)
        vertices = middle + (vertices - middle) * ratio ** (1 / 3)
    return replace(mesh, vertices=vertices)


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """At most ``faces`` triangles, or about as many where edges stop collapsing, by quadric edge collapse (Garland & Heckbert 1997), then
    ``without_slivers``.

    A watertight mesh stays watertight: where collapses pinched it, it is taken apart there (``unpinch``); should that
    fail, fewer faces are collapsed (at worst none).
    """
    closed = is_watertight(mesh)
    points, triangles = mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)

    def collapsed(count: int, pace: int) -> Mesh:
        p, f = fast_simplification.simplify(points, triangles, target_count=count, agg=pace)
        made = Mesh(np.asarray(p, np.float64), np.asarray(f, np.int64))
        return Mesh(*unpinch(made.vertices, made.faces)) if closed and not is_watertight(made) else made

    target = faces
    while target < len(mesh.faces):
        for pace in PACES:
            made = collapsed(target, pace)
            if pace != PACES[-1] and len(made.faces) > 1.05 * target:
                continue  # it stopped early
            if 0 < (over := len(made.faces) - target) < 0.05 * target:
                made = collapsed(target - 2 * over, pace)  # taking it apart took a few triangles more
            if len(made.faces) and (not closed or is_watertight(made)):
                return _outward(replace(made, faces=without_slivers(made.vertices, made.faces, leeway(mesh))))
        target *= 2
    return mesh


def leeway(mesh: Mesh) -> float:
    """How far a flipped edge may be from the surface: less than the mesh's own triangles are fine, and less than can be seen."""
    edges = np.linalg.norm(mesh.vertices[mesh.faces] - mesh.vertices[np.roll(mesh.faces, -1, 1)], axis=2)
    return float(min(EDGE_SHARE * edges.mean(), SIZE_SHARE * np.linalg.norm(np.ptp(mesh.vertices, axis=0))))


def is_watertight(mesh: Mesh) -> bool:
    """Does every edge have exactly two faces, that agree about which side is outside?"""
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return bool(body.is_watertight and body.is_winding_consistent)


def with_normals(mesh: Mesh) -> Mesh:
    """The mesh with smooth normals: face normals averaged at each vertex, weighted by the angle there."""
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    normals = np.asarray(body.vertex_normals, np.float64)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(length > 0.5, normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
    return replace(mesh, normals=normals)
