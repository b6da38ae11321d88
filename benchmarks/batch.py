"""Many runs, several at a time: what is finished is skipped, what was stopped goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamfusion.errors import UserError
from dreamfusion.evaluation.fronts import has_front
from dreamfusion.prompts import slug
from dreamfusion.run import CHECKPOINT, CONFIG, META, Run
from dreamfusion.settings.config import Config
from dreamfusion.settings.names import as_text, flatten, stage_configs
from dreamfusion.settings.presets import resolve
from dreamfusion.suites import load_suite

PLAIN = {"threads": 1, "export.turntable_frames": 0, "export.texture_size": 256, "run.preview_seconds": 1e9}
"""One core a run; no films and no large textures, which nobody looks at."""
WORKER = (sys.executable, str(Path(__file__).with_name("worker.py")))
SAME_RESULT = ("threads", "run.checkpoint_seconds", "run.preview_seconds", "run.bad_steps")


@dataclass(frozen=True)
class Job:
    """One asset to be made."""

    folder: Path
    prompt: str
    preset: str = "fast"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """Its settings."""
        return resolve(self.preset, PLAIN | self.settings, self.prompt)

    def all_settings(self) -> dict[str, Any]:
        """Every setting but those that do not change the result; kinds, which say what others there are, come first."""
        found = {k: v for k, v in flatten(self.config.model_dump()).items() if k not in SAME_RESULT}
        return dict(sorted(found.items(), key=lambda item: not item[0].endswith(".kind")))

    @property
    def steps(self) -> int:
        """Steps of all its stages."""
        return sum(config.steps for config in stage_configs(self.config))

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

    def ask(self) -> dict[str, Any] | None:
        """What a worker is asked to do: make it, or go on with it; None where it is finished."""
        done = self.steps_done()
        if done == self.steps and (self.folder / "asset.glb").is_file():
            return None
        start = {"prompt": self.prompt, "preset": self.preset, "settings": PLAIN | self.settings}
        return {"folder": str(self.folder), "resume": done is not None} | start


def folder_of(out: Path, prompt: str) -> Path:
    """A prompt's folder in a batch."""
    return out / slug(prompt, 80)


def choose_prompts(asked: str) -> list[str]:
    """A suite's name, a file, or of bundled-153: a number, its first ones; 'fronts', those of things that have a front
    (the Janus rate is about no others). UserError otherwise."""
    if asked == "fronts":
        return [prompt for prompt in load_suite("bundled-153") if has_front(prompt)]
    if not asked.isdigit():
        return load_suite(asked)
    suite = load_suite("bundled-153")
    if not 1 <= int(asked) <= len(suite):
        raise UserError(f"--prompts {asked} is not allowed: bundled-153 has {len(suite)}")
    return suite[: int(asked)]


def run(
    jobs: Sequence[Job], workers: int, say: Callable[[str], None] = print, worker: Sequence[str] = WORKER
) -> list[Job]:
    """Make all of them, ``workers`` at a time; those that failed, each with what was said.

    SIGTERM and SIGINT are passed on: every run writes its checkpoint, then SystemExit (128 + signal) is raised.
    """
    waiting = deque((job, ask) for job in jobs if (ask := job.ask()))
    say(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them finished, {workers} at a time")
    failed: list[Job] = []
    caught: list[int] = []
    hired: list[subprocess.Popen[str]] = []

    def tend() -> None:
        process: subprocess.Popen[str] | None = None
        while waiting and not caught:
            try:
                job, ask = waiting.popleft()
            except IndexError:  # another one took the last
                break
            if process is None or process.poll() is not None:
                process = hire(worker)
                hired.append(process)
            begin, error = time.monotonic(), answer(process, ask)
            if error and not caught:
                failed.append(job)
                say(f"{job.folder}: failed: {error}")
            elif not error:
                say(f"{job.folder}: {time.monotonic() - begin:.0f} s, {len(waiting)} waiting")
        if process is not None:
            process.communicate()

    before = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    threads = [threading.Thread(target=tend) for _ in range(min(workers, len(waiting)))]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for process in hired if caught else ():
                process.terminate()
            time.sleep(0.5)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise SystemExit(128 + caught[0])
    return failed


def hire(worker: Sequence[str]) -> subprocess.Popen[str]:
    """Start a worker, in a session of its own: a Ctrl-C in the terminal reaches it through ``run`` alone."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(worker, text=True, start_new_session=True, **pipes)


def answer(process: subprocess.Popen[str], ask: dict[str, Any]) -> str | None:
    """A worker's answer to a job: None, or what went wrong."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(ask) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    return json.loads(line)["error"] if line else f"its process ended ({process.wait()})"


def cost(folder: Path) -> dict[str, float]:
    """The seconds of a run's steps, and of what the prior took of them, from its own log."""
    log = Run.open(folder).read_log()
    return {key: round(sum(line.get(key) or 0.0 for line in log), 2) for key in ("seconds", "seconds_prior")}
