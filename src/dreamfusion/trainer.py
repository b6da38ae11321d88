"""A run in progress: its stages one after the other, as an iterator over steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from .distillation.glimpse import Glimpse
from .metrics import Metrics
from .priors.prior import Prior, Scorer
from .scene.scene import Scene
from .settings.building import stage_configs
from .settings.config import Config
from .stage import Makers, Stage
from .torch_state import in_order, kept_random, own_torch

PriorOf = Callable[[Config], Prior | Scorer]
"""Loads the prior that a stage's settings ask for."""
State = tuple[dict[str, Tensor], dict[str, int]]
"""A checkpoint: tensors by name, and counters."""


@dataclass(frozen=True)
class Progress:
    """A step of ``steps`` is done. ``metrics`` are the figures of the log line; ``stage`` of ``stages``, from 1. ``scene`` may be
    drawn, and must not be changed. ``glimpse``: what the prior was asked and answered, if the rule asks for noise."""

    step: int
    steps: int
    metrics: Metrics
    seconds: float
    stage: int = 1
    stages: int = 1
    scene: Scene | None = field(default=None, repr=False, compare=False)
    glimpse: Glimpse | None = field(default=None, repr=False, compare=False)


class Trainer:
    """``for progress in trainer.steps(): …`` does a run's steps; ``state`` and ``restore`` are its checkpoints."""

    @own_torch()
    @kept_random()
    def __init__(
        self,
        config: Config,
        prior: Prior | Scorer | PriorOf,
        makers: Makers = Makers(),  # noqa: B008
        start: Scene | None = None,
        at: State | None = None,
    ):
        """``prior``: for all stages, or a function that loads each stage's; ``start``: the scene that the first stage begins with;
        ``at``: a checkpoint to go on from.

        UserError for settings that do not fit.
        """
        self.config, self.stages = config, stage_configs(config, at[1]["step"] if at else 0)
        self._changes = {change["step"] for change in config.changes}
        self._prior, self._makers = prior, makers
        self.stage = self._begin(at[1]["stage"] if at else 0, None, start, restored=at is not None)
        if at:
            self.stage.restore(*at)

    def _begin(self, number: int, previous: Stage | None, start: Scene | None = None, restored: bool = False) -> Stage:
        config = self.stages[number]
        prior = self._prior if isinstance(self._prior, Prior | Scorer) else self._prior(config)
        return Stage(config, prior, number, previous, self._makers, start, restored)

    @property
    def scene(self) -> Scene:
        """The scene of the stage in progress."""
        return self.stage.scene

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return sum(config.steps for config in self.stages)

    @property
    def before(self) -> int:
        """Steps of the stages that are done."""
        return sum(config.steps for config in self.stages[: self.stage.number])

    @property
    def done(self) -> int:
        """Steps done so far."""
        return self.before + self.stage.done

    @own_torch()
    def step(self) -> Metrics:
        """One step; at the end of a stage the next one begins first, and a change of settings takes place before its step."""
        if self.done in self._changes:
            self.stages = stage_configs(self.config, self.done)
        if self.stage.finished:
            with kept_random():
                self.stage = self._begin(self.stage.number + 1, self.stage)
        elif self.stage.config != self.stages[self.stage.number]:
            self.restore(*self.state())
        with in_order(self.stage.device):
            return self.stage.step(self.before)

    def steps(self) -> Iterator[Progress]:
        """All steps that are left."""
        start = time.monotonic()
        while self.done < self.total:
            metrics = self.step()
            seconds = time.monotonic() - start
            where = self.stage.number + 1, len(self.stages)
            yield Progress(self.done, self.total, metrics, seconds, *where, self.scene, self.stage.glimpse)

    @own_torch()
    def state(self) -> State:
        """Everything that the next step depends on: tensors by name, and counters."""
        tensors, meta = self.stage.state()
        return tensors, meta | {"step": self.done}

    @own_torch()
    @kept_random()
    def restore(self, tensors: dict[str, Tensor], meta: dict[str, int]) -> None:
        """The inverse of ``state``. The settings are those that hold at its step."""
        self.stages = stage_configs(self.config, meta["step"])
        if meta["stage"] != self.stage.number or self.stage.config != self.stages[meta["stage"]]:
            self.stage = self._begin(meta["stage"], None, restored=True)
        self.stage.restore(tensors, meta)
