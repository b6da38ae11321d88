"""A turn around the object as a film, and a sheet of stills."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..files import write_atomic
from ..geometry.mesh import Mesh
from ..scene.scene import Scene
from ..torch_state import own_torch
from ..view.cameras import Cameras, orbit_cameras
from ..view.view import orbit_view
from .drawing import Drawable
from .film import write_film
from .formats import png_bytes
from .pictures import Kind, render_view
from .texture import Picture

SHEET_SIZE = 192
SHEET_KINDS: tuple[Kind, ...] = ("lambertian", "normal", "textureless")


def orbit_azimuths(frames: int) -> list[float]:
    """Azimuths in degrees of a full turn that begins at the front and closes without a doubled frame."""
    return [360 * i / frames for i in range(frames)]


def to_uint8(pictures: Tensor) -> Picture:
    """Pictures (B, 3, H, W) in [0, 1] as (B, H, W, 3) uint8."""
    return np.asarray((pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def field_frames(scene: Scene, cameras: Cameras, size: int) -> Iterator[Picture]:
    """Frames (size, size, 3), lit, one for each camera, rendered from the field."""
    for i in range(len(cameras)):
        yield to_uint8(render_view(scene, orbit_view(cameras[i : i + 1], size)))[0]


def mesh_frames(mesh: Mesh, texture: Picture, cameras: Cameras, size: int, threads: int = 2) -> Iterator[Picture]:
    """The same frames, drawn from the exported mesh. Few are drawn ahead, to bound the memory."""
    drawable = Drawable.of(mesh, texture)
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Picture]] = deque()
        try:
            for i in range(len(cameras)):
                ahead.append(pool.submit(drawable.draw, orbit_view(cameras[i : i + 1], size)))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


@own_torch()
def turntable(
    folder: str | Path,
    scene: Scene | None,
    mesh: Mesh | None = None,
    texture: Picture | None = None,
    *,
    frames: int = 120,
    size: int = 512,
    source: Literal["auto", "field", "mesh"] = "auto",
    faithful: bool = False,
    seconds: float = 30.0,
    elevation_deg: float = 15.0,
    radius: float = 2.5,
    fov_deg: float = 47.0,
    fps: int = 30,
    name: str = "turntable",
) -> Literal["field", "mesh", "none"]:
    """Write NAME.mp4 and NAME.gif into ``folder`` (``film.write_film``); tells what the frames show.

    ``auto`` draws the textured mesh (in world units) if it is ``faithful``: that is several times faster, and has sharp edges. Else
    it renders the field afresh at ``size``, whatever the training resolution was, unless that would take longer than ``seconds``
    (judged by a few frames; fields without fused kernels are that slow) and there is a mesh. ``frames`` = 0 writes nothing. An odd
    ``size`` is made even.
    """
    if frames == 0:
        return "none"
    size += size % 2  # yuv420p halves the colour planes
    cameras = orbit_cameras(orbit_azimuths(frames), elevation_deg, radius, fov_deg)
    drawn: Iterator[Picture] | None = None
    chosen: Literal["field", "mesh"] = "field"
    if mesh is not None and texture is not None and source != "field":
        drawn, chosen = mesh_frames(mesh, texture, cameras, size), "mesh"
    if scene is not None and source != "mesh" and not (faithful and source == "auto" and drawn is not None):
        if drawn is None or _field_seconds(scene, cameras, size) <= seconds:
            drawn, chosen = field_frames(scene, cameras, size), "field"
    if drawn is None:
        raise ValueError("turntable needs a scene, or a mesh with its texture")
    write_film(Path(folder), drawn, frames, fps, name)
    return chosen


def _field_seconds(scene: Scene, cameras: Cameras, size: int) -> float:
    """Estimate of the time all frames of the field would take: from quarter-size frames of the front and a side, after
    one that wakes compilers and caches."""
    small = max(size // 4, 1)
    spent = []
    for i in (0, 0, len(cameras) // 4):
        start = time.perf_counter()
        render_view(scene, orbit_view(cameras[i : i + 1], small))
        spent.append(time.perf_counter() - start)
    return sum(spent[1:]) / 2 * (size / small) ** 2 * len(cameras)


@own_torch()
def preview_sheet(
    scene: Scene,
    size: int = SHEET_SIZE,
    views: int = 8,
    kinds: tuple[Kind, ...] = SHEET_KINDS,
    elevation_deg: float = 15.0,
    radius: float = 2.5,
    fov_deg: float = 47.0,
) -> Picture:
    """One picture of the scene from ``views`` azimuths (columns) in several kinds (rows), labelled."""
    azimuths = orbit_azimuths(views)
    cameras = orbit_cameras(azimuths, elevation_deg, radius, fov_deg)
    view = orbit_view(cameras, size)
    rows = [to_uint8(render_view(scene, view, kind)) for kind in kinds]
    top, left = 20, 92
    sheet = Image.new("RGB", (left + views * size, top + len(kinds) * size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, azimuth in enumerate(azimuths):
        name = {0.0: " front", 90.0: " +X", 180.0: " back", 270.0: " -X"}.get(azimuth, "")
        centre = left + column * size + size // 2
        draw.text((centre, top // 2), f"{azimuth:g}\N{DEGREE SIGN}{name}", "black", font, anchor="mm")
    for row, kind in enumerate(kinds):
        label = "colour" if kind == "lambertian" else kind
        draw.text((left // 2, top + row * size + size // 2), label, "black", font, anchor="mm")
    for (row, pictures), column in itertools.product(enumerate(rows), range(views)):
        sheet.paste(Image.fromarray(pictures[column]), (left + column * size, top + row * size))
    return np.asarray(sheet, np.uint8)


def write_preview(path: Path, scene: Scene, views: int = 8, size: int = SHEET_SIZE) -> None:
    """Write ``preview_sheet`` as a PNG file, which appears whole or not at all."""
    write_atomic(path, png_bytes(preview_sheet(scene, size, views)))
