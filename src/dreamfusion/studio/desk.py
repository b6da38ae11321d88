"""The studio's queue: one run at a time, each in a process of its own. Nothing here knows the web.

The queue is kept in ``.studio/queue.json``. A run leaves it when it has ended, so that a server that is started again goes on
with the run that was in progress and with those that waited.
"""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..batch.crew import WORKER, Worker
from ..errors import UserError
from ..files import locked, make_folder, write_atomic
from ..paths import check_folder
from ..prompts import check_prompt, slug
from ..run import CHECKPOINT, CONFIG, META
from ..settings.presets import resolve
from .changing import asked_for, notes_about
from .listing import folder_of, runs_in, summary

HIDDEN, TRASH, QUEUE = ".studio", ".trash", "queue.json"
MOST_WAITING = 20
LIVE = {"every": 0.4, "live": 160}
WATCHED_SECONDS = 6.0
"""For so long after the last look at the run in progress its process shows what the prior sees."""

Entry = dict[str, Any]


class Busy(Exception):
    """What was asked cannot be done now; the message says why."""


class Desk:
    """The runs of a folder, and the queue of those that are to be made. All methods may be called by any thread."""

    def __init__(self, root: Path, threads: int = 0, worker: Sequence[str] = ()):
        """``root`` is made if it is missing. UserError if it cannot be written to."""
        self.root, self.threads, self.worker = root, threads, worker
        check_folder(root)
        make_folder(root / HIDDEN)
        self.changed = threading.Condition(threading.RLock())
        self.version = 0
        self.queue: list[Entry] = []
        self.failed: dict[str, str] = {}
        self.now: Entry | None = None
        self.said: dict[str, Any] = {}
        self.notes: dict[str, list[str]] = {}
        self.picture: tuple[int, bytes] = (0, b"")
        self.prior_picture: tuple[int, bytes] = (0, b"")
        self.watched = float("-inf")
        self.own: Worker | None = None
        self.closing = self.stopping = False
        self._read()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin with the queue."""
        self.thread.start()

    def close(self) -> None:
        """Stop the run in progress, which writes its checkpoint. It stays the first of the queue."""
        with self.changed:
            self.closing = True
            if self.own:
                self.own.stop()
            self.changed.notify_all()
        if self.thread.is_alive():
            self.thread.join()

    def submit(self, prompt: str, preset: str, settings: dict[str, Any], picture: Path | None = None) -> str:
        """Put a new run into the queue; its id. With ``picture`` the prompt may be empty. UserError for a mistake in it, Busy if the
        queue is full."""
        prompt = check_prompt(prompt) if picture is None or prompt.strip() else ""
        if picture is not None:
            settings = settings | {"prior.image": str(picture), "prior.asks": "image"}
        if self.threads:
            settings = {"threads": self.threads} | settings
        config = resolve(preset, settings, prompt)
        with self.changed:
            self._check_room()
            id = self._free_id(f"{slug(prompt, empty='picture' if picture else 'asset')}-{config.seed}")
            self._add({"id": id, "prompt": prompt, "preset": preset, "settings": settings, "resume": False})
            return id

    def resume(self, id: str, steps: int | None = None, settings: Mapping[str, Any] | None = None) -> None:
        """Put a run that was stopped, or that is done and gets more ``steps``, into the queue; ``settings`` hold from its checkpoint
        on. UserError, Busy."""
        with self.changed:
            folder = folder_of(self.root, id)
            if self._entry(id) or folder is None:
                raise Busy(
                    f"{id} cannot be resumed: " + ("it is in the queue" if self._entry(id) else "there is no such run")
                )
            self._check_room()
            found, more = summary(folder), asked_for(steps, settings)
            notes_about(folder, more, found["prompt"])  # says what is wrong
            start = {"prompt": found["prompt"], "preset": found["preset"], "settings": {}}
            if not found.get("step") and found["state"] != "broken":  # it has no checkpoint yet, and begins anew
                self._add({"id": id, "resume": False, "page": str(folder / CONFIG), **start, "settings": more})
            else:
                self._add({"id": id, "resume": True, "more": more, **start})

    def stop(self, id: str) -> None:
        """Take a run out of the queue; one in progress writes its checkpoint. Busy if it is not in it."""
        with self.changed:
            entry = self._entry(id)
            if entry is None:
                raise Busy(f"{id} is not in the queue")
            if entry is self.now:
                self.stopping = True
                if self.own:
                    self.own.stop()
            else:
                self.queue.remove(entry)
                self._write()
            self._tell()

    def look(self, id: str, wanted: tuple[float, float] | None) -> None:
        """Show the run in progress from this azimuth and elevation in degrees; None: from changing sides. Busy if it is another."""
        with self.changed:
            if self.now is None or self.now["id"] != id or self.own is None:
                raise Busy(f"{id} is not in progress")
            if "step" in self.said or "doing" in self.said:
                self.own.look(wanted)

    def watch(self) -> None:
        """Somebody watches the run in progress now, and wants to see what the prior sees."""
        with self.changed:
            if self.own is not None and time.monotonic() - self.watched > WATCHED_SECONDS / 3:
                self.watched = time.monotonic()
                self.own.watch(WATCHED_SECONDS)

    def delete(self, id: str) -> None:
        """Move a run into the trash, ``.trash`` in the studio's folder. Busy if it is in progress, KeyError if there is none."""
        with self.changed:
            entry = self._entry(id)
            if entry is not None and entry is self.now:
                raise Busy(f"{id} is in progress; stop it first")
            folder = folder_of(self.root, id)
            if entry is None and folder is None and id not in self.failed:
                raise KeyError(id)
            if entry is not None:
                self.queue.remove(entry)
            self.failed.pop(id, None)
            self._write()
            if folder is not None:
                with locked(folder):
                    trash = self.root / TRASH
                    make_folder(trash)
                    os.rename(folder, trash / f"{id}.{time.time_ns()}")
            self._tell()

    def runs(self) -> list[dict[str, Any]]:
        """All runs: those in progress and in the queue, then the others, the newest first."""
        with self.changed:
            waiting = [entry["id"] for entry in self.queue]
            others = [path.name for path in runs_in(self.root) if path.name not in waiting]
            lost = [id for id in self.failed if id not in waiting and id not in others]
            return [found for id in [*waiting, *lost, *others] if (found := self.run(id)) is not None]

    def run(self, id: str) -> dict[str, Any] | None:
        """What there is to say about a run, now; None if there is none."""
        with self.changed:
            entry, folder = self._entry(id), folder_of(self.root, id)
            if entry is None and folder is None and id not in self.failed:
                return None
            found: dict[str, Any] = {
                "id": id,
                "prompt": id,
                "preset": "",
                "seed": 0,
                "step": 0,
                "steps": 0,
                "files": [],
            }
            if folder is not None:
                found |= summary(folder)
            if entry is not None:
                found |= {"prompt": entry["prompt"], "preset": entry["preset"], "state": "queued"}
                found["place"] = self.queue.index(entry)
                if folder is None:
                    found["seed"] = int(entry["settings"].get("seed", 0))
                if entry is self.now:
                    found |= self.said | {
                        "state": "stopping" if self.stopping else "running",
                        "picture": self.picture[0],
                        "prior_picture": self.prior_picture[0],
                    }
            elif id in self.failed:
                found |= {"state": "failed", "error": self.failed[id]}
            found["notes"] = self.notes.get(id, [])
            return found

    def _check_room(self) -> None:
        if len(self.queue) >= MOST_WAITING:
            raise Busy(f"the queue is full: {MOST_WAITING} runs wait already")

    def _free_id(self, name: str) -> str:
        names = (name, *(f"{name}-{k}" for k in range(2, 1_000_000)))
        return next(
            n for n in names if not os.path.lexists(self.root / n) and not self._entry(n) and n not in self.failed
        )

    def _entry(self, id: str) -> Entry | None:
        return next((entry for entry in self.queue if entry["id"] == id), None)

    def _add(self, entry: Entry) -> None:
        self.queue.append(entry)
        self.failed.pop(entry["id"], None)
        self.notes.pop(entry["id"], None)
        self._write()
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self.changed.notify_all()

    def _work(self) -> None:
        while True:
            with self.changed:
                while not self.queue and not self.closing:
                    self.changed.wait()
                if self.closing:
                    return
                entry = self.now = self.queue[0]
                self.said, self.stopping = {"doing": "starting"}, False
                self.picture = self.prior_picture = (0, b"")
                self.watched = float("-inf")
                self.own = Worker(self.worker or WORKER, self.root / HIDDEN / "worker.log")
                self._tell()
            answer = self._make(self.own, entry)
            with self.changed:
                self.now = self.own = None
                if not self.closing:
                    self.queue.remove(entry)
                    if answer["error"] is not None and not self.stopping:
                        self.failed[entry["id"]] = answer["error"]
                        while len(self.failed) > 100:
                            self.failed.pop(next(iter(self.failed)))
                    self._write()
                self._tell()

    def _make(self, own: Worker, entry: Entry) -> dict[str, Any]:
        folder = self.root / entry["id"]
        ask = {**entry, **LIVE, "folder": str(folder), "preset": entry.get("page", entry["preset"])}
        if folder_of(self.root, entry["id"]) is not None and (folder / CHECKPOINT / META).exists():
            ask["resume"] = True  # it was in progress when the server ended
        answer = own.make(ask, lambda message: self._heard(entry["id"], message))
        own.close()
        return answer

    def _heard(self, id: str, message: dict[str, Any]) -> None:
        with self.changed:
            if "warning" in message:
                self.notes.setdefault(id, []).append(message["warning"])
            elif "step" in message:
                picture = message.pop("picture", None)
                if picture:
                    self.picture = (self.picture[0] + 1, b64decode(picture))
                if seen := message.pop("prior", None):
                    self.prior_picture = (self.prior_picture[0] + 1, b64decode(seen))
                elif "prior_t" in self.said:
                    message["prior_t"] = self.said["prior_t"]
                if "first" not in self.said:
                    self.said["first"] = [message["step"], message["seconds"]]
                first, spent = self.said["first"]
                done, seconds = message["step"] - first, message["seconds"] - spent
                left = (message["steps"] - message["step"]) * seconds / done if done > 0 else None
                self.said = {"first": self.said["first"], **message, "left": left}
            elif "doing" in message:
                self.said = {**self.said, "doing": message["doing"], "share": message["share"], "left": None}
            self._tell()

    def _read(self) -> None:
        with suppress(OSError, ValueError, TypeError, AttributeError):
            page = json.loads((self.root / HIDDEN / QUEUE).read_bytes())
            keys = {"id", "prompt", "preset", "settings", "resume"}
            self.queue = [entry for entry in page["queue"] if isinstance(entry, dict) and keys <= entry.keys()]
            self.failed = {str(id): str(why) for id, why in page["failed"].items()}

    def _write(self) -> None:
        page = {"queue": self.queue, "failed": self.failed}
        with suppress(UserError):  # a full disk costs the queue's memory, and not the page
            write_atomic(self.root / HIDDEN / QUEUE, json.dumps(page, indent=1).encode())
