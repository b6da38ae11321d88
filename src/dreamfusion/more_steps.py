"""More steps for a run that has ended, or was stopped.

The steps that are added keep the last values of the schedules (noise levels, learning rates, hardening …), which run over
the steps that the run began with. So a run of 200 steps that is given 400 is the run that had ``steps: 400`` and
``schedule_steps: 200`` from the beginning, whenever the steps were added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import UserError
from .settings.building import build, changed, stage_configs
from .settings.catalogue import STAGES
from .settings.config import Config
from .settings.names import flatten, full_names


def is_steps(name: str) -> bool:
    """Whether a dotted name is the number of steps, of the run or of a stage."""
    return name == "steps" or (name.startswith(f"{STAGES}.") and name.endswith(".steps"))


def with_more_steps(config: Config, overrides: Mapping[str, Any], stage: int) -> Config:
    """The settings of a recorded run with more steps: {'steps': 400}, or {'stages.2.steps': 400}.

    ``stage``: the stage that its checkpoint is in, from 0; 'steps' are those of that stage. UserError for any other
    setting, for fewer steps, and for a stage that is over.
    """
    for name, value in full_names(overrides).items():
        if not is_steps(name):
            raise UserError(f"a resumed run keeps its own settings, and takes more steps; leave out {name}")
        number = int(name.split(".")[1]) - 1 if name != "steps" else stage
        config = _lengthened(config, number, stage, value)
    return config


def _lengthened(config: Config, number: int, stage: int, value: Any) -> Config:
    stages = stage_configs(config)
    if not 0 <= number < len(stages) or (number > 0 and not config.stages):
        raise UserError(f"{STAGES}.{number + 1}.steps: the run has {len(config.stages) or 'no'} stages")
    if number < stage:
        raise UserError(f"stage {number + 1} of the run is over; it cannot have more steps")
    old = stages[number]
    steps = changed(old, {"steps": value}).steps
    if steps < old.steps:
        what = f"stage {number + 1}" if config.stages else "the run"
        raise UserError(f"{what} has {old.steps} steps; --steps {steps} is fewer, and with --resume it adds steps")
    if steps == old.steps:
        return config
    longer = {"steps": steps, "schedule_steps": old.schedule_steps or old.steps}
    if not config.stages:
        return changed(config, longer)
    pages = [page | longer if k == number else page for k, page in enumerate(config.stages)]
    return build(flatten(config.model_dump()) | {STAGES: pages})
