"""Does a mesh show what its scene shows? Silhouettes from eight sides, of the scene's opacity and of the mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..geometry.mesh import Mesh, face_components
from ..geometry.raster import rasterise
from ..reports import report
from ..torch_state import plain_torch
from ..view.cameras import Cameras, orbit_cameras
from ..view.view import orbit_view
from .scene import Scene

Bools = NDArray[np.bool_]

SOLID = 0.5
"""Opacity from which a pixel shows the object."""
SIZE = 128
AZIMUTHS = tuple(45.0 * k for k in range(8))
ELEVATIONS = (10.0, 35.0)
"""In degrees, by turns: the views that are judged."""
BETWEEN = tuple(45.0 * k + 22.5 for k in range(8))
HIGH_AND_LOW = (55.0, -10.0)
"""More views, in which a surface is fitted but does not decide."""
CHECKED = 20.0
"""Elevation of the views ``BETWEEN`` in which the result is measured: they take no part in the choice."""
LEAST = 0.002
"""A scene that is solid in fewer of the pixels than this shows nothing that a surface could be fitted to or compared with."""
SEEN = 4
"""A loose piece of fewer pixels, in its second best view, is dust."""


@dataclass(frozen=True)
class Agreement:
    """How two sets of silhouettes agree. iou: pixels of both over pixels of either; missing, extra: pixels of the scene
    alone and of the mesh alone, over the scene's; all pooled over the views. pieces: of the mesh."""

    iou: float
    missing: float
    extra: float
    pieces: int

    def rounded(self) -> dict[str, float | int]:
        """The figures for people and for records."""
        return {
            "iou": round(self.iou, 3),
            "missing": round(self.missing, 3),
            "extra": round(self.extra, 3),
            "pieces": self.pieces,
        }


def looks_around(azimuths: tuple[float, ...] = AZIMUTHS, elevations: tuple[float, ...] = ELEVATIONS) -> Cameras:
    """Cameras at azimuths in degrees, whose elevations take turns."""
    return _together([orbit_cameras([a], elevations[k % len(elevations)]) for k, a in enumerate(azimuths)])


def _together(cameras: list[Cameras]) -> Cameras:
    azimuth, elevation, radius, fov = (
        torch.cat([getattr(c, name) for c in cameras]) for name in ("azimuth", "elevation", "radius", "fov")
    )
    return Cameras(azimuth, elevation, radius, fov)


@plain_torch()
@torch.no_grad()
def opacities(scene: Scene, cameras: Cameras, size: int = SIZE) -> Tensor:
    """Opacity (B, size, size) of a scene."""
    view = orbit_view(cameras, size, "textureless")
    seen = []
    for k in range(len(view)):
        report("silhouettes", k, len(view))
        seen.append(scene.render(view[k]).opacity[:, 0].float().cpu())
    return torch.cat(seen)


def project(points: NDArray[np.float64], camera: Cameras, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 3) in the picture of one camera: pixels (N, 2), x to the right and y down, and nearness (N,) = 1 / depth,
    -1 behind the camera."""
    right, up, back = (axis[0].double().numpy() for axis in camera.axes())
    relative = points - camera.positions()[0].double().numpy()
    depth = -relative @ back
    reach = np.maximum(depth, 1e-6) * np.tan(float(camera.fov[0]) / 2)
    screen = np.stack([relative @ right / reach + 1, 1 - relative @ up / reach], -1) * (size / 2)
    return screen, np.where(depth > 1e-3, 1 / np.maximum(depth, 1e-3), -1.0)


def faces_seen(mesh: Mesh, cameras: Cameras, size: int = SIZE) -> NDArray[np.int32]:
    """The face that each pixel's centre sees, (B, size, size); -1 for none."""
    seen = []
    for k in range(len(cameras)):
        screen, nearness = project(mesh.vertices, cameras[k : k + 1], size)
        corners, near = screen[mesh.faces].astype(np.float32), nearness[mesh.faces].astype(np.float32)
        seen.append(rasterise(corners, near, size, size, 0.0)[0])
    return np.stack(seen)


class Silhouettes:
    """What a scene shows: ``solid`` (B, S, S) from the ``cameras`` that judge; and ``opacity`` (B + M, S, S) from all ``around``,
    of which these are the first."""

    def __init__(self, opacity: Tensor, around: Cameras, judged: int | None = None):
        self.opacity, self.around, self.size = opacity, around, opacity.shape[-1]
        self.cameras = around[: judged or len(around)]
        self.solid = (opacity[: len(self.cameras)] > SOLID).numpy()

    @classmethod
    def of(cls, scene: Scene, cameras: Cameras | None = None, size: int = SIZE) -> Silhouettes:
        """The silhouettes of a scene: from the eight usual sides and some between, or from cameras that are given."""
        if cameras is not None:
            return cls(opacities(scene, cameras, size), cameras)
        around = _together([looks_around(), looks_around(BETWEEN, HIGH_AND_LOW)])
        return cls(opacities(scene, around, size), around, len(AZIMUTHS))

    @classmethod
    def to_check(cls, scene: Scene) -> Silhouettes:
        """The silhouettes of a scene from eight sides in which no surface is fitted."""
        return cls.of(scene, looks_around(BETWEEN, (CHECKED,)))

    @property
    def enough(self) -> bool:
        """Whether there is something to fit a surface to, and to compare it with."""
        return bool(self.solid.mean() >= LEAST)

    def agreement(self, mesh: Mesh) -> Agreement:
        """How the mesh agrees with the scene. A scene that shows nothing agrees with no mesh."""
        seen = faces_seen(mesh, self.cameras, self.size) >= 0
        geometry = mesh.geometry()
        pieces, _ = face_components(Mesh(np.asarray(geometry.vertices), np.asarray(geometry.faces)))
        return self.compare(seen, pieces)

    def compare(self, seen: Bools, pieces: int = 1) -> Agreement:
        """The agreement with silhouettes (B, S, S)."""
        total = max(int(self.solid.sum()), 1)
        either = max(int((seen | self.solid).sum()), 1)
        both = int((seen & self.solid).sum())
        missing, extra = int((self.solid & ~seen).sum()), int((seen & ~self.solid).sum())
        return Agreement(both / either, missing / total, extra / total, pieces)

    def visible(self, mesh: Mesh) -> tuple[Bools, NDArray[np.int64]]:
        """Which components of a mesh show, where the scene is solid, in at least ``SEEN`` pixels of two views: (C,); and each
        face's component (F,)."""
        count, label = face_components(mesh)
        shown = np.zeros((len(self.cameras), count), np.int64)
        for k, face in enumerate(faces_seen(mesh, self.cameras, self.size)):
            shown[k] = np.bincount(label[face[(face >= 0) & self.solid[k]]], minlength=count)
        second = np.sort(shown, 0)[-2] if len(shown) > 1 else shown[0]
        return second >= SEEN, label
