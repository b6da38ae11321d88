"""The loop that holds prior, distillation, scene and view together, and nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import regularizers
from .asset import Asset
from .captions import Captions
from .config import Config, scheduled
from .distillation import check_rule, direction
from .errors import UserError
from .presets import resolve
from .priors import load_prior
from .priors.base import Prior
from .priors.palette import latent_palette
from .prompts import check_prompt
from .run import Run
from .scene import Scene, make_scene
from .view.backgrounds import LearnedBackground, background_colours, composite
from .view.cameras import camera_rays, sample_cameras, to_pictures
from .view.lights import sample_lights
from .view.shadings import choose_shading


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


class Trainer:
    """One run in progress: scene, optimiser and counters; ``step`` moves the scene once.

    Every random number of step k comes from a generator seeded with (seed, k), so a resumed run needs no random state.
    """

    def __init__(self, config: Config, prior: Prior):
        check_rule(config.distillation.kind)
        self.config, self.prior = config, prior
        self.device = pick_device(config.device)
        self.scene: Any = make_scene(config.scene, torch.Generator().manual_seed(config.seed), self.device)
        self.background = LearnedBackground().to(self.device) if config.view.background == "learned" else None
        if config.scene.channels != 3:
            self.scene.set_palette(*latent_palette(prior, config.scene.channels))
        groups = self.scene.parameter_groups()
        head = [*groups["head"], *(self.background.parameters() if self.background else ())]
        opt = config.optimizer
        self.groups: list[dict[str, Any]] = [
            {"params": groups["grid"], "lr": opt.lr},
            {"params": head, "lr": opt.lr_head},
        ]
        self.groups = [g for g in self.groups if g["params"]]
        self.rates = [g["lr"] for g in self.groups]
        self.optimizer = torch.optim.Adam(self.groups, betas=opt.betas, eps=opt.eps, fused=True)
        self.captions = Captions(prior, config)
        self.done = 0
        self.skipped = 0
        self.skipped_in_a_row = 0

    def step(self) -> dict[str, float]:
        """Render, ask the prior, move the scene; the figures of the step.

        A step whose gradient is not finite changes nothing and is counted; ``run.bad_steps`` of them in a row raise.
        """
        config, start = self.config, time.perf_counter()
        progress = self.done / config.steps
        rng = torch.Generator().manual_seed((config.seed * 1_000_003 + self.done) % 2**63)
        count, size = config.views_per_step, config.resolution
        cameras = sample_cameras(config.view, count, rng)
        lights = sample_lights(config.view, cameras, rng).to(self.device)
        latent = config.scene.channels != 3 and progress < config.shading.latent_until
        shading = "albedo" if latent else choose_shading(config.shading, progress, rng)
        rays = camera_rays(cameras.to(self.device), size)
        self.scene.latent = latent
        rendering = self.scene.render(rays, shading, lights.repeat_interleave(size * size, 0), config.view.ambient, rng)
        self.scene.latent = False
        if latent:
            behind = torch.full((count, config.scene.channels), 0.5, device=self.device)  # the mean latent
        elif self.background is not None:
            behind = self.background(count)
        else:
            behind = background_colours(config.view.background, count, rng).to(self.device)  # type: ignore[arg-type]
        picture = to_pictures(composite(rendering.colour, rendering.opacity, behind), size)
        rendered = time.perf_counter()

        t_min, t_max = (scheduled(x, progress) for x in (config.distillation.t_min, config.distillation.t_max))
        t = t_min + (t_max - t_min) * ((torch.arange(count) + torch.rand(count, generator=rng)) / count)
        noise = torch.randn(self.prior.noise_shape(count), generator=rng).to(self.device)
        condition = self.captions.condition(cameras, shading == "textureless")
        answer = direction(picture.detach(), self.prior, condition, t.to(self.device), noise, config.distillation)
        asked = time.perf_counter()

        penalty, terms = regularizers.total(config.regularizers, rendering, size, progress)
        self.optimizer.zero_grad()
        roots: list[Tensor] = [picture]
        gradients: list[Tensor | None] = [answer.gradient / (count * size * size)]
        if penalty.requires_grad:
            roots.append(penalty)
            gradients.append(None)
        torch.autograd.backward(roots, gradients)
        walked = time.perf_counter()
        self._update(progress)
        self.done += 1
        end = time.perf_counter()
        return {
            "step": self.done, "seconds": end - start, "seconds_prior": asked - rendered, "seconds_render": rendered - start,
            "seconds_backward": walked - asked, "seconds_update": end - walked, "opacity": float(rendering.opacity.detach().mean()),
            "shading": {"albedo": 0.0, "lambertian": 1.0, "textureless": 2.0}[shading], "skipped": self.skipped,
            **answer.metrics, **terms,
        }  # fmt: skip

    def _update(self, progress: float) -> None:
        parameters = [p for group in self.groups for p in group["params"]]
        finite = all(bool(torch.isfinite(p.grad.sum())) for p in parameters if p.grad is not None)
        if not finite:
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= self.config.run.bad_steps:
                raise UserError(
                    f"the gradient was not finite in {self.skipped_in_a_row} steps in a row (step {self.done}); "
                    "lower optimizer.lr or distillation.guidance_scale, the last good checkpoint is kept"
                )
            return
        self.skipped_in_a_row = 0
        factor = scheduled(self.config.optimizer.lr_factor, progress)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.scene.after_step(self.done + 1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on: tensors and counters; after the last step, the scene alone."""
        tensors = {f"scene.{k}": v for k, v in self.scene.state_dict().items()}
        if self.background is not None:
            tensors |= {f"background.{k}": v for k, v in self.background.state_dict().items()}
        if self.done < self.config.steps:
            for i, p in enumerate(p for group in self.groups for p in group["params"]):
                tensors |= {f"adam.{i}.{k}": v for k, v in self.optimizer.state.get(p, {}).items()}
        return tensors, {"step": self.done, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        load_state(self.scene, tensors, "scene.")
        if self.background is not None:
            load_state(self.background, tensors, "background.")
        for i, p in enumerate(p for group in self.groups for p in group["params"]):
            prefix = f"adam.{i}."
            self.optimizer.state[p] = {
                k[len(prefix) :]: v.to(self.device) for k, v in tensors.items() if k.startswith(prefix)
            }
        self.done, self.skipped, self.skipped_in_a_row = meta["step"], meta["skipped"], meta["skipped_in_a_row"]


def load_state(module: torch.nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Load a module's part of a checkpoint; UserError where the tensors are another scene's."""
    try:
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise UserError(
            f"the checkpoint does not fit this configuration: {str(error).splitlines()[-1].strip()}"
        ) from None


def pick_device(name: str) -> torch.device:
    """'auto' is the first of CUDA, MPS and CPU that is there; UserError for a device that is not."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try 'auto' or 'cpu'"
        ) from None
    return device


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
        warnings.warn(f"the bundled prior was never taught {said}", stacklevel=3)


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
    set_threads(config.threads)
    if prior is None:
        ask = config.prior
        device = pick_device(config.device)
        prior = load_prior(ask.id, device, ask.precision, ask.memory, ask.text_8bit, config.views_per_step)
    warn_unknown_words(prior, config.prompt)
    trainer = Trainer(config, prior)
    if run is not None:
        if resume is not None:
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
    optimise(trainer, run, callbacks)
    return finish(trainer.scene, config, run)


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
