"""Pictures of the scenes of recorded runs, from any side: drawn one at a time, by a process that ends when nobody looks."""

from __future__ import annotations

import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..batch.crew import Worker
from ..errors import UserError
from .desk import Busy

WORKER = (sys.executable, "-m", "dreamfusion.studio.scene_worker")
SECONDS = 120.0
"""A picture may take so long. The first one loads torch, and some scenes compile their kernels."""
IDLE = 60.0
"""Seconds after the last picture at which the process ends: it holds some hundred megabytes."""


class Easel:
    """Draws recorded scenes. All methods may be called by any thread; ``draw`` waits for its picture."""

    def __init__(
        self,
        log: Path,
        threads: int = 0,
        command: Sequence[str] = WORKER,
        seconds: float = SECONDS,
        idle: float = IDLE,
    ):
        """``log``: the file that gets what the process complains about; ``threads``: of the CPU, 0 for as many as the run had."""
        self.log, self.threads, self.command, self.seconds, self.idle = log, threads, command, seconds, idle
        self.one = threading.Lock()
        """Held while a picture is drawn, and by whoever ends the process."""
        self.own: Worker | None = None
        self.rest: threading.Timer | None = None
        self.closed = False

    def draw(self, folder: Path, azimuth: float, elevation: float, size: int) -> bytes:
        """A JPEG of the scene in a run's checkpoint, ``size`` pixels a side, from these angles in degrees.

        Busy while another one is drawn, UserError for a scene that cannot be drawn, or not in time.
        """
        if self.closed or not self.one.acquire(blocking=False):
            raise Busy("another picture is being drawn; ask again")
        try:
            self._rest(None)
            ask = {"folder": str(folder.resolve()), "azimuth": azimuth, "elevation": elevation}
            answer = self._answer(ask | {"size": size, "threads": self.threads})
        finally:
            self._rest(self.idle)
            self.one.release()
        if answer["error"] is not None:
            raise UserError(answer["error"].replace(str(folder.resolve()), folder.name))
        return b64decode(answer["picture"])

    def close(self) -> None:
        """End the process at once, whatever it draws. Nothing is drawn from now on."""
        self.closed = True
        if (own := self.own) is not None:
            own.kill()
        self._end()

    def _answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        if self.own is None or not self.own.alive:
            self.own = Worker(self.command, self.log)
            if self.closed:  # by another thread, which has not seen this process
                self.own.kill()
        late = _timer(self.seconds, self.own.kill)
        begin = time.monotonic()
        answer = self.own.make(ask, lambda _: None)
        late.cancel()
        if answer.get("kind") == "end":
            slow = time.monotonic() - begin >= self.seconds
            why = f"it took longer than {self.seconds:g} seconds" if slow else answer["error"]
            answer["error"] = f"the scene could not be drawn: {why}"
        return answer

    def _rest(self, seconds: float | None) -> None:
        """End the process after so many seconds without a picture; None: not any more."""
        if self.rest is not None:
            self.rest.cancel()
            self.rest = None
        if seconds is not None and not self.closed:
            self.rest = _timer(seconds, self._end)

    def _end(self) -> None:
        """End the process. While it draws, only ``close`` does, and waits until the drawing thread has seen that."""
        if self.one.acquire(blocking=self.closed):
            self._rest(None)
            own, self.own = self.own, None
            if own is not None:
                own.close()
            self.one.release()


def _timer(seconds: float, act: Callable[[], None]) -> threading.Timer:
    """A timer that runs, and that keeps no process from ending."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer
