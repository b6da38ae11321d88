"""A scene's surface: a mesh, and its material at any point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .export_settings import ExportSettings
from .mesh import (
    Mesh,
    around_level,
    decimate,
    extract_with_level,
    fill_cavities,
    remove_floaters,
    sample_grid,
    smooth,
    surface_of,
    with_normals,
)

LINEAR = 0.1
"""World units; farther from the surface the distance itself does not matter."""
TOLERATED = 1.25
"""Decimation ends at about the number of triangles that was asked for."""


@dataclass(frozen=True)
class Surface:
    """mesh: with normals, in world units; ``colour(points (N, 3), normals (N, 3))``: albedo (N, 3) in [0, 1] there."""

    mesh: Mesh
    colour: Callable[[Tensor, Tensor], Tensor]
    notes: Mapping[str, str] = field(default_factory=dict)
    """Export settings that could not be met, by name: a line for each that says what was done instead."""
    dense: Mesh | None = None
    """The surface before decimation; None where that is ``mesh``."""
    finish: Callable[[Tensor, Tensor], Tensor] | None = None
    """Roughness and share of metal (N, 2) in [0, 1], as ``colour``; None for a matte surface."""


def volume_surface(
    density: Callable[[Tensor], Tensor], albedo: Callable[[Tensor], Tensor], settings: ExportSettings
) -> Surface:
    """The surface of a volume, within the unit sphere. UserError if it is empty."""
    mesh, dense, notes = clean_surface(density, settings)
    return Surface(mesh, lambda points, normals: shell_albedo(density, albedo, points, normals), notes, dense)


def distance_surface(
    distance: Callable[[Tensor], Tensor],
    density: Callable[[Tensor], Tensor],
    albedo: Callable[[Tensor], Tensor],
    settings: ExportSettings,
) -> Surface:
    """The zero of a signed distance, positive outside, within the unit sphere. Its colours are those of the volume that the
    distance stands for. UserError if nothing is inside."""

    def share(points: Tensor) -> Tensor:
        return 1 - (distance(points) / LINEAR).clamp(-1, 1)

    grid = sample_grid(share, settings.resolution, 1.0)
    dense = smooth(fill_cavities(remove_floaters(surface_of(around_level(grid, 1.0, 1.0, 0.0)))))
    made, notes = finished(dense, settings)
    notes["level"] = f"export.level = {settings.level:g} is for densities; a signed distance has its surface at zero"
    return Surface(made, lambda points, normals: shell_albedo(density, albedo, points, normals), notes, dense)


def clean_surface(density: Callable[[Tensor], Tensor], settings: ExportSettings) -> tuple[Mesh, Mesh, dict[str, str]]:
    """The cleaned surface of a density within the unit sphere, with at most about ``settings.faces`` triangles and
    smooth normals; the same before decimation; and what of the settings could not be met (``Surface.notes``)."""
    mesh, level = extract_with_level(density, settings.resolution, settings.level, radius=1.0)
    dense = smooth(fill_cavities(remove_floaters(mesh)))
    made, notes = finished(dense, settings)
    return made, dense, level_note(level, settings) | notes


def level_note(level: float, settings: ExportSettings) -> dict[str, str]:
    """The note about a level that the scene's density does not reach."""
    if level == settings.level:
        return {}
    return {
        "level": f"export.level = {settings.level:g} is above what the scene's density reaches in more than a speck; its "
        f"surface is at {level:.3g}"
    }


def finished(mesh: Mesh, settings: ExportSettings) -> tuple[Mesh, dict[str, str]]:
    """A surface with at most about ``settings.faces`` triangles and smooth normals; and notes if it has fewer or more."""
    made = with_normals(decimate(mesh, settings.faces))
    notes = {}
    if settings.faces > len(mesh.faces):
        notes["faces"] = (
            f"export.faces = {settings.faces}, but the surface has {len(mesh.faces)} triangles at export.resolution = "
            f"{settings.resolution}; raise that for more"
        )
    elif len(made.faces) > TOLERATED * settings.faces:
        notes["more faces"] = (
            f"export.faces = {settings.faces}, but with fewer than {len(made.faces)} triangles the surface would tear"
        )
    return made, notes


def shell_albedo(
    density: Callable[[Tensor], Tensor],
    albedo: Callable[[Tensor], Tensor],
    points: Tensor,
    normals: Tensor,
    outside: float = 0.02,
    inside: float = 0.04,
    samples: int = 6,
    chunk: int = 1 << 16,
) -> Tensor:
    """What a ray that falls straight onto the surface sees there: albedo (N, 3) at points (N, 3), normals (N, 3).

    A radiance field's colour lives in a shell about its surface, so one sample on the surface is not its colour. The
    ray runs from ``outside`` above to ``inside`` below (world units), and colours are weighted as in volume rendering,
    w_i = T_i (1 - exp(-density_i delta)) (Max 1995), over their sum; where all is empty, the surface's sample counts.
    """
    step = (outside + inside) / samples
    depth = outside - step * (torch.arange(samples) + 0.5)
    found = []
    with torch.no_grad():
        for start in range(0, len(points), chunk):
            x, n = points[start : start + chunk], normals[start : start + chunk]
            where = (x[:, None] + depth[:, None] * n[:, None]).reshape(-1, 3)
            optical = density(where).reshape(-1, samples).clamp(0, 1e6) * step
            before = torch.cumsum(optical, 1) - optical
            weights = torch.exp(-before) * -torch.expm1(-optical)
            weights = weights + 1e-6 * torch.exp(-((depth / step) ** 2))
            colours = albedo(where).reshape(-1, samples, 3)
            found.append((weights[..., None] * colours).sum(1) / weights.sum(1, keepdim=True))
    return torch.cat(found).clamp(0, 1) if found else torch.zeros(0, 3)
