"""Pictures of a scene for people: stills, the preview sheet, the turntable."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .errors import UserError, nearest
from .files import replacing
from .scene.base import Rays, Scene
from .view.backgrounds import composite
from .view.cameras import Cameras, camera_rays, orbit_cameras, to_pictures
from .view.lights import camera_lights

KINDS = ("color", "albedo", "normal", "depth", "textureless")
Picture = NDArray[np.uint8]
CHUNK = 1 << 16
"""Rays rendered at once: bounds the memory, whatever the size of the picture."""


def check_kind(kind: str) -> str:
    """The kind, if it is one of ``KINDS``; UserError otherwise."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of picture {kind!r}{nearest(kind, KINDS)}")
    return kind


@torch.no_grad()
def render(
    scene: Scene, cameras: Cameras, size: int, kind: str = "color", ambient: float = 0.5, background: float = 1.0
) -> Tensor:
    """Pictures (B, 3, size, size) in [0, 1] of a scene, one for each camera, on the CPU.

    color: lit from 30 degrees above the camera; albedo: unlit; textureless: the lit shape in white; normal: world
    normals n as (n + 1) / 2; depth: near is white, the camera's distance plus 1 and whatever is behind it black.
    """
    check_kind(kind)
    return torch.stack(
        [_render_one(scene, _row(cameras, i), size, kind, ambient, background) for i in range(len(cameras))]
    )


def _row(cameras: Cameras, index: int) -> Cameras:
    pick = slice(index, index + 1)
    return Cameras(cameras.azimuth[pick], cameras.elevation[pick], cameras.radius[pick], cameras.fov[pick])


def _render_one(scene: Scene, camera: Cameras, size: int, kind: str, ambient: float, background: float) -> Tensor:
    shading = {"color": "lambertian", "textureless": "textureless"}.get(kind, "albedo")
    above = torch.full_like(camera.azimuth, math.radians(30))
    light = camera_lights(camera, above, torch.zeros_like(above))
    rays = camera_rays(camera, size)
    device = next(iter(scene.parameters())).device if isinstance(scene, torch.nn.Module) else torch.device("cpu")
    flat = []
    for start in range(0, len(rays.origins), CHUNK):
        pick = slice(start, start + CHUNK)
        part = Rays(rays.origins[pick].to(device), rays.directions[pick].to(device), rays.pixel_radius)
        seen = scene.render(part, shading, light.expand_as(part.origins).to(device), ambient)  # type: ignore[arg-type]
        opacity = seen.opacity
        behind = torch.full((1, 3), background, device=device)
        if kind == "normal":
            drawn = composite((seen.normal + opacity[:, None]) / 2, opacity, behind)
        elif kind == "depth":
            near = float(camera.radius) - 1
            closeness = opacity * (1 + near / 2) - seen.depth / 2  # opacity-weighted 1 - (s - near) / 2
            drawn = closeness[:, None].expand(-1, 3)
        else:
            drawn = composite(seen.colour, opacity, behind)
        flat.append(drawn.clamp(0, 1).cpu())
    return to_pictures(torch.cat(flat), size)[0]


def as_picture(image: Tensor) -> Picture:
    """(3, H, W) in [0, 1] as (H, W, 3) uint8."""
    rounded = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    return np.asarray(rounded, dtype=np.uint8)


def sheet(rows: Sequence[Tensor]) -> Tensor:
    """Rows of pictures, each (B, 3, H, W), as one picture (3, rows * H, B * W)."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def png_bytes(image: Tensor) -> bytes:
    """(3, H, W) in [0, 1] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(as_picture(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def preview(scene: Scene, azimuths: int = 8, size: int = 192) -> Tensor:
    """The scene from all sides, starting with its front: a row each of colour, normals and textureless."""
    cameras = orbit_cameras([360 * k / azimuths for k in range(azimuths)])
    return sheet([render(scene, cameras, size, kind) for kind in ("color", "normal", "textureless")])


def write_turntable(scene: Scene, stem: Path, frames: int, size: int, fps: int = 30, kind: str = "color") -> list[Path]:
    """One turn as stem.mp4 (H.264) and stem.gif (every other frame, half the size); the files written."""
    import imageio

    cameras = orbit_cameras([360 * k / frames for k in range(frames)])
    movie, loop = stem.with_suffix(".mp4"), stem.with_suffix(".gif")
    small: list[Image.Image] = []
    try:
        with replacing(movie) as temporary:
            # Players want 4:2:0 colour, hence even sides: an odd size is scaled up by one pixel.
            with imageio.get_writer(temporary, fps=fps, codec="libx264", quality=8, macro_block_size=2) as writer:
                for k in range(frames):
                    picture = as_picture(render(scene, _row(cameras, k), size, kind)[0])
                    writer.append_data(picture)  # type: ignore[attr-defined]
                    if k % 2 == 0:
                        small.append(Image.fromarray(picture).resize((max(size // 2, 16),) * 2, Image.Resampling.BOX))
    except RuntimeError as error:  # imageio-ffmpeg found no executable
        raise UserError(f"cannot write {movie}: {str(error).splitlines()[0]}; see 'dreamfusion doctor'") from None
    with replacing(loop) as temporary:
        small[0].save(temporary, save_all=True, append_images=small[1:], duration=2000 // fps, loop=0)
    return [movie, loop]
