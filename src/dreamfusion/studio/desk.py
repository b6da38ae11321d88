"""The studio's queue: one run at a time or several, each in a process of its own. Nothing here knows the web.

The queue is kept in ``.studio/queue.json``. A run leaves it when it has ended, so that a server that is started again goes on
with the runs that were in progress and with those that waited. One that is paused keeps its place in it: its process has written a
checkpoint and ended, so that nothing is lost whatever happens meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..batch.crew import reason
from ..errors import UserError
from ..files import locked, make_folder
from ..paths import check_folder
from ..prompts import check_prompt, slug
from ..run import CONFIG
from ..settings.presets import resolve
from .changing import asked_for, begun, notes_about, notes_about_entry
from .in_progress import InProgress
from .listing import folder_of, runs_in, summary
from .waiting import Entry, WaitingList, asked_to_change

HIDDEN, TRASH, QUEUE = ".studio", ".trash", "queue.json"
MOST_WAITING = 20
LIVE = {"every": 0.4, "live": 160}


class Busy(Exception):
    """What was asked cannot be done now; the message says why."""


class Desk:
    """The runs of a folder, and the queue of those that are to be made. All methods may be called by any thread."""

    def __init__(self, root: Path, threads: int = 0, worker: Sequence[str] = (), at_once: int = 1):
        """``root`` is made if it is missing; ``threads`` of the CPU that a run gets, 0 for all; ``at_once``: runs at a time. UserError
        if the folder cannot be written to."""
        self.root, self.threads, self.worker = root, threads, worker
        check_folder(root)
        make_folder(root / HIDDEN)
        self.changed = threading.Condition(threading.RLock())
        self.version = 0
        self.queue = WaitingList(root / HIDDEN / QUEUE)
        self.active: dict[str, InProgress] = {}
        self.notes: dict[str, list[str]] = {}
        self.closing = False
        self.workers = [threading.Thread(target=self._work, daemon=True) for _ in range(at_once)]

    def start(self) -> None:
        """Begin with the queue."""
        for thread in self.workers:
            thread.start()

    def close(self) -> None:
        """Stop the runs in progress, which write their checkpoints. They stay the first of the queue."""
        with self.changed:
            self.closing = True
            for progress in self.active.values():
                progress.end("close")
            self.changed.notify_all()
        for thread in self.workers:
            if thread.is_alive():
                thread.join()

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
        """Go on with a run that is paused, was stopped or failed, or that is done and gets more ``steps``; ``settings`` hold from its
        checkpoint on. A run in progress writes one, and goes on with them at once. UserError, Busy."""
        with self.changed:
            folder, entry, more = folder_of(self.root, id), self.queue[id], asked_for(steps, settings)
            if entry is not None:
                self._change(entry, more)
                return
            if folder is None:
                raise Busy(f"{id} cannot be resumed: there is no such run")
            self._check_room()
            found = summary(folder)
            notes_about(folder, more, found["prompt"])  # says what is wrong
            start = {"prompt": found["prompt"], "preset": found["preset"], "settings": {}}
            if not found.get("step") and found["state"] != "broken":  # it has no checkpoint yet, and begins anew
                self._add({"id": id, "resume": False, "page": str(folder / CONFIG), **start, "settings": more})
            else:
                self._add({"id": id, "resume": True, "more": more, **start})

    def notes_about(self, id: str, more: Mapping[str, Any]) -> list[str]:
        """A line for each of these settings that would change nothing from a run's checkpoint on. UserError for what may not change."""
        with self.changed:
            entry = self.queue[id]
            if entry is not None:
                return notes_about_entry(self.root / id, entry, more)
            if (folder := folder_of(self.root, id)) is None:
                raise Busy(f"{id} has no folder")
            return notes_about(folder, more, summary(folder)["prompt"])

    def _change(self, entry: Entry, more: dict[str, Any]) -> None:
        id, progress = entry["id"], self.active.get(entry["id"])
        if not more and not entry.get("paused"):
            raise Busy(f"{id} cannot be resumed: it is in the queue")
        if progress is not None and progress.ending == "stop":
            raise Busy(f"{id} is stopping; resume it when it has stopped")
        notes_about_entry(self.root / id, entry, more)  # says what is wrong
        entry.pop("paused", None)
        if more:
            asked_to_change(entry, more)
        self.queue.save()
        if progress is not None:
            progress.end("change")
        self._tell()

    def pause(self, id: str) -> None:
        """Let a run wait, at its place in the queue, until it is resumed; one in progress writes its checkpoint. Busy if it is not in
        the queue."""
        with self.changed:
            entry = self._waiting(id)
            entry["paused"] = True
            self.queue.save()
            if (progress := self.active.get(id)) is not None:
                progress.end("pause")
            self._tell()

    def stop(self, id: str) -> None:
        """Take a run out of the queue; one in progress writes its checkpoint. Busy if it is not in it."""
        with self.changed:
            self._waiting(id)
            if (progress := self.active.get(id)) is not None:
                progress.end("stop")
            else:
                self.queue.remove(id)
            self._tell()

    def look(self, id: str, wanted: tuple[float, float] | None) -> None:
        """Show a run in progress from this azimuth and elevation in degrees; None: from changing sides. Busy if it is not."""
        with self.changed:
            if (progress := self.active.get(id)) is None:
                raise Busy(f"{id} is not in progress")
            progress.look(wanted)

    def watch(self) -> None:
        """Somebody watches the runs in progress now, and wants to see what the prior sees."""
        with self.changed:
            for progress in self.active.values():
                progress.watch()

    def picture(self, id: str, which: Literal["picture", "prior_picture"]) -> tuple[int, bytes]:
        """The newest JPEG of a run in progress, and its number; (0, b"") if there is none."""
        with self.changed:
            progress = self.active.get(id)
            return progress.pictures[which] if progress is not None else (0, b"")

    def delete(self, id: str) -> None:
        """Move a run into the trash, ``.trash`` in the studio's folder. Busy if it is in progress, KeyError if there is none."""
        with self.changed:
            if id in self.active:
                raise Busy(f"{id} is in progress; stop it first")
            folder = folder_of(self.root, id)
            if self.queue[id] is None and folder is None and id not in self.queue.failed:
                raise KeyError(id)
            if folder is not None:
                with locked(folder):
                    trash = self.root / TRASH
                    make_folder(trash)
                    os.rename(folder, trash / f"{id}.{time.time_ns()}")
            self.queue.remove(id)  # last: a run that could not be moved keeps its place
            self._tell()

    def runs(self) -> list[dict[str, Any]]:
        """All runs: those in progress and in the queue, then the others, the newest first."""
        with self.changed:
            waiting = [entry["id"] for entry in self.queue.entries]
            others = [path.name for path in runs_in(self.root) if path.name not in waiting]
            lost = [id for id in self.queue.failed if id not in waiting and id not in others]
            return [found for id in [*waiting, *lost, *others] if (found := self.run(id)) is not None]

    def run(self, id: str) -> dict[str, Any] | None:
        """What there is to say about a run, now; None if there is none."""
        with self.changed:
            entry, folder = self.queue[id], folder_of(self.root, id)
            if entry is None and folder is None and id not in self.queue.failed:
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
                found |= {"prompt": entry["prompt"], "preset": entry["preset"]}
                found |= {
                    "state": "paused" if entry.get("paused") else "queued",
                    "place": self.queue.entries.index(entry),
                }
                if folder is None:
                    found["seed"] = int(entry["settings"].get("seed", 0))
                if id in self.active:
                    found |= self.active[id].now()
            elif id in self.queue.failed:
                found |= {"state": "failed", "error": self.queue.failed[id]}
            found["notes"] = self.notes.get(id, [])
            return found

    def _check_room(self) -> None:
        if len(self.queue.entries) >= MOST_WAITING:
            raise Busy(f"the queue is full: {MOST_WAITING} runs wait already")

    def _free_id(self, name: str) -> str:
        names = (name, *(f"{name}-{k}" for k in range(2, 1_000_000)))
        taken = {entry["id"] for entry in self.queue.entries} | self.queue.failed.keys()
        return next(n for n in names if n not in taken and not os.path.lexists(self.root / n))

    def _waiting(self, id: str) -> Entry:
        if (entry := self.queue[id]) is None:
            raise Busy(f"{id} is not in the queue")
        return entry

    def _add(self, entry: Entry) -> None:
        self.queue.add(entry)
        self.notes.pop(entry["id"], None)
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self.changed.notify_all()

    def _work(self) -> None:
        """What each of the threads does: one run after the other. An error ends its run and not the thread, or the runs that wait would
        wait for ever."""
        while True:
            with self.changed:
                while (entry := self.queue.next(self.active)) is None and not self.closing:
                    self.changed.wait()
                if entry is None or self.closing:
                    return
                try:
                    progress, ask = self._begin(entry)
                except Exception as error:
                    self.queue.remove(entry["id"], reason(error))
                    self._tell()
                    continue
            try:
                answer = progress.own.make(ask, lambda message, entry=entry: self._heard(entry, message))  # type: ignore[misc]
            except Exception as error:
                progress.own.kill()
                answer = {"error": reason(error)}
            progress.own.close()
            with self.changed:
                del self.active[entry["id"]]
                try:
                    self._ended(entry, progress, answer["error"])
                except Exception as error:
                    self.queue.remove(entry["id"], reason(error))
                self._tell()

    def _begin(self, entry: Entry) -> tuple[InProgress, dict[str, Any]]:
        """A process for a run, and what it is asked."""
        id, folder = entry["id"], self.root / entry["id"]
        if problem := begun(folder, entry):
            self._note(id, problem)
        self.queue.save()
        progress = self.active[id] = InProgress(id, self.worker, self.root / HIDDEN / "worker.log")
        self._tell()
        return progress, {**entry, **LIVE, "folder": str(folder), "preset": entry.get("page", entry["preset"])}

    def _ended(self, entry: Entry, progress: InProgress, error: str | None) -> None:
        """The process of a run has ended: whether the run leaves the queue, and with what error."""
        id = entry["id"]
        if progress.ending == "stop":
            self.queue.remove(id)
        elif error is None:
            try:
                notes_about_entry(self.root / id, entry, entry.get("change", {}))
            except UserError as problem:
                self._note(id, f"the change came too late: {problem}")
                entry.pop("change")
            if "change" not in entry:
                self.queue.remove(id)
        elif not progress.ending:
            self.queue.remove(id, error)

    def _heard(self, entry: Entry, message: dict[str, Any]) -> None:
        with self.changed:
            if "warning" in message:
                self._note(entry["id"], message["warning"])
            if "step" in message:
                entry.pop("more", None)  # its run.yaml has them now
            self.active[entry["id"]].heard(message)
            self._tell()

    def _note(self, id: str, line: str) -> None:
        if line not in (lines := self.notes.setdefault(id, [])):
            lines.append(line)
