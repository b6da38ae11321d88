"""Picture files of a scene for people: stills, the preview sheet, the turntable."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .errors import UserError, nearest
from .export.views import GRAY, Kind, render_views
from .files import replacing
from .scene.base import Scene
from .view.cameras import Cameras, orbit_cameras

KINDS: dict[str, Kind] = {
    "color": "lambertian",
    "albedo": "albedo",
    "normal": "normal",
    "depth": "depth",
    "textureless": "textureless",
}
"""What a picture may show, and the renderer's word for it."""
WHITE = 1.0


def render(scene: Scene, cameras: Cameras, size: int, kind: str = "color", background: float = WHITE) -> Tensor:
    """Pictures (B, 3, size, size) in [0, 1] on the CPU; ``kind`` is one of ``KINDS``, UserError otherwise."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of picture {kind!r}{nearest(kind, KINDS)}")
    device = next(scene.parameters()).device if isinstance(scene, torch.nn.Module) else torch.device("cpu")
    return render_views(scene, cameras.to(device), size, KINDS[kind], background=background).cpu()


def as_array(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1] as (H, W, 3) uint8."""
    return np.asarray((image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy())


def sheet(rows: Sequence[Tensor]) -> Tensor:
    """Rows of pictures, each (B, 3, H, W), as one picture (3, rows * H, B * W)."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def png_bytes(image: Tensor) -> bytes:
    """(3, H, W) in [0, 1] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(as_array(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def preview(scene: Scene, azimuths: int = 8, size: int = 192) -> Tensor:
    """The scene from all sides, starting with its front: a row each of colour, normals and textureless."""
    cameras = orbit_cameras([360 * k / azimuths for k in range(azimuths)])
    return sheet([render(scene, cameras, size, kind, GRAY) for kind in ("color", "normal", "textureless")])


def write_turntable(scene: Scene, stem: Path, frames: int, size: int, kind: str = "color") -> list[Path]:
    """One turn at 30 frames a second as stem.mp4 (H.264) and stem.gif (every other frame, half the size)."""
    import imageio

    movie, loop = stem.with_name(stem.name + ".mp4"), stem.with_name(stem.name + ".gif")
    small: list[Image.Image] = []
    try:
        with replacing(movie) as temporary:
            # Players want 4:2:0 colour, hence even sides: an odd size is scaled up by one pixel.
            with imageio.get_writer(temporary, fps=30, codec="libx264", quality=8, macro_block_size=2) as writer:
                for k in range(frames):
                    picture = as_array(render(scene, orbit_cameras([360 * k / frames]), size, kind)[0])
                    writer.append_data(picture)  # type: ignore[attr-defined]
                    if k % 2 == 0:
                        small.append(Image.fromarray(picture).resize((max(size // 2, 16),) * 2, Image.Resampling.BOX))
    except RuntimeError as error:  # imageio-ffmpeg found no executable
        raise UserError(f"cannot write {movie}: {str(error).splitlines()[0]}; see 'dreamfusion doctor'") from None
    with replacing(loop) as temporary:
        small[0].save(temporary, save_all=True, append_images=small[1:], duration=67, loop=0)
    return [movie, loop]
