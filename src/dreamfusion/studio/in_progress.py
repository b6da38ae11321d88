"""A run in progress: its process, and what that has said."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..batch.crew import WORKER, Worker

WATCHED_SECONDS = 6.0
"""For so long after the last look at a run in progress its process shows what the prior sees."""

Why = Literal["", "stop", "pause", "change", "close"]


class InProgress:
    """A run whose process works. Its owner holds a lock while it calls any of these but ``make``."""

    def __init__(self, id: str, command: Sequence[str], log: Path):
        self.id, self.own = id, Worker(command or WORKER, log)
        self.said: dict[str, Any] = {"doing": "starting"}
        self.pictures: dict[str, tuple[int, bytes]] = {"picture": (0, b""), "prior_picture": (0, b"")}
        """The newest JPEG of the scene and of what the prior sees, with its number; 0: there is none yet."""
        self.watched = float("-inf")
        self.ending: Why = ""
        """Why its process was asked to stop, "" while it was not."""

    def end(self, why: Why) -> None:
        """Ask the process for a checkpoint, and to end. What was asked first counts, but a stop outdoes a pause or a change."""
        if not self.ending or (self.ending in ("pause", "change") and why != "change"):
            self.ending = why
        self.own.stop()

    def now(self) -> dict[str, Any]:
        """What there is to say about it; ``state`` "stopping" if it will not go on by itself."""
        numbers = {name: number for name, (number, _) in self.pictures.items()}
        state = "stopping" if self.ending in ("stop", "pause") else "running"
        said = self.said | ({"doing": "saving a checkpoint"} if self.ending == "change" else {})
        return said | numbers | {"state": state}

    def look(self, wanted: tuple[float, float] | None) -> None:
        """Show it from this azimuth and elevation in degrees; None: from changing sides."""
        if "step" in self.said or "doing" in self.said:
            self.own.look(wanted)

    def watch(self) -> None:
        """Somebody watches, and wants to see what the prior sees."""
        if time.monotonic() - self.watched > WATCHED_SECONDS / 3:
            self.watched = time.monotonic()
            self.own.watch(WATCHED_SECONDS)

    def heard(self, message: dict[str, Any]) -> None:
        """Its process says how far it is; see ``batch.worker``."""
        if "step" in message:
            self._keep("picture", message.pop("picture", None))
            if not self._keep("prior_picture", message.pop("prior", None)) and "prior_t" in self.said:
                message["prior_t"] = self.said["prior_t"]
            first, spent = self.said.setdefault("first", [message["step"], message["seconds"]])
            done, seconds = message["step"] - first, message["seconds"] - spent
            left = (message["steps"] - message["step"]) * seconds / done if done > 0 else None
            self.said = {"first": self.said["first"], **message, "left": left}
        elif "doing" in message:
            self.said = {**self.said, "doing": message["doing"], "share": message["share"], "left": None}

    def _keep(self, name: str, picture: str | None) -> bool:
        if picture:
            self.pictures[name] = (self.pictures[name][0] + 1, b64decode(picture))
        return bool(picture)
