"""The surface of a volume that shows what the volume shows: level, blur and resolution chosen by its silhouettes.

Whether a ray sees something depends on density times thickness, so no level is right for both a spoke and a saddle: a high one
cuts the spoke off, a low one swells the saddle. Here the level is as low as the thinnest parts need, and what is too thick
then is carved away by the silhouettes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..geometry.export_settings import ExportSettings
from ..geometry.mesh import (
    FAINTEST,
    Floats32,
    Mesh,
    around_level,
    fill_cavities,
    found_level,
    keep_faces,
    sample_grid,
    smooth,
    substantial,
    surface_of,
)
from ..geometry.surface import Surface, finished, level_note, shell_albedo
from ..view.cameras import Cameras
from .scene import Scene
from .silhouettes import SOLID, Agreement, Silhouettes, faces_seen, project

GOOD = 0.03
"""A mesh that misses no more of the silhouettes than this, and has no more too much than twice this, is good enough."""
ENOUGH = 0.05
"""Share of the silhouettes that must be missing before a finer resolution is tried, for that takes seconds."""
FINEST = 288
LOWEST = 10.0
"""The level may be lowered by this factor at most."""
UNSEEN = 0.01
"""Share of the solid pixels that the level may miss."""
FINER = 1.4
"""Factor of the finer resolution."""
BLUR, SWELL = 0.7, 0.15
"""Standard deviation, in cells, of the smoothing of the field against stair steps, and what is added to the field (at most 1) for what
smoothing takes from the silhouettes. Thin parts are lost to more blur, and the thinnest to any: those are restored."""
JUST = 0.02
"""Value to which the field is raised where a ray misses what it should see: the surface then just reaches it."""
APART = 0.004
"""What a loose piece costs, in IoU."""


def shown_surface(scene: Scene, settings: ExportSettings) -> Surface:
    """The surface of any scene: fitted to what it shows if it is a volume and ``settings.fit``, else its own. UserError if it is
    empty."""
    volume = scene.as_volume() if settings.fit else None
    if volume is None or not (seen := Silhouettes.of(scene)).enough:
        return scene.surface(settings)
    return fitted_surface(volume.density, volume.albedo, settings, seen)


def fitted_surface(
    density: Callable[[Tensor], Tensor],
    albedo: Callable[[Tensor], Tensor],
    settings: ExportSettings,
    silhouettes: Silhouettes,
) -> Surface:
    """The surface of a volume within the unit sphere, as near to its silhouettes as can be had. UserError if it is empty."""
    grid = sample_grid(density, settings.resolution, radius=1.0)
    level = found_level(grid, settings.level, 1.0)
    best: tuple[float, Mesh, Agreement] | None = None
    for mesh in _candidates(grid, level, silhouettes):
        best = better(best, mesh, silhouettes)
        if good(best[2]):
            break
    if best is None or best[2].missing > ENOUGH:
        finer = min(round(len(grid) * FINER), max(len(grid), FINEST))
        for mesh in _candidates(sample_grid(density, finer, radius=1.0), level, silhouettes):
            best = better(best, mesh, silhouettes)
    if best is None or not good(best[2]):
        best = better(best, cleaned(surface_of(around_level(grid, level, 1.0, 1.0)), silhouettes), silhouettes)
    mesh, notes = finished(best[1], settings)
    notes = level_note(level, settings) | notes
    return Surface(mesh, lambda points, normals: shell_albedo(density, albedo, points, normals), notes, best[1])


def merit(found: Agreement) -> float:
    """What a surface is worth: its IoU, less what is missing (a part that is gone is worse than one that is too thick), and
    less a little for each loose piece."""
    return found.iou - found.missing - APART * min(found.pieces - 1, 20)


def good(found: Agreement) -> bool:
    """Whether nothing better need be looked for."""
    return found.missing <= GOOD and found.extra <= 2 * GOOD


def better(
    best: tuple[float, Mesh, Agreement] | None, mesh: Mesh, silhouettes: Silhouettes
) -> tuple[float, Mesh, Agreement]:
    """The better of the best so far and a mesh: its merit, itself, its agreement."""
    found = silhouettes.agreement(mesh)
    worth = merit(found)
    return best if best is not None and best[0] >= worth else (worth, mesh, found)


def _candidates(grid: Floats32, level: float, silhouettes: Silhouettes) -> Iterator[Mesh]:
    """Cleaned surfaces of a density grid, the likeliest first: carved and smoothed; the same with what is too thin for that restored,
    which leaves small bumps, each of one ray."""
    at = showing_level(grid, level, silhouettes)
    field = np.minimum(around_level(grid, at, 1.0, 0.0), seen_inside(grid > at / 2, silhouettes))
    smoothed = gaussian_filter(field, BLUR, mode="nearest") + SWELL
    if (smoothed > 0).any():
        yield cleaned(surface_of(smoothed), silhouettes)
    field = restored(np.maximum(field, smoothed), silhouettes)
    if (field > 0).any():
        yield cleaned(surface_of(field), silhouettes)


def cleaned(mesh: Mesh, silhouettes: Silhouettes) -> Mesh:
    """A raw surface without dust and cavities, smoothed. Pieces that show are kept."""
    kept, _ = substantial(mesh)
    visible, of_face = silhouettes.visible(mesh)
    return smooth(fill_cavities(keep_faces(mesh, (kept | visible)[of_face])))


def along_rays(field: Floats32, cameras: Cameras, pixels: NDArray[np.bool_], samples: int) -> tuple[Tensor, Tensor]:
    """Points (N, M, 3) along the rays of the chosen pixels (B, S, S) inside the unit sphere, and the field (R, R, R) there."""
    view, row, column = (torch.from_numpy(index) for index in np.nonzero(pixels))
    origins, directions = cameras.rays(pixels.shape[-1])
    start, along = origins.reshape(-1, 3)[view], directions[view, row, column]
    middle = -(start * along).sum(-1, keepdim=True)
    half = (1 - (start.square().sum(-1, keepdim=True) - middle**2)).clamp_min(0).sqrt()
    distance = middle + half * torch.linspace(-1, 1, samples)
    points = start[:, None] + distance[..., None] * along[:, None]
    volume, where = torch.from_numpy(field)[None, None], points.flip(-1)[None, None]
    return points, torch.nn.functional.grid_sample(volume, where, align_corners=True)[0, 0, 0]


def showing_level(grid: Floats32, level: float, silhouettes: Silhouettes) -> float:
    """The highest density up to ``level`` that all but ``UNSEEN`` of the rays through what is solid meet in a density grid
    (R, R, R) over [-1, 1]^3. It is ``level / LOWEST`` or more."""
    some = silhouettes.solid.copy()
    some[:, ::2] = False  # every second pixel of every second row is enough
    some[:, :, ::2] = False
    if not some.any():
        return level
    _, met = along_rays(grid, silhouettes.cameras, some, len(grid))
    found = float(np.quantile(met.amax(-1).numpy(), UNSEEN))
    return min(level, max(found, level / LOWEST, FAINTEST))


def restored(field: Floats32, silhouettes: Silhouettes) -> Floats32:
    """A field (R, R, R) raised so that solid pixels that its surface misses just see it, each at its ray's highest point.

    The change of one ray is the smallest in the eight values around the point (a Kaczmarz step, as in algebraic
    reconstruction); of several rays the largest counts.
    """
    if not (field > 0).any():
        return field
    seen = faces_seen(surface_of(field), silhouettes.around, silhouettes.size) >= 0
    missing = (silhouettes.opacity > SOLID).numpy() & ~seen
    if not missing.any():
        return field
    points, met = along_rays(field, silhouettes.around, missing, 2 * len(field))
    most, at = met.max(-1)
    point = points[torch.arange(len(at)), at].numpy()
    there = most.numpy() > -0.99  # else there is nothing that could be raised
    index = (point[there] + 1) * ((len(field) - 1) / 2)
    base, need = np.floor(index).astype(np.int64), np.maximum(JUST - most.numpy()[there], 0)
    corners = [base + corner for corner in np.ndindex(2, 2, 2)]
    weights = [np.prod(1 - np.abs(index - corner), 1) for corner in corners]
    total = np.maximum(sum(w**2 for w in weights), 1e-9)
    raised = np.zeros_like(field)
    for corner, w in zip(corners, weights, strict=True):
        place = tuple(corner.clip(0, len(field) - 1).T)
        np.maximum.at(raised, place, (need * w / total).astype(np.float32))
    return field + raised


def seen_inside(where: NDArray[np.bool_], silhouettes: Silhouettes) -> Floats32:
    """Which points of a grid (R, R, R) over [-1, 1]^3 look solid from (almost) everywhere: above 0 inside, below outside, in
    [-1, 1]; -1 unless ``where``.

    A surface at a low level is too thick, and the silhouettes say where: a point is outside if two views see nothing
    there (the visual hull of Laurentini 1994, with one view allowed to be wrong: a thin thing may be clear from one side).
    """
    index = np.argwhere(where)
    points = np.asarray(index * (2 / (len(where) - 1)) - 1, np.float64)
    first = np.full(len(points), np.inf, np.float32)
    second = first.copy()
    for k in range(len(silhouettes.around)):
        screen, _ = project(points, silhouettes.around[k : k + 1], silhouettes.size)
        place = torch.from_numpy(screen / (silhouettes.size / 2) - 1).float()
        picture = silhouettes.opacity[k][None, None]
        found = torch.nn.functional.grid_sample(picture, place[None, None], align_corners=False)[0, 0, 0].numpy()
        second = np.minimum(second, np.maximum(first, found))
        first = np.minimum(first, found)
    out = np.full(where.shape, -1, np.float32)
    out[where] = np.clip((second - SOLID) / SOLID, -1, 1)
    return out
