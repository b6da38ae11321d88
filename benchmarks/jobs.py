"""The runs of a benchmark: ``dreamfusion.batch`` with plain settings, one core a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamfusion.asset import Asset
from dreamfusion.batch import jobs
from dreamfusion.batch.crew import WORKER, Watch, make_all
from dreamfusion.cost.meter import read_parts
from dreamfusion.errors import UserError
from dreamfusion.evaluation.fronts import has_front
from dreamfusion.prompts import slug
from dreamfusion.run import Run
from dreamfusion.suites import load_suite

PLAIN = {
    "threads": 1,
    "export.turntable_frames": 0,
    "export.texture_size": 256,
    "export.unwrap_seconds": 15,
    "run.preview_seconds": 1e9,
}
"""One core a run; no films and no large textures, which nobody looks at, and no long unwrapping of noise."""

FRONTS = 48


@dataclass(frozen=True)
class Job(jobs.Job):
    """One asset to be made, by default of the preset ``fast``."""

    preset: str = "fast"
    refuses_changes = True

    @property
    def asked(self) -> dict[str, Any]:
        """Its settings and ``PLAIN``."""
        return PLAIN | self.settings


class Lines(Watch):
    """Says what is made and what failed, a line each."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say

    def made(self, job: jobs.Job, seconds: float, waiting: int) -> None:
        self.say(f"{job.folder}: {seconds:.0f} s, {waiting} waiting")

    def failed(self, job: jobs.Job, error: str, again: bool) -> None:
        self.say(f"{job.folder}: failed: {error}")


def folder_of(out: Path, prompt: str) -> Path:
    """A prompt's folder in a batch."""
    return out / slug(prompt, 80)


def choose_prompts(asked: str) -> list[str]:
    """A suite's name, a file, or of bundled-153: a number, its first ones; 'fronts', the first 48 things that have a front
    (the Janus rate is about no others). UserError otherwise."""
    if asked == "fronts":
        return [prompt for prompt in load_suite("bundled-153") if has_front(prompt)][:FRONTS]
    if not asked.isdigit():
        return load_suite(asked)
    suite = load_suite("bundled-153")
    if not 1 <= int(asked) <= len(suite):
        raise UserError(f"--prompts {asked} is not allowed: bundled-153 has {len(suite)}")
    return suite[: int(asked)]


def run(
    jobs: Sequence[Job], workers: int, say: Callable[[str], None] = print, worker: Sequence[str] = WORKER
) -> list[Job]:
    """Make all of them, ``workers`` at a time; those that failed.

    SIGTERM and SIGINT are passed on: every run writes its checkpoint, then SystemExit (128 + signal) is raised.
    """
    waiting = [job for job in jobs if job.ask()]
    say(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them finished, {workers} at a time")
    result = make_all(waiting, workers, Lines(say), worker)
    if result.signal:
        raise SystemExit(128 + result.signal)
    return [job for job in jobs if job.folder in result.failed]


def made(folder: Path) -> dict[str, Any]:
    """What a finished run's files say of it: cpu_seconds of all its parts, export included, and the silhouettes' agreement."""
    parts = read_parts(folder)
    agreement = Asset.load(folder / "asset.glb").agreement
    return {
        "cpu_seconds": round(sum(part["cpu_seconds"] for part in parts), 2),
        "silhouettes": agreement.rounded() if agreement else None,
    }


def cost(folder: Path) -> dict[str, float]:
    """The seconds of a run's steps, and of what the prior took of them, from its own log."""
    log = Run.open(folder).read_log()
    return {key: round(sum(line.get(key) or 0.0 for line in log), 2) for key in ("seconds", "seconds_prior")}
