"""What may be asked of a run that goes on: other settings from its checkpoint on, and more steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..mid_run import check_names, idle_changes
from ..no_effect import without_effect
from ..run import CHECKPOINT, CONFIG, META, Run
from ..settings.presets import resolve


def asked_for(steps: int | None, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings, with the number of steps among them where it is given."""
    return ({"steps": steps} if steps else {}) | dict(settings or {})


def notes_about(folder: Path, more: Mapping[str, Any], prompt: str) -> list[str]:
    """A line for each setting that would change nothing. UserError for what may not change. A run without a checkpoint begins
    anew with them."""
    check_names(more)
    if not more:
        return []
    if not (folder / CHECKPOINT / META).is_file():
        return without_effect(resolve(str(folder / CONFIG), dict(more), prompt))
    run = Run.open(folder)
    return idle_changes(run.config, more, {"stage": 0} | run.read_meta())
