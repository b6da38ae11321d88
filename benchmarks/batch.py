"""Many runs, one process each and several at a time: what is finished is skipped, what was stopped goes on."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamfusion.errors import UserError
from dreamfusion.options import option_name
from dreamfusion.presets import resolve
from dreamfusion.prompts import slug
from dreamfusion.run import CHECKPOINT, CONFIG, META, Run
from dreamfusion.settings import as_text, flatten
from dreamfusion.suites import load_suite

PLAIN = {"threads": 1, "export.turntable_frames": 0, "export.texture_size": 256, "run.preview_seconds": 1e9}
"""One core a run; no films and no large textures, which nobody looks at."""
SAME_RESULT = ("threads", "run.checkpoint_seconds", "run.preview_seconds", "run.bad_steps")


@dataclass(frozen=True)
class Job:
    """One asset to be made."""

    folder: Path
    prompt: str
    preset: str = "fast"
    settings: dict[str, Any] = field(default_factory=dict)

    def all_settings(self) -> dict[str, Any]:
        """Every setting but those that do not change the result."""
        config = resolve(self.preset, PLAIN | self.settings, self.prompt)
        return {k: v for k, v in flatten(config.model_dump()).items() if k not in SAME_RESULT}

    def steps_done(self) -> int | None:
        """Steps that its checkpoint holds, None without one. UserError for a run of other settings."""
        if not (self.folder / CONFIG).is_file():
            return None
        there = flatten(Run.open(self.folder).config.model_dump())
        for name, value in self.all_settings().items():
            if there[name] != value:
                raise UserError(
                    f"{self.folder} was made with {name} = {as_text(there[name])}, now {as_text(value)}; move it away"
                )
        path = self.folder / CHECKPOINT / META
        return json.loads(path.read_bytes())["state"]["step"] if path.is_file() else None

    def command(self) -> list[str]:
        """The command that makes it, or goes on with it; empty where it is finished."""
        done = self.steps_done()
        start = [sys.executable, "-m", "dreamfusion", "generate"]
        if done is None:
            options = [f"{option_name(k)}={as_text(v)}" for k, v in (PLAIN | self.settings).items()]
            return [*start, self.prompt, "--preset", self.preset, "--out", str(self.folder), *options]
        finished = done == self.all_settings()["steps"] and (self.folder / "asset.glb").is_file()
        return [] if finished else [*start, "--resume", str(self.folder)]


def folder_of(out: Path, prompt: str) -> Path:
    """A prompt's folder in a batch."""
    return out / slug(prompt, 80)


def choose_prompts(asked: str) -> list[str]:
    """A suite's name, a file, or a number: so many prompts of bundled-153, the first ones. UserError otherwise."""
    if not asked.isdigit():
        return load_suite(asked)
    suite = load_suite("bundled-153")
    if not 1 <= int(asked) <= len(suite):
        raise UserError(f"--prompts {asked} is not allowed: bundled-153 has {len(suite)}")
    return suite[: int(asked)]


def run(jobs: Sequence[Job], workers: int, say: Callable[[str], None] = print) -> list[Job]:
    """Make all of them; those whose command failed, with its last line said.

    SIGTERM and SIGINT are passed on: every run writes its checkpoint, then SystemExit (128 + signal) is raised.
    """
    waiting = deque((job, command) for job in jobs if (command := job.command()))
    say(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them finished, {workers} at a time")
    running: dict[subprocess.Popen[bytes], tuple[Job, float]] = {}
    failed: list[Job] = []
    caught: list[int] = []
    before = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    passed_on = False
    try:
        while running or (waiting and not caught):
            while waiting and not caught and len(running) < workers:
                job, command = waiting.popleft()
                running[start(job, command)] = job, time.monotonic()
            if caught and not passed_on:
                passed_on = True
                for process in running:
                    process.terminate()
            for process in [p for p in running if p.poll() is not None]:
                job, begin = running.pop(process)
                if process.returncode == 0:
                    say(f"{job.folder}: {time.monotonic() - begin:.0f} s, {len(waiting) + len(running)} to go")
                elif not caught:
                    failed.append(job)
                    said = log_of(job).read_text(errors="replace").strip().splitlines()
                    say(f"{job.folder}: failed: {said[-1] if said else process.returncode}")
            time.sleep(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise SystemExit(128 + caught[0])
    return failed


def log_of(job: Job) -> Path:
    """What its command said, beside its folder."""
    return job.folder.with_name(job.folder.name + ".log")


def start(job: Job, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a job in a session of its own: a Ctrl-C in the terminal reaches it through ``run`` alone."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    threads = (PLAIN | job.settings)["threads"] or os.cpu_count() or 1
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with log_of(job).open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def cost(folders: Sequence[Path]) -> dict[str, float]:
    """Medians over runs of the seconds of their steps, and of what the prior took of them, from their own logs."""
    logs = [Run.open(folder).read_log() for folder in folders]
    sums = {key: [sum(line.get(key) or 0.0 for line in log) for log in logs] for key in ("seconds", "seconds_prior")}
    return {key: round(statistics.median(values), 2) for key, values in sums.items() if values}


def evaluated(folder: Path, suite: str | None = None, ceiling: bool = False) -> dict[str, Any]:
    """The evaluation of all runs in a folder; the one kept there if no run and no judge has changed since."""
    from dreamfusion.clip import load_judge
    from dreamfusion.evaluation import evaluate, read
    from dreamfusion.files import write_atomic

    kept, marks = folder / "evaluation.json", list(folder.glob(f"*/{CHECKPOINT}/{META}"))
    if kept.is_file() and all(mark.stat().st_mtime < kept.stat().st_mtime for mark in marks):
        found = read(kept)
        same = len(found["assets"]) == len(marks) and (found.get("ceiling") or not ceiling)
        if same and found["clip"]["sha256"] == load_judge().hash:
            return found
    found = evaluate([folder], prompts=suite, ceiling=ceiling, progress=print)
    write_atomic(kept, json.dumps(found).encode())
    return found
