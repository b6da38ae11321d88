"""What may be asked of a run that goes on: other settings from its checkpoint on, and more steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..mid_run import check_names, idle_changes
from ..no_effect import without_effect
from ..run import CHECKPOINT, CONFIG, META, Run
from ..settings.presets import resolve
from .waiting import Entry


def asked_for(steps: int | None, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings, with the number of steps among them where it is given."""
    return ({"steps": steps} if steps else {}) | dict(settings or {})


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has steps to go on from."""
    return (folder / CHECKPOINT / META).is_file()


def notes_about(folder: Path, more: Mapping[str, Any], prompt: str) -> list[str]:
    """A line for each setting that would change nothing. UserError for what may not change. A run without a checkpoint begins
    anew with them."""
    check_names(more)
    if not more:
        return []
    if not has_checkpoint(folder):
        return without_effect(resolve(str(folder / CONFIG), dict(more), prompt))
    run = Run.open(folder)
    return idle_changes(run.config, more, {"stage": 0} | run.read_meta())


def notes_about_entry(folder: Path, entry: Entry, more: Mapping[str, Any]) -> list[str]:
    """The same for a run in the queue, which need not have a folder yet."""
    if (folder / CONFIG).is_file():
        return notes_about(folder, more, entry["prompt"])
    check_names(more)
    return without_effect(resolve(entry["preset"], {**entry["settings"], **more}, entry["prompt"]))


def begun(folder: Path, entry: Entry) -> str:
    """Make an entry ready to begin: a change that was asked for holds from the newest checkpoint on, or from the beginning where
    there is none. "", or a line that says why the change cannot be made any more; the run then goes on without it."""
    if has_checkpoint(folder):
        entry["resume"] = True  # it was in progress before
    change = entry.pop("change", None)
    if not change:
        return ""
    try:
        notes_about_entry(folder, entry, change)
    except UserError as error:
        return f"the change was not made: {error}"
    where = "more" if entry["resume"] else "settings"
    entry[where] = {**entry.get(where, {}), **change}
    return ""
