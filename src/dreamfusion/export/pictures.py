"""Pictures of a scene, rendered from the field itself at any resolution."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..scene.rays import Rays
from ..scene.scene import Rendering, Scene
from ..view.view import Shading
from ..view.cameras import Cameras
from ..scene.rays import camera_rays, to_pictures
from ..view.lights import camera_lights

Kind = Shading | Literal["normal", "depth", "opacity"]
"""Colour in one of the scene's shadings; normals in camera axes, as (n + 1) / 2; depth, near is white; opacity, solid is
white (over black, whatever the background)."""

GRAY = 0.5


def render_views(
    scene: Scene,
    cameras: Cameras,
    resolution: int,
    kind: Kind = "lambertian",
    *,
    light_above_deg: float = 30.0,
    light_around_deg: float = 0.0,
    ambient: float = 0.5,
    background: float | Tensor = GRAY,
    samples: int | None = None,
    chunk: int = 1 << 13,
) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1], without gradients or jitter. The key light stands ``light_above_deg`` above
    and ``light_around_deg`` around the camera's own direction; background is a gray or a colour (3,). ``chunk`` bounds
    the rays that are held in memory at once.
    """
    pictures = []
    for b in range(len(cameras)):
        camera = Cameras(*(x[b : b + 1] for x in (cameras.azimuth, cameras.elevation, cameras.radius, cameras.fov)))
        rays = camera_rays(camera, resolution)
        angles = torch.tensor([light_above_deg, light_around_deg]).deg2rad().to(rays.origins)
        light = camera_lights(camera, angles[:1], angles[1:])
        shading: Shading = "textureless" if kind in ("normal", "depth", "opacity") else kind  # type: ignore[assignment]
        parts = []
        with torch.no_grad():
            for start in range(0, len(rays.origins), chunk):
                span = slice(start, start + chunk)
                some = Rays(rays.origins[span], rays.directions[span], rays.pixel_radius)
                seen = scene.render(some, shading, light.expand_as(some.origins), ambient, samples=samples)
                behind = torch.as_tensor(0 if kind == "opacity" else background).to(some.origins)
                parts.append(_colour(seen, kind, camera) + (1 - seen.opacity)[:, None] * behind)
        pictures.append(to_pictures(torch.cat(parts), resolution))
    return torch.cat(pictures).clamp(0, 1)


def _colour(seen: Rendering, kind: Kind, camera: Cameras) -> Tensor:
    """What a rendering shows in a kind of picture, (N, 3), premultiplied by the opacity."""
    opacity = seen.opacity[:, None]
    if kind == "opacity":
        return opacity.expand(-1, 3)
    if kind == "normal":
        axes = torch.cat(camera.axes())  # rows right, up, back
        return (torch.nn.functional.normalize(seen.normal, dim=-1) @ axes.T + 1) / 2 * opacity
    if kind == "depth":
        distance = seen.depth[:, None] / opacity.clamp_min(1e-6)
        nearness = ((camera.radius + 1 - distance) / 2).clamp(0, 1)  # 1 where the unit sphere begins, 0 where it ends
        return (nearness * opacity).expand(-1, 3)
    return seen.colour
