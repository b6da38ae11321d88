"""One asset of a batch: its settings, and how far its folder is. Nothing here needs torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import UserError
from ..run import ANIMATION, CHECKPOINT, CONFIG, META, Run, check_free
from ..settings.config import Config
from ..settings.names import as_text, flatten
from ..settings.presets import resolve
from .by_hand import all_steps, as_it_began, lines_by_hand
from .glb_json import glb_json

State = Literal["new", "stopped", "finished", "broken"]
SAME_RESULT = ("threads", "run.checkpoint_seconds", "run.preview_seconds", "run.bad_steps")
"""Settings that do not change the asset, so that they may differ from those that a run began with;
so may all of the group ``cost``."""


@dataclass(frozen=True)
class Job:
    """One asset to be made."""

    folder: Path
    prompt: str
    preset: str = "balanced"
    settings: dict[str, Any] = field(default_factory=dict)
    refuses_changes: ClassVar[bool] = False
    """Whether a run that somebody changed while it was stopped is one of other settings."""

    @property
    def asked(self) -> dict[str, Any]:
        """The settings that differ from the preset's."""
        return self.settings

    @cached_property
    def config(self) -> Config:
        """All of its settings. UserError if one of them is not allowed."""
        return resolve(self.preset, self.asked, self.prompt)

    def all_settings(self) -> dict[str, Any]:
        """Every setting but those that do not change the result; kinds, which say what others there are, come first."""
        found = {k: v for k, v in flatten(self.config.model_dump()).items() if not _same_result(k)}
        return dict(sorted(found.items(), key=lambda item: not item[0].endswith(".kind")))

    def steps(self) -> int:
        """Steps of all its stages; those that its folder has, where it was given more. UserError for a run of other settings."""
        run = self._found()
        return all_steps(run.config if run else self.config)

    def steps_done(self) -> int | None:
        """Steps that its checkpoint holds, None without one. UserError for a run of other settings."""
        return self._done(self._found())

    def _done(self, run: Run | None) -> int | None:
        path = self.folder / CHECKPOINT / META
        return json.loads(path.read_bytes())["state"]["step"] if run and path.is_file() else None

    def changed_by_hand(self) -> list[str]:
        """What somebody changed while its run was stopped, a line each. UserError for a run of other settings."""
        run = self._found()
        return lines_by_hand(run.config, self.config) if run else []

    def _found(self) -> Run | None:
        if not (self.folder / CONFIG).is_file():
            return None
        run = Run.open(self.folder)
        self._check_settings(run)
        return run

    def _check_settings(self, run: Run) -> None:
        there = as_it_began(run.config, self.config)
        if self.refuses_changes and (lines := lines_by_hand(run.config, self.config)):
            raise UserError(f"{self.folder} was changed while it was stopped ({lines[0]}); move it away")
        for name, value in self.all_settings().items():
            if not _same(name, value, there[name]):
                raise UserError(
                    f"{self.folder} was made with {name} = {as_text(there[name])}, now {as_text(value)}; move it away"
                )

    def state(self) -> tuple[State, str]:
        """How far the folder is, and why it is broken (''). Every file that a resumed run needs is read.

        UserError if something else is in the folder: no run, or one of other settings.
        """
        if not os.path.lexists(self.folder / CONFIG):
            check_free(self.folder)
            return "new", ""
        try:
            run = Run.open(self.folder)
        except UserError as error:
            return "broken", str(error)
        self._check_settings(run)
        if not os.path.lexists(self.folder / CHECKPOINT / META):
            return ("broken", "it has an asset and no checkpoint") if self._has_asset() else ("new", "")
        try:
            _, meta = run.read_checkpoint()
        except UserError as error:
            return "broken", str(error)
        if meta["step"] == all_steps(run.config) and self._is_exported(run):
            return "finished", ""
        return ("stopped", "") if run.resumable else ("broken", "it is of an older version")

    def _is_exported(self, run: Run) -> bool:
        """Whether its asset is whole and its film is there: the animation is the last file of an export."""
        has_film = run.config.export.turntable_frames == 0 or (self.folder / ANIMATION).exists()
        return has_film and glb_json(self.folder / "asset.glb") is not None

    def _has_asset(self) -> bool:
        return (self.folder / "asset.glb").exists()

    def set_aside(self) -> Path:
        """Rename a broken folder, so that the asset is made anew; the new name."""
        taken = (self.folder.with_name(f"{self.folder.name}.broken{k or ''}") for k in range(10_000))
        path = next(path for path in taken if not os.path.lexists(path))
        os.rename(self.folder, path)
        return path

    def ask(self) -> dict[str, Any] | None:
        """What a worker is asked to do: make it, or go on with it; None where it is finished."""
        run = self._found()
        done = self._done(run)
        if run and done == all_steps(run.config) and self._is_exported(run):
            return None
        start = {"prompt": self.prompt, "preset": self.preset, "settings": self.asked}
        return {"folder": str(self.folder), "resume": done is not None} | start


def with_threads(job: Job, threads: int) -> Job:
    """The same job on so many threads, unless its settings say how many. A run keeps the number that it began with."""
    return job if "threads" in job.settings else replace(job, settings={**job.settings, "threads": threads})


def _same_result(name: str) -> bool:
    return name in SAME_RESULT or name.startswith("cost.")


def _same(name: str, asked: Any, recorded: Any) -> bool:
    """Whether a run was asked for the same. A run records paths as absolute ones, a prior with its revision, and the
    prompt that a picture is read as."""
    if asked == recorded or (name == "prompt" and not asked):
        return True
    if name == "stages" and len(asked) == len(recorded):
        pages = zip(asked, recorded, strict=True)
        return all(a.keys() == r.keys() and all(_same(n, a[n], r[n]) for n in a) for a, r in pages)
    if name in ("scene.file", "scene.sketch", "start") and asked:
        return str(Path(asked).expanduser().resolve()) == recorded
    if name == "prior.id":
        from ..priors.mixture import absolute_id  # imports torch

        return recorded == absolute_id(asked) or str(recorded).startswith(f"{absolute_id(asked)}@")
    return False
