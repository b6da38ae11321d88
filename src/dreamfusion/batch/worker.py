"""A process that makes one asset after another: ``python -m dreamfusion.batch.worker``. It loads torch and the prior once.

A line of JSON on standard input is a job (``Job.ask``), or {"look": [azimuth, elevation]} in degrees, from where the pictures of
the job in progress look from now on ({"look": null}: from changing sides again), or {"watch": seconds}, for which somebody wants to
see what the prior sees. Lines of JSON on standard output say how far it is:

- {"step", "steps", "seconds", "metrics"}, and a "picture" (JPEG as base64) if the job has "live", the side of one; while it is
  watched also "prior": the noisy picture and the answer of ``live_pictures.prior_picture``, and their "prior_t";
- {"doing", "share"} during the export, and {"warning"};
- the answer, {"error": null or one line, "kind": "user", "bug", or "away" (a served prior does not answer)}.

SIGTERM, or the end of standard input, writes a checkpoint and ends the process: nobody works for a batch that was killed.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cost.sensors import forget_peak
from ..errors import Unavailable, UserError
from ..files import locked
from ..generation import Loader, Stopped, generate
from ..interrupts import StopRequest, stopped_by_signals
from ..reports import reporting
from ..run import CHECKPOINT, META
from ..scene.scene import Scene
from ..settings.presets import resolve
from ..trainer import Progress
from .live_pictures import (
    LIVE_SHARE,
    PRIOR_SHARE,
    TURNED_SHARE,
    TURNED_SIZE,
    Gaze,
    last_preview,
    picture_of,
    prior_picture,
)

Send = Callable[[dict[str, Any]], None]
EVERY = 0.5
"""Seconds between two lines about the same run."""
PATIENCE = 60.0
"""Seconds to wait for a folder that another process holds: the worker of a batch that was killed needs some to end."""


class Telling:
    """Sends a run's progress now and then."""

    def __init__(self, send: Send, every: float = EVERY, live: int = 0, gaze: Gaze | None = None):
        """``live``: side of the pictures that are sent as well, 0 for none."""
        self.send, self.every, self.live, self.sent = send, every, live, float("-inf")
        self.gaze = gaze or Gaze()
        self.drawing = self.decoding = 0.0
        self.scene: Scene | None = None
        self.ended = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for a line; then the next one is due later."""
        now = time.monotonic()
        if now - self.sent < (Gaze.EVERY if self.gaze.turning else self.every):
            return False
        self.sent = now
        return True

    def step(self, progress: Progress) -> None:
        """A step is done."""
        begin, self.scene = time.monotonic(), progress.scene if self.live else None
        if self.due() or progress.step == progress.steps:  # reading the figures may wait for a GPU
            metrics = {k: v for k, v in progress.metrics.items() if isinstance(v, float | int)}
            metrics = {k: v for k, v in metrics.items() if v == v and abs(v) != float("inf")}
            said = {"step": progress.step, "steps": progress.steps, "seconds": progress.seconds, "metrics": metrics}
            self.send(said | self.pictures(progress))
            if self.live and progress.scene is not None and self.gaze.turning:
                self.follow(progress.scene, said, begin + (begin - self.ended) * TURNED_SHARE / (1 - TURNED_SHARE))
        self.ended = time.monotonic()

    def pictures(self, progress: Progress) -> dict[str, Any]:
        """Those that the time allows: "picture", and "prior" with its "prior_t"."""
        found: dict[str, Any] = {}
        share = TURNED_SHARE if self.gaze.turning else LIVE_SHARE
        if self.live and progress.scene is not None and self.drawing <= share * progress.seconds:
            found |= {"picture": self.picture(progress.scene)}
        seen = progress.glimpse if self.live and self.gaze.watched else None
        if seen is not None and self.decoding <= PRIOR_SHARE * progress.seconds:
            begin = time.monotonic()
            found |= {"prior": prior_picture(seen, self.live), "prior_t": float(seen.t[0])}
            self.decoding += time.monotonic() - begin
        return found

    def picture(self, scene: Scene) -> str:
        """The next one of the scene."""
        begin = time.monotonic()
        side = round(self.live * TURNED_SIZE) if self.gaze.turning else self.live
        drawn = picture_of(scene, *self.gaze.next(), side)
        self.drawing += time.monotonic() - begin
        return drawn

    def follow(self, scene: Scene, said: dict[str, Any], until: float) -> None:
        """More pictures of the same step while somebody turns the object: a step takes too long to wait for the next one."""
        while (left := until - time.monotonic()) > 0 and self.gaze.moved(min(left, Gaze.EVERY)):
            self.send(said | {"picture": self.picture(scene)})

    def part(self, what: str, done: int, parts: int) -> None:
        """A part of the export is done."""
        if self.due():
            self.send({"doing": what, "share": done / parts})


def make(
    ask: dict[str, Any], load: Loader, send: Send, ended: threading.Event | None = None, gaze: Gaze | None = None
) -> dict[str, Any]:
    """Make an asset or go on with it: the answer. A traceback is left beside the run's folder. SystemExit when stopped."""
    folder = Path(ask["folder"])
    forget_peak()
    try:
        if folder.is_dir():
            wait_for(folder)
        if (
            ask["resume"] or (folder / CHECKPOINT / META).is_file()
        ):  # its last worker has written one since it was asked
            where: dict[str, Any] = {"resume": folder} | ask.get("more", {})
        else:
            where = {"out": folder, "config": resolve(ask["preset"], ask["settings"], ask["prompt"])}
        telling = Telling(send, ask.get("every", EVERY), ask.get("live", 0), gaze)
        with stopped_by_signals() as stop, passed_on(ended, stop), reporting(telling.part):
            try:
                asset = generate(prior=load, callbacks=[telling.step], stop=stop.event, **where)
            except Stopped:
                if telling.scene is not None:  # somebody looks at this run's pictures
                    last_preview(folder / "preview.png", telling.scene)
                raise SystemExit(128 + stop.signal if stop.signal else 0) from None
        return {"error": None, "geometry": asset.geometry_report()}
    except UserError as error:
        return {"error": str(error), "kind": "away" if isinstance(error, Unavailable) else "user"}
    except Exception as error:
        folder.with_name(f"{folder.name}.log").write_text(traceback.format_exc(), encoding="utf-8")
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"error": first, "kind": "bug"}


def wait_for(folder: Path, patience: float = PATIENCE) -> None:
    """Wait until nobody else holds a run's folder. UserError if somebody does for too long."""
    until = time.monotonic() + patience
    while True:
        try:
            with locked(folder):
                return
        except UserError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


class passed_on:
    """While inside, the event ``ended`` asks ``stop`` to stop, as a signal does."""

    def __init__(self, ended: threading.Event | None, stop: StopRequest):
        self.ended, self.stop, self.left = ended, stop, threading.Event()

    def __enter__(self) -> None:
        if self.ended is not None:
            threading.Thread(target=self._watch, args=(self.ended,), daemon=True).start()

    def _watch(self, ended: threading.Event) -> None:
        while not self.left.is_set():
            if ended.wait(0.2):
                self.stop.event.set()
                return

    def __exit__(self, *_: object) -> None:
        self.left.set()


def own_output() -> Send:
    """A function that writes lines of JSON to standard output, which from now on is standard error for all others."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message, allow_nan=False) + "\n")
        out.flush()

    return send


def main() -> None:
    """Do the jobs of standard input."""
    send, load, ended, gaze = own_output(), Loader(), threading.Event(), Gaze()
    asked: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        with open(0, "rb", buffering=0, closefd=False) as lines:  # sys.stdin has a lock that would be held at the end
            for line in lines:
                message = json.loads(line)
                if "look" in message:
                    gaze.turn(message["look"])
                elif "watch" in message:
                    gaze.watch(message["watch"])
                else:
                    asked.put(message)
        ended.set()
        asked.put(None)

    threading.Thread(target=read, daemon=True).start()
    warnings.showwarning = lambda message, *_, **__: send({"warning": " ".join(str(message).split())})
    while (ask := asked.get()) is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            answer = make(ask, load, send, ended, gaze)
        send(answer)


if __name__ == "__main__":
    main()
