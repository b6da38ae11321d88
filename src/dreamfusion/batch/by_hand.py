"""What somebody changed by hand in a run of a batch while it was stopped: other settings from a step on, and more steps."""

from __future__ import annotations

from typing import Any

from ..settings.building import stage_configs
from ..settings.catalogue import CHANGES, STAGES
from ..settings.config import Config
from ..settings.names import as_text, flatten

LONGER = ("steps", "schedule_steps")
"""What ``more_steps`` writes."""


def all_steps(config: Config) -> int:
    """Steps of all stages."""
    return sum(stage.steps for stage in stage_configs(config))


def lines_by_hand(found: Config, asked: Config) -> list[str]:
    """A line for each change of a recorded run that the list does not ask for: 'scene.lr = 0.01 from step 60 on', '400 steps'."""
    lines = [
        f"{name} = {as_text(value)} from step {change['step']} on"
        for change in _changes(found, asked)
        for name, value in change["settings"].items()
    ]
    if any(_longer(*pair) for pair in zip(stage_configs(found), stage_configs(asked), strict=False)):
        lines.append(f"{all_steps(found)} steps")
    return lines


def as_it_began(found: Config, asked: Config) -> dict[str, Any]:
    """A recorded run's settings by dotted name, without what was changed by hand. Changes of the export and of the
    number of steps overwrite the value that the run began with, so for these names the value is the one that is asked for."""
    there, wanted = flatten(found.model_dump()), flatten(asked.model_dump())
    if all(change in found.changes for change in asked.changes):
        there[CHANGES] = wanted[CHANGES]
    replaced = {n for change in _changes(found, asked) for n in change["settings"] if n.startswith("export.")}
    if not found.stages and _longer(found, asked):
        replaced |= set(LONGER)
    there |= {name: wanted[name] for name in replaced}
    if found.stages and len(found.stages) == len(asked.stages):
        pairs = zip(stage_configs(found), stage_configs(asked), found.stages, asked.stages, strict=True)
        there[STAGES] = tuple(_shorter(old, new) if _longer(was, now) else old for was, now, old, new in pairs)
    return there


def _changes(found: Config, asked: Config) -> list[dict[str, Any]]:
    return [change for change in found.changes if change not in asked.changes]


def _longer(found: Config, asked: Config) -> bool:
    """Whether one stage has more steps than it is asked for, and schedules that run over those that are asked for."""
    return found.steps > asked.steps and found.schedule_steps == (asked.schedule_steps or asked.steps)


def _shorter(page: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in page.items() if n not in LONGER} | {n: v for n, v in asked.items() if n in LONGER}
