"""The pictures that a worker sends of a run in progress: the scene from a side, and what the prior sees."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from ..distillation.glimpse import Glimpse
from ..scene.scene import Scene
from ..torch_state import own_torch

LIVE_SHARE, TURNED_SHARE = 0.1, 0.5
"""Largest share of a run's time that the pictures of the scene may take; the second one while somebody turns the object."""
TURNED_SIZE = 0.8
"""Side of the pictures while somebody turns the object, as a part of their usual side: they take two thirds of the time."""
LAST_SECONDS = 6.0
"""Most seconds that the preview of the last step may take when a run is stopped: somebody waits."""
LEAST_SIZE = 48
"""Least side of its pictures, as of the first preview of a run."""
PRIOR_SHARE = 0.03
"""Largest share of a run's time that the pictures of what the prior sees may take; a latent prior decodes them."""
TURN_DEG = 20
"""Each of them looks from so much further around."""


class Gaze:
    """Where pictures look from: around the object, or from where somebody wants; and whether anybody watches the prior."""

    PATIENCE, EVERY = 2.0, 0.05
    """Seconds for which somebody who turned the object counts as still turning it, and seconds between two pictures then."""

    def __init__(self) -> None:
        self.wanted: tuple[float, float] | None = None
        self.last, self.azimuth = float("-inf"), -float(TURN_DEG)
        self.until = float("-inf")
        self.news = threading.Event()

    def turn(self, wanted: tuple[float, float] | None) -> None:
        """Look from this azimuth and elevation in degrees; None: around again."""
        self.wanted, self.last = wanted, time.monotonic()
        self.news.set()

    def moved(self, patience: float) -> bool:
        """Whether somebody has turned the object since the last picture, or does so within so many seconds."""
        return self.wanted is not None and self.news.wait(patience)

    def watch(self, seconds: float) -> None:
        """Somebody watches what the prior sees, for so long."""
        self.until = time.monotonic() + seconds

    @property
    def turning(self) -> bool:
        """Whether somebody turns the object."""
        return time.monotonic() - self.last < self.PATIENCE

    @property
    def watched(self) -> bool:
        """Whether somebody watches what the prior sees."""
        return time.monotonic() < self.until

    def next(self) -> tuple[float, float]:
        """Azimuth and elevation of the next picture."""
        self.news.clear()
        if self.wanted is not None:
            return self.wanted
        self.azimuth = (self.azimuth + TURN_DEG) % 360
        return self.azimuth, 15.0


@own_torch()
def picture_of(scene: Scene, azimuth: float, elevation: float, size: int) -> str:
    """A JPEG of a scene from a side, in degrees, as base64."""
    from ..export.pictures import render_view
    from ..export.turntable import to_uint8
    from ..view.cameras import orbit_cameras
    from ..view.view import orbit_view

    return jpeg(to_uint8(render_view(scene, orbit_view(orbit_cameras([azimuth], elevation, 2.5), size)))[0])


def last_preview(path: Path, scene: Scene) -> bool:
    """Write a preview of a scene with four sides; whether it was written. Its first picture is drawn twice: the first time tells how
    small they have to be to take at most ``LAST_SECONDS``. Too small ones are not drawn. UserError if the disk is full."""
    from ..export.turntable import SHEET_KINDS, SHEET_SIZE, write_preview

    begin, views = time.monotonic(), 4
    picture_of(scene, 0.0, 15.0, SHEET_SIZE)
    seconds = (time.monotonic() - begin) * views * len(SHEET_KINDS)
    size = min(SHEET_SIZE, round(SHEET_SIZE * (LAST_SECONDS / seconds) ** 0.5))
    if size < LEAST_SIZE:
        return False
    write_preview(path, scene, views, size)
    return True


@own_torch()
def prior_picture(seen: Glimpse, most: int) -> str:
    """A JPEG as base64: the noisy picture that the prior was shown, and beside it the clean one that its answer implies. Each has the
    prior's own size, or a whole part of it that has at most ``most`` pixels a side."""
    from ..export.turntable import to_uint8

    pair = torch.stack(seen.pictures())
    every = -(-max(pair.shape[2:]) // most)
    return jpeg(np.concatenate(list(to_uint8(avg_pool2d(pair, every))), 1))


def jpeg(pixels: np.ndarray) -> str:
    """Pixels (H, W, 3) of 8 bits as a JPEG in base64."""
    import base64
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
