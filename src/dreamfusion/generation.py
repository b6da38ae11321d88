"""``generate``: a run from its settings to its files."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from .asset import Asset
from .cost.meter import Meter
from .device import pick_device
from .distillation.rules import kept_graphs
from .errors import UserError
from .export.splat_files import write_splats
from .export.turntable import turntable, write_preview
from .files import write_atomic
from .geometry.export_settings import ExportSettings
from .loading import load_prior
from .loop import keep
from .mid_run import idle_changes, with_changes
from .no_effect import without_effect
from .paths import user_path
from .priors.mixture import absolute_id, pinned_id
from .priors.prior import Frozen, Prior, Scorer
from .prompt_checks import asked_notes, prompt_notes, unread_notes
from .prompts import check_prompt
from .recorded import start_scene_of
from .reference import read_reference
from .reports import reporting
from .run import ANIMATION, FILM, Run
from .scene.particles import shown_of
from .scene.scene import Scene
from .scene.scene_settings import MeshSettings, SplatSettings
from .scene.splat_scene import SplatScene
from .settings.beginnings import check_beginning
from .settings.building import stage_configs
from .settings.config import Config
from .settings.presets import resolve
from .torch_state import own_torch, threads
from .trainer import Progress, State, Trainer

REFERENCE = "reference"
"""The copy of the reference picture in a run's folder."""

Callback = Callable[[Progress], None]


class Stopped(Exception):
    """The run was asked to stop. Its checkpoint is written, and ``resume`` continues from it."""

    def __init__(self, folder: Path | None = None):
        super().__init__(f"stopped; resume with --resume {folder}" if folder else "stopped")
        self.folder = folder


def generate(
    prompt: str = "",
    preset: str = "balanced",
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    config: Config | None = None,
    prior: Prior | Scorer | Loader | None = None,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
    **overrides: Any,
) -> Asset:
    """Make a 3D asset of a prompt.

    ``preset`` and ``overrides`` (dotted names, ``distillation__guidance_scale=20``) give the settings, or ``config`` all
    of them. With ``out`` (a folder) the run is recorded there; ``resume`` continues a recorded run, with ``steps`` for more
    of them (``more_steps``) and with ``overrides`` that hold from here on (``mid_run``). ``prior`` replaces
    ``config.prior``; a ``Loader`` loads what the settings ask for, and keeps it for the next run. Callbacks are called
    after each step; what they raise ends the run, with a checkpoint. ``stop``, once set (by any thread), ends it after the
    step in progress, or between parts of the export: Stopped is
    raised. Raises UserError too.
    """
    with ExitStack() as held:  # from now on nobody else writes into the run's folder
        run: Run | None = None
        if config is not None and (overrides or preset != "balanced" or prompt not in ("", config.prompt)):
            raise UserError("config holds all settings and the prompt; change them there")
        if resume is not None:
            if config is not None or prompt or preset != "balanced" or out is not None:
                raise UserError("a resumed run keeps its own settings, prompt and folder; give either resume or them")
            run = Run.open(resume)
            held.enter_context(run.locked())
            if overrides:
                meta = run.load_checkpoint(resumable=True)[1]
                say(idle_changes(run.config, overrides, meta))
                run.config = with_changes(run.config, overrides, meta)
            config = run.config
            if config.prior.image:  # read from the run's copy; the recorded path stays what was asked for
                config = config.model_copy(deep=True)
                config.prior.image = str(run.path / REFERENCE)
        else:  # what is found out is written into the settings, and the caller's own stay as they are
            config = resolve(preset, overrides, prompt) if config is None else config.model_copy(deep=True)
        if config.prior.asks == "image" and not config.prior.image:
            raise UserError("prior.asks=image needs a reference picture; give one with --image FILE")
        if not config.prior.image:
            check_prompt(config.prompt)
        if resume is None:
            check_beginning(config)
            resumable_anywhere(config)
        if resume is None and out is not None:
            run = held.enter_context(Run.claim(out, config))
        held.enter_context(threads(config.threads))
        return _generate(config, run, resume is not None, prior, callbacks, stop)


def _generate(
    config: Config,
    run: Run | None,
    resumed: bool,
    prior: Prior | Scorer | Loader | None,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> Asset:
    """The asset of these settings. ``run``, where it is recorded, is locked."""
    meter = Meter(config.cost, pick_device(config.device), run.path if run else None, resumed)
    load = prior if isinstance(prior, Loader) else Loader()
    given = None if isinstance(prior, Loader) else prior
    stage = stage_configs(config)[0]
    first = given or load(stage)
    if config.prior.image:
        config.prompt = read_as(first, config)
    else:
        warn_about_words(first, config)
    if not resumed:
        say(without_effect(config))
    start = start_scene_of(config.start, stage.scene) if config.start and not resumed else None
    trainer = Trainer(config, given or load, start=start, at=checkpoint_of(run, first) if run and resumed else None)
    with ExitStack() as until_done:
        steps: Iterator[Progress] = trainer.steps()
        if run is not None:
            begin(run, trainer, first, resumed)
            steps = until_done.enter_context(closing(keep(trainer, run, meter)))  # type: ignore[type-var]
        for progress in steps:
            for callback in callbacks:
                callback(progress)
            if progress.step < progress.steps:
                stop_if_asked(stop, run)
        late = stop if stop is not None and not stop.is_set() else None  # what came in the last step stops nothing
        with reporting(lambda *_: stop_if_asked(late, run)):
            asset = finish(trainer.scene, config, run)
    meter.save()
    return asset


def stop_if_asked(stop: threading.Event | None, run: Run | None) -> None:
    """Raise Stopped once ``stop`` is set."""
    if stop is not None and stop.is_set():
        raise Stopped(run.path if run else None)


def resumable_anywhere(config: Config) -> None:
    """Make the paths of a new run's priors, picture, mesh and start absolute, so that the run can be resumed from any folder."""
    config.prior.id, config.start = absolute_id(config.prior.id), absolute_file(config.start)
    config.prior.image = absolute_file(config.prior.image)
    if isinstance(config.scene, MeshSettings | SplatSettings):
        config.scene.file = absolute_file(config.scene.file)
    else:
        config.scene.sketch = absolute_file(config.scene.sketch)
    made = {"prior.id": absolute_id, "scene.file": absolute_file, "scene.sketch": absolute_file}
    config.stages = tuple(
        {name: made[name](value) if name in made else value for name, value in page.items()} for page in config.stages
    )


def absolute_file(path: str) -> str:
    """The path of a file that is read, from any folder; '' stays."""
    return str(user_path(path).resolve()) if path else ""


def unmet(asset: Asset, export: ExportSettings) -> list[str]:
    """The notes about settings that somebody has asked for. The default level is a bound that an early scene need not
    reach, and so is a number of faces, unless it is above the default."""
    default = ExportSettings()
    usual = {name for name in ("level", "resolution") if getattr(export, name) == getattr(default, name)}
    usual |= {"faces"} if export.faces <= default.faces else set()
    return [note for name, note in asset.notes.items() if name not in usual]


class Loader:
    """Loads the prior of a stage's settings; the last one is kept, since most stages share it."""

    def __init__(self) -> None:
        self.last: tuple[str, Prior | Scorer] | None = None

    def __call__(self, config: Config) -> Prior | Scorer:
        ask, device = config.prior, pick_device(config.device)
        instance = config.seed if ask.instance < 0 else ask.instance
        key = f"{ask!r} {device} {config.views_per_step} {kept_graphs(config.distillation)} {instance}"
        if self.last is None or self.last[0] != key:
            self.last = None  # its memory may be needed
            need = config.views_per_step, kept_graphs(config.distillation)
            self.last = key, load_prior(ask.id, device, ask.precision, ask.memory, ask.text_8bit, *need, instance)
        return self.last[1]


def read_as(prior: Frozen, config: Config) -> str:
    """What the prior sees in the reference picture, with a word to the user; the prompt, where there is one, stays."""
    picture = read_reference(config.prior.image)
    seen = prior.describe(picture, config.prompt)
    warnings.warn(f"{Path(config.prior.image).name} is read as {seen}", stacklevel=3)
    return config.prompt or seen.partition(" (")[0]


@own_torch()
def warn_about_words(prior: Frozen, config: Config) -> None:
    """Warn about what of the run's words the prior does not know, does not draw or does not read."""
    say([*prompt_notes(prior, config.prompt), *unread_notes(prior, config), *asked_notes(prior, config)])


def say(lines: Iterable[str]) -> None:
    """Warn, a line for each."""
    for line in lines:
        warnings.warn(line, stacklevel=4)


@own_torch()
def checkpoint_of(run: Run, prior: Frozen) -> State:
    """The checkpoint that a run goes on from. UserError if its first stage had another prior than this."""
    if (recorded := run.recorded["prior"]["sha256"]) != prior.hash:
        raise UserError(
            f"{run.path} was made with another prior (SHA-256 {recorded[:12]}…, now {prior.hash[:12]}…); "
            "start a new run with --out"
        )
    return run.load_checkpoint(resumable=True)


@own_torch()
def begin(run: Run, trainer: Trainer, prior: Frozen, resumed: bool) -> None:
    """Record the settings of a new run, or those that changed in a resumed one. ``prior``: the first stage's."""
    if resumed:
        run.truncate_log(trainer.done)
        if trainer.done < trainer.total:
            for name in (ANIMATION, FILM):
                (run.path / name).unlink(missing_ok=True)
        if Run.open(run.path).config != run.config:
            run.rewrite_config()
    else:
        trainer.config.prior.id = pinned_id(trainer.config.prior.id, prior)
        run.write_config(prior.id, prior.hash)  # first, for a folder with anything else in it is none of ours
        if trainer.config.prior.image:
            write_atomic(run.path / REFERENCE, Path(trainer.config.prior.image).read_bytes())


def finish(scene: Scene, config: Config, run: Run | None) -> Asset:
    """Export the asset. With a run, write all of its finished files."""
    export = config.export
    asset = Asset.from_scene(scene, export, config.prompt, {"preset": config.preset, "seed": config.seed})
    say(unmet(asset, export))
    if run is not None:
        asset.save(run.path / "asset.glb")
        if isinstance(splats := shown_of(scene), SplatScene):
            write_splats(run.path / "splats", splats.data(), asset.mesh, {"prompt": config.prompt, **asset.metadata})
        write_preview(run.path / "preview.png", scene)
        frames, size = export.turntable_frames, export.turntable_size
        turntable(run.path, scene, asset.mesh, asset.texture, frames=frames, size=size, faithful=asset.faithful)
    return asset
