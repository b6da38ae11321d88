"""``generate``: a run from its settings to its files, with checkpoints, signals and resume."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .asset import Asset
from .settings.config import Config
from .distillation import kept_graphs
from .errors import UserError
from .files import make_folder
from .settings.presets import resolve
from .priors import load_prior
from .priors.prior import Prior
from .prompts import check_prompt
from .run import Run
from .scene.scene import Scene
from .scene.make import make_scene
from .trainer import Trainer, load_state
from .device import pick_device


class Interrupted(Exception):
    """The run was asked to stop (``signal``); its checkpoint is written and ``resume`` goes on from it."""

    def __init__(self, signal_number: int, folder: Path | None):
        super().__init__(f"stopped by signal {signal_number}; go on with --resume {folder}" if folder else "stopped")
        self.signal = signal_number


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each step; ``metrics`` are the figures of the log line."""

    step: int
    steps: int
    metrics: dict[str, float]
    seconds: float


Callback = Callable[[Progress], None]


@contextmanager
def catching_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them; a second SIGINT interrupts at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, _frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def set_threads(count: int) -> int:
    """Use this many CPU threads (0: as many as this process may run on); how many that is."""
    count = count or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count or os.cpu_count() or 1
    torch.set_num_threads(count)
    return count


def warn_unknown_words(prior: Prior, prompt: str) -> None:
    """One warning that names the prompt's words the prior was never taught, with the nearest it knows."""
    unknown = prior.unknown_words(prompt) if hasattr(prior, "unknown_words") else []
    if unknown:
        said = ", ".join(f"{u.word!r} (nearest: {u.nearest!r}, similarity {u.similarity:.2f})" for u in unknown)
        asked = getattr(prior, "familiar", str)(prompt)
        instead = f"; it will be asked for {asked!r}" if asked != prompt else ""
        warnings.warn(f"the bundled prior was never taught {said}{instead}", stacklevel=3)


def generate(
    prompt: str = "",
    preset: str = "balanced",
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    config: Config | None = None,
    prior: Prior | None = None,
    callbacks: Sequence[Callback] = (),
    **overrides: Any,
) -> Asset:
    """Make a 3D asset of a prompt.

    ``preset`` and ``overrides`` (dotted names, ``distillation__guidance_scale=20``) give the settings, or ``config`` all
    of them. With ``out`` (a folder) the run is recorded there; ``resume`` goes on with a recorded run. ``prior`` takes
    the place of ``config.prior``. Callbacks are called after each step. Raises UserError, and Interrupted on SIGINT or
    SIGTERM after the checkpoint was written.
    """
    run: Run | None = None
    if resume is not None:
        if overrides or config is not None:
            raise UserError("a resumed run keeps its own settings; give either resume or settings")
        run = Run.open(resume)
        config = run.config
    elif config is None:
        config = resolve(preset, overrides, prompt)
    check_prompt(config.prompt)
    if resume is None and out is not None:
        run = Run.create(out, config)
    if run is not None and run.path.is_dir():
        with run.locked():  # to say so before a large prior is loaded
            pass
    set_threads(config.threads)
    if prior is None:
        ask = config.prior
        device = pick_device(config.device)
        load = config.views_per_step, kept_graphs(config.distillation)
        prior = load_prior(ask.id, device, ask.precision, ask.memory, ask.text_8bit, *load)
    warn_unknown_words(prior, config.prompt)
    trainer = Trainer(config, prior)
    with ExitStack() as until_done:
        if run is not None:
            make_folder(run.path)
            until_done.enter_context(run.locked())
            begin(run, trainer, resume is not None)
        optimise(trainer, run, callbacks)
        return finish(trainer.scene, config, run)


def begin(run: Run, trainer: Trainer, resumed: bool) -> None:
    """Bring the trainer to a resumed run's checkpoint, or write a new run's settings."""
    config, prior = trainer.config, trainer.prior
    if resumed:
        if (recorded := run.recorded["prior"]["sha256"]) != prior.hash:
            raise UserError(
                f"{run.path} was made with another prior (SHA-256 {recorded[:12]}…, now {prior.hash[:12]}…); "
                "start a new run with --out"
            )
        trainer.restore(*run.load_checkpoint())
        run.truncate_log(trainer.done)
    else:
        if config.prior.id.startswith("hf:"):
            config.prior.id = prior.id  # with its revision, so that a resumed run gets the same weights
        run.write_config(prior.id, prior.hash)


def optimise(trainer: Trainer, run: Run | None, callbacks: Sequence[Callback]) -> None:
    """Step until done; checkpoints, previews, the log and signals on the way."""
    config = trainer.config
    begin = saved = previewed = time.monotonic()
    with catching_signals() as caught:
        while trainer.done < config.steps:
            metrics = trainer.step()
            now = time.monotonic()
            stopped = caught[:1]  # a signal that comes later than this is for the next step, after its checkpoint
            if run is not None:
                run.log(metrics)
                last = trainer.done == config.steps
                if stopped or last or now - saved > config.run.checkpoint_seconds:
                    run.save_checkpoint(*trainer.state())
                    saved = time.monotonic()
                if not last and now - previewed > config.run.preview_seconds:
                    run.write_preview(trainer.scene, quick=True)
                    previewed = time.monotonic()
            for callback in callbacks:
                callback(Progress(trainer.done, config.steps, metrics, now - begin))
            if stopped and trainer.done < config.steps:
                raise Interrupted(stopped[0], run.path if run else None)


def finish(scene: Scene, config: Config, run: Run | None) -> Asset:
    """Export the asset, and into a run's folder all that belongs there."""
    asset = Asset.from_scene(scene, config.export, config.prompt, {"preset": config.preset, "seed": config.seed})
    if run is not None:
        asset.save(run.path / "asset.glb")
        run.write_preview(scene)
        run.write_turntable(scene, config.export.turntable_frames, config.export.turntable_size, asset)
    return asset


def load_scene(run: Run) -> tuple[Scene, Config]:
    """The scene of a recorded run as its checkpoint has it, and the run's settings."""
    config = run.config
    set_threads(config.threads)
    device = pick_device(config.device)
    scene: Any = make_scene(config.scene, torch.Generator().manual_seed(config.seed), device)
    tensors, _ = run.load_checkpoint()
    load_state(scene, tensors, "scene.")
    return scene, config
