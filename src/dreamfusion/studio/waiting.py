"""The studio's queue on the disk: the runs that are not done, and why others failed. Whatever ends the server, it is read again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomic

Entry = dict[str, Any]
"""{"id", "prompt", "preset", "settings", "resume"} of a run, and where they are needed "page" (a run.yaml in place of the preset),
"more" (settings from the checkpoint on), "change" (the same, not checked against the next checkpoint), "paused"."""
KEYS = {"id", "prompt", "preset", "settings", "resume"}
MOST_FAILED = 100


class WaitingList:
    """Entries in the order of their turns, those in progress among them. Its owner holds a lock."""

    def __init__(self, path: Path):
        """A list that is damaged is an empty one."""
        self.path = path
        self.entries: list[Entry] = []
        self.failed: dict[str, str] = {}
        """Why runs failed, by their ids; the oldest are forgotten."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            page = json.loads(path.read_bytes())
            self.entries = [entry for entry in page["queue"] if isinstance(entry, dict) and KEYS <= entry.keys()]
            self.failed = {str(id): str(why) for id, why in page["failed"].items()}

    def __getitem__(self, id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry["id"] == id), None)

    def next(self, busy: Collection[str]) -> Entry | None:
        """The first entry that is neither paused nor among those that are ``busy``."""
        return next((e for e in self.entries if e["id"] not in busy and not e.get("paused")), None)

    def add(self, entry: Entry) -> None:
        """The last one of the queue. It has not failed any more."""
        self.entries.append(entry)
        self.failed.pop(entry["id"], None)
        self.save()

    def remove(self, id: str, why: str | None = None) -> None:
        """Take a run out; ``why`` it failed, if it did."""
        self.entries = [entry for entry in self.entries if entry["id"] != id]
        self.failed.pop(id, None)
        if why is not None:
            self.failed[id] = why
            while len(self.failed) > MOST_FAILED:
                self.failed.pop(next(iter(self.failed)))
        self.save()

    def save(self) -> None:
        """Write the list. A full disk costs the queue's memory, and not the page."""
        page = {"queue": self.entries, "failed": self.failed}
        with suppress(UserError):
            write_atomic(self.path, json.dumps(page, indent=1).encode())


def asked_to_change(entry: Entry, more: Mapping[str, Any]) -> None:
    """Other settings for an entry, from its next checkpoint on. What was asked before and has not been used holds, too."""
    entry["change"] = {**entry.get("change", {}), **more}
    entry.pop("paused", None)
