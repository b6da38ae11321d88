"""The loop around a run's steps: its log, checkpoints and previews."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .cost.meter import Meter
from .export.turntable import SHEET_SIZE, turntable, write_preview
from .metrics import Metrics
from .run import Run
from .torch_state import own_torch
from .trainer import Progress, Trainer

LOG_SECONDS = 1.0
"""The log is written at most this often, so that no step waits for a GPU."""
PREVIEW_SHARE = 0.02
"""Largest share of a run's time that previews may take."""
PROBE_SIZE = 48
"""Side of the first preview's pictures. Their cost tells what a full preview will cost."""


STAGE_FRAMES, STAGE_SIZE = 30, 256
"""Frames of the film of a stage that is not the last, and their side; a run's own film may have fewer or smaller ones."""


def stage_preview(number: int) -> str:
    """The name of the preview of a stage that is over, from 1."""
    return f"preview-stage-{number}.png"


def keep(trainer: Trainer, run: Run, meter: Meter | None = None) -> Iterator[Progress]:
    """The trainer's steps, with the run's folder kept up to date, and the cost so far with each checkpoint.

    Stopping the iteration (by ``break``, an exception or ``close``) leaves a checkpoint of all steps done.
    """
    keeper = Keeper(trainer, run, meter)
    stage = trainer.stage
    ended = stage.finished and trainer.done < trainer.total
    if ended and not (run.path / stage_preview(stage.number + 1)).exists():
        keeper.show_stage()  # the run was killed between a stage's checkpoint and its pictures
    for progress in trainer.steps():
        keeper.after(progress)
        try:
            yield progress
        except BaseException:
            keeper.checkpoint()
            raise


class Keeper:
    """Keeps a run's folder up to date during the run."""

    def __init__(self, trainer: Trainer, run: Run, meter: Meter | None = None):
        self.trainer, self.run, self.settings, self.meter = trainer, run, trainer.config.run, meter
        self.begin = self.saved = self.logged = self.previewed = time.monotonic()
        self.unsaved = False
        self.unlogged: list[Metrics] = []
        self.preview_cost = 0.0
        self.previews_cost = 0.0

    @own_torch()
    def after(self, progress: Progress) -> None:
        """Upkeep after a step."""
        self.unsaved = True
        self.unlogged.append(progress.metrics)
        stage_done = self.trainer.stage.finished
        if time.monotonic() - self.logged > LOG_SECONDS:
            self.log()
        if stage_done or time.monotonic() - self.saved > self.settings.checkpoint_seconds:
            self.checkpoint()
        if stage_done and progress.step < progress.steps:
            self.show_stage()
        elif progress.step < progress.steps and self.preview_is_due():
            self.preview()

    @own_torch()
    def show_stage(self) -> None:
        """Write the preview and a short film of a stage that is over."""
        number, scene, export = self.trainer.stage.number + 1, self.trainer.scene, self.trainer.config.export
        frames, size = min(export.turntable_frames, STAGE_FRAMES), min(export.turntable_size, STAGE_SIZE)
        turntable(self.run.path, scene, frames=frames, size=size, name=f"turntable-stage-{number}")
        write_preview(self.run.path / stage_preview(number), scene)

    def log(self) -> None:
        """Write the waiting lines of the log."""
        for metrics in self.unlogged:
            self.run.log(metrics)
        self.unlogged = []
        self.logged = time.monotonic()
        if self.meter is not None:
            self.meter.sample()

    @own_torch()
    def checkpoint(self) -> None:
        """Write the log; then a checkpoint, if a step was done since the last one."""
        self.log()
        if self.unsaved:
            self.run.save_checkpoint(*self.trainer.state())
            self.unsaved = False
            if self.meter is not None:
                self.meter.save()
        self.saved = time.monotonic()

    def preview_is_due(self) -> bool:
        """Whether it is time for a preview, and whether another one stays within ``PREVIEW_SHARE`` of the run."""
        now = time.monotonic()
        if now - self.previewed < self.settings.preview_seconds:
            return False
        return self.previews_cost + self.preview_cost <= PREVIEW_SHARE * (now - self.begin)

    def preview(self) -> None:
        """Write the preview; the first one is small."""
        start = time.monotonic()
        size = SHEET_SIZE if self.preview_cost else PROBE_SIZE
        write_preview(self.run.path / "preview.png", self.trainer.scene, views=4, size=size)
        self.previewed = time.monotonic()
        spent = self.previewed - start
        self.previews_cost += spent
        self.preview_cost = spent * (SHEET_SIZE / size) ** 2
