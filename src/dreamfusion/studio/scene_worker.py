"""A process that draws the scenes of recorded runs: ``python -m dreamfusion.studio.scene_worker``. It keeps the last one loaded.

A line of JSON on standard input asks for a picture: {"folder", "azimuth", "elevation", "size", "threads"}, with angles in degrees,
pixels a side, and CPU threads (0: as many as the run had). The answer is a line on standard output: {"error": null, "picture"}
(a JPEG as base64), or {"error": one line}. The end of standard input ends the process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ..batch.live_pictures import picture_of
from ..batch.worker import own_output
from ..errors import UserError
from ..recorded import load_scene
from ..run import CHECKPOINT, META, Run
from ..scene.scene import Scene
from ..settings.config import Config
from ..torch_state import threads


class Drawer:
    """Draws scenes of checkpoints. A run's scene is loaded anew when its checkpoint has changed."""

    def __init__(self) -> None:
        self.loaded: tuple[str, bytes, Scene, Config] | None = None

    def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The answer to a line."""
        try:
            scene, config = self.scene_of(Path(ask["folder"]))
            with threads(ask["threads"] or config.threads):
                drawn = picture_of(scene, ask["azimuth"], ask["elevation"], ask["size"])
            return {"error": None, "picture": drawn}
        except UserError as error:
            return {"error": str(error)}
        except Exception as error:  # whatever a scene does, the next picture may be of another one
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}

    def scene_of(self, folder: Path) -> tuple[Scene, Config]:
        """The scene of a run's checkpoint, and its settings. UserError if there is none, or if it cannot be read."""
        run = Run.open(folder)
        run.read_meta()
        key = str(folder), (folder / CHECKPOINT / META).read_bytes()
        if self.loaded is None or self.loaded[:2] != key:
            self.loaded = None  # its memory may be needed
            self.loaded = (*key, *load_scene(run))
        return self.loaded[2:]


def main() -> None:
    """Answer the lines of standard input."""
    send, drawer = own_output(), Drawer()
    if hasattr(os, "nice"):
        os.nice(10)  # a run in progress goes first
    for line in sys.stdin:
        send(drawer.answer(json.loads(line)))


if __name__ == "__main__":
    main()
