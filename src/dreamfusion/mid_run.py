"""What may be asked of a stopped run when it is resumed: other settings from here on, and more steps.

A change is recorded with the number of steps that the checkpoint holds (``Config.changes``), and the trainer applies it when it
comes to that step. So a run that is killed and resumed, or repeated from its run.yaml, is the same run, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from .errors import UserError
from .more_steps import is_steps, with_more_steps
from .no_effect import idle_lines
from .settings.building import build, changed, stage_configs
from .settings.catalogue import CHANGES
from .settings.config import Config
from .settings.names import as_text, flatten, full_names, of_a_change


def check_names(overrides: Mapping[str, Any]) -> None:
    """UserError if one of these settings may never change in a stopped run."""
    for name in full_names(overrides):
        if not is_steps(name):
            of_a_change(name)


def with_changes(config: Config, overrides: Mapping[str, Any], meta: Mapping[str, int]) -> Config:
    """The settings of a recorded run, asked for others from its checkpoint on: {'distillation.guidance_scale': 5, 'steps': 400}.

    ``meta``: what the checkpoint says of itself; its "step" and "stage" count. Values that the run has already are no change. An
    export happens once, at the end, so its settings also replace those of the run. UserError for what may not change.
    """
    check_names(overrides)
    given = full_names(overrides)
    config = with_more_steps(config, {name: value for name, value in given.items() if is_steps(name)}, meta["stage"])
    done, left = meta["step"], _left(config, meta["step"])
    new = _new(config, given, done)
    if not new:
        return config
    late = [name for name in new if not name.startswith("export.")]
    if late and not left:
        raise UserError(f"the run has no steps left, so {', '.join(late)} would change nothing; add some with --steps")
    was = _now(config, done).view.background
    if (now := new.get("view.background", was)) != was and "learned" in (was, now):
        raise UserError("a resumed run keeps its view.background, since 'learned' is a part of what it learns")
    same = [change["settings"] for change in config.changes if change["step"] == done]
    others = [change for change in config.changes if change["step"] != done]
    exported = {name: value for name, value in new.items() if name not in late}
    changes = [*others, {"step": done, "settings": {**(same[0] if same else {}), **new}}]
    return build(flatten(config.model_dump()) | exported | {CHANGES: changes})


def idle_changes(config: Config, overrides: Mapping[str, Any], meta: Mapping[str, int]) -> list[str]:
    """A line for each setting that ``with_changes`` is asked for, and that changes nothing from here on: the run has that value
    already, or none of the stages that are left reads it. The arguments are those of ``with_changes``."""
    after, given, done = with_changes(config, overrides, meta), full_names(overrides), meta["step"]
    steps = {name: value for name, value in given.items() if is_steps(name)}
    new = _new(with_more_steps(config, steps, meta["stage"]), given, done)
    same = [name for name, value in steps.items() if with_more_steps(config, {name: value}, meta["stage"]) == config]
    same += [name for name in given if name not in steps and name not in new]
    left = _left(after, done) or [_now(after, done)]  # the export is left
    lines = [f"{name} = {as_text(given[name])} changes nothing: the run has that value already" for name in same]
    return lines + idle_lines(new, left)


def _left(config: Config, done: int) -> list[Config]:
    """The stages that have steps left, as they are after ``done`` steps of the run."""
    stages = stage_configs(config, done)
    return [stage for stage, end in zip(stages, accumulate(s.steps for s in stages), strict=True) if end > done]


def _now(config: Config, done: int) -> Config:
    """The stage that the next step is of; the last one, where there is none."""
    return (_left(config, done) or stage_configs(config, done)[-1:])[0]


def _new(config: Config, given: Mapping[str, Any], done: int) -> dict[str, Any]:
    """Those of the given settings that differ from the run's own."""
    known = {
        name: value for change in config.changes if change["step"] <= done for name, value in change["settings"].items()
    }
    asked = {n: v for n, v in given.items() if not is_steps(n) and not (n in known and as_text(known[n]) == as_text(v))}
    now = _now(config, done)
    before, after = (flatten(c.model_dump(mode="json")) for c in (now, changed(now, asked)))
    return {name: after[name] for name in asked if after[name] != before[name]}
