"""Whether the shape is sound: the asset's own report, and what the clean-up removed."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import trimesh
from torch import Tensor

from ..asset import Asset
from ..errors import UserError
from ..geometry.mesh import extract_surface, face_components, remove_floaters
from ..run import Run
from ..scene.scene import Scene

RESOLUTION = 64
FLAT = 0.15
"""A thing flatter than this is called a billboard."""


def flatness(mesh: trimesh.Trimesh) -> float:
    """Thinnest over middle side of the smallest box around the mesh: 1 for a cube or a stick, towards 0 for a card."""
    thin, middle, _ = sorted(np.asarray(mesh.bounding_box_oriented.primitive.extents, np.float64).tolist())
    return thin / middle if middle > 0 else 0.0


def floaters(scene: Scene, level: float, resolution: int = RESOLUTION) -> tuple[int, int]:
    """Loose pieces of the raw surface, before any clean-up: (all components, those that the export drops);
    (0, 0) for scenes that have no density."""
    if (volume := scene.as_volume()) is None:
        return 0, 0
    mesh = extract_surface(volume.density, resolution, level, radius=1.0)
    before, _ = face_components(mesh)
    after, _ = face_components(remove_floaters(mesh))
    return before, before - after


def finished(run: Run) -> Asset | None:
    """A run's asset, if there is one. One that cannot be read is not there, and a warning says why."""
    if not os.path.lexists(path := run.path / "asset.glb"):
        return None
    try:
        return Asset.load(path)
    except UserError as error:
        warnings.warn(f"{error}; its surface is extracted again", stacklevel=2)
        return None


def report(run: Run, scene: Scene) -> dict[str, Any]:
    """The geometry of a run: {'empty': True} if there is no surface, else watertight, components, triangles, genus,
    floaters and flatness. The finished asset is read if there is one, otherwise it is made from the scene."""
    export = run.config.export
    try:
        raw, loose = floaters(scene, export.level)
        asset = finished(run) or Asset.from_scene(scene, export, run.config.prompt)
    except UserError as error:
        return {"empty": True, "why": str(error)}
    sound = asset.geometry_report()
    kept = ("watertight", "components", "triangles", "genus")
    flat = flatness(asset.mesh.geometry())
    return {k: sound[k] for k in kept} | {
        "raw_components": raw,
        "floaters": loose,
        "flatness": flat,
        "billboard": flat < FLAT,
        "empty": False,
    }


def haze(opacity: Tensor) -> float | None:
    """How much of what is seen is fog: the transparency of pixels (B, 3, H, W), mean over their opacity o, or
    sum o (1 - o) / sum o. 0 where all is solid, towards 1 for a thin veil; None where nothing is seen."""
    total = float(opacity.sum())
    return float((opacity * (1 - opacity)).sum()) / total if total > 0 else None


def saturation(pictures: Tensor, background: float = 0.5, apart: float = 0.06) -> float | None:
    """Mean chroma (largest minus smallest channel) of what is not background in pictures (B, 3, H, W) over one gray.

    None where nothing stands out from it.
    """
    shown = (pictures - background).abs().amax(1) > apart
    chroma = pictures.amax(1) - pictures.amin(1)
    return float(chroma[shown].mean()) if shown.any() else None
