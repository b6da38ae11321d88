"""How far the normals of an asset are off those of the thing that the bundled prior means."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.mesh import Mesh
from dreamfusion.geometry.raster import interpolate, rasterise
from dreamfusion.priors.bundled_prior import BundledPrior, subjects_of
from dreamfusion.priors.layout import COVER, LIT, Light
from dreamfusion.scene.fitted import shown_surface
from dreamfusion.scene.scene import Scene
from dreamfusion.scene.silhouettes import project
from dreamfusion.view.cameras import Cameras, orbit_cameras

SIZE = 64
CAMERAS = orbit_cameras([45.0 * k for k in range(8)])
SURE = 0.9
"""Coverage from which a pixel of the prior's picture has a normal."""


@torch.no_grad()
def meant_normals(prior: BundledPrior, prompt: str, cameras: Cameras = CAMERAS) -> tuple[Tensor, Tensor]:
    """Unit normals (B, SIZE, SIZE, 3) in the world's axes, and coverage (B, SIZE, SIZE), of what the prior means by a prompt.

    The layout says n . l for a light, and nothing of what is turned away from it. Six lights along the axes give n.
    """
    subject = subjects_of(prior.embed([prompt]))[0]
    thing, camera = prior.layout.thing(subject.shape), cameras.condition()
    lamps = torch.cat([torch.eye(3), -torch.eye(3)])
    met = torch.stack(
        [prior.layout.meet(thing, camera, SIZE, subject.stretch, Light(lamp.expand(len(camera), 3))) for lamp in lamps]
    )
    ahead, behind = met[:, :, LIT].split(3)
    return torch.nn.functional.normalize((ahead - behind).movedim(0, -1), dim=-1), met[0, :, COVER]


def mesh_normals(mesh: Mesh, cameras: Cameras = CAMERAS) -> NDArray[np.float64]:
    """The same of a mesh in world units, (B, SIZE, SIZE, 3); zero where nothing is seen."""
    assert mesh.normals is not None
    seen = []
    for k in range(len(cameras)):
        screen, nearness = project(mesh.vertices, cameras[k : k + 1], SIZE)
        corners, near = screen[mesh.faces].astype(np.float32), nearness[mesh.faces].astype(np.float32)
        face, weights = rasterise(corners, near, SIZE, SIZE, 0.0)
        normal = np.zeros((SIZE, SIZE, 3))
        normal[face >= 0] = interpolate(mesh.normals, mesh.faces, face[face >= 0], weights[face >= 0])
        seen.append(normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9))
    return np.stack(seen)


def degrees_off(scene: Scene, prior: BundledPrior, prompt: str) -> float | None:
    """Mean angle in degrees between the normals of a scene's surface, as it is exported, and what the prior means, over the pixels of
    eight pictures in which both are seen. None where there are none."""
    wanted, cover = meant_normals(prior, prompt)
    found = mesh_normals(shown_surface(scene, ExportSettings()).mesh)
    both = (cover.numpy() > SURE) & (np.abs(found).sum(-1) > 0)
    if not both.any():
        return None
    cosine = (wanted.double().numpy()[both] * found[both]).sum(-1)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())
