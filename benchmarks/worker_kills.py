"""Workers that are killed by SIGKILL at random moments, for ``kills.py``: those of a local batch, and that of a running studio.

Each run loses its worker once, at a moment between the appearance of its folder and the end of its export. In a batch the crew
tries it again. In the studio it is resumed through the REST interface.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count as numbers
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from jobs import Lines

from dreamfusion.batch import jobs
from dreamfusion.batch.crew import WORKER, Worker, make_all
from dreamfusion.ray_cluster import free_ports
from dreamfusion.run import CHECKPOINT, CONFIG, META

PROMPT = "a red chair"
PATIENCE = 900.0
"""Seconds to wait for anything, on a busy machine."""
PAUSE = 0.01
MOMENTS = ("before the first checkpoint", "in the steps", "in the export")

Exact = Callable[[Path], bool]
"""Whether a run ended as one that was left alone."""


def moment_of(run: Path, steps: int) -> str:
    """How far a killed run is, by its checkpoint: one of ``MOMENTS``."""
    path = run / CHECKPOINT / META
    if not path.exists():
        return MOMENTS[0]
    return MOMENTS[1 + (json.loads(path.read_bytes())["state"]["step"] == steps)]


def life_of(run: Path) -> float:
    """Seconds from a finished run's first file to its last."""
    times = [path.stat().st_mtime for path in run.rglob("*") if path.is_file()]
    return max(times) - min(times)


def until(true: Callable[[], Any]) -> Any:
    """Wait for something that is true, and return it. TimeoutError if it takes too long."""
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        if time.monotonic() > end:
            raise TimeoutError("nothing happens any more")
        time.sleep(PAUSE)
    return found


def tally(moments: dict[Path, str], exact: Exact) -> dict[str, Any]:
    """The result of one kind of workers: ``moments`` says when each run was killed."""
    failed = [run.name for run in moments if not exact(run)]
    seen = Counter(moments.values())
    return {
        "trials": len(moments), "exact": len(moments) - len(failed), "failed": failed, "moments": {m: seen[m] for m in MOMENTS}
    }  # fmt: skip


class Killer(Lines):
    """Kills the worker of each job once. The crew has one worker at a time."""

    def __init__(
        self, rng: random.Random, life: float, steps: int, command: Sequence[str] = WORKER, log: Path | None = None
    ):
        """``life``: seconds that a run usually takes; it is killed after a random part of them."""
        super().__init__(print)
        self.rng, self.life, self.steps, self.command, self.log = rng, life, steps, command, log
        self.moments: dict[Path, str] = {}
        self.over: dict[Path, threading.Event] = {}
        self.newest: Worker | None = None

    def hire(self) -> Worker:
        """A new worker for the crew."""
        self.newest = Worker(self.command, self.log)
        return self.newest

    def begun(self, job: jobs.Job) -> None:
        assert self.newest is not None
        self.over[job.folder] = threading.Event()
        if job.folder not in self.moments:
            what = (self.newest.process, job.folder, self.rng.uniform(0, self.life), self.over[job.folder])
            threading.Thread(target=self._kill, args=what, daemon=True).start()

    def _kill(self, process: subprocess.Popen[str], run: Path, seconds: float, over: threading.Event) -> None:
        while not (run / CONFIG).exists() and not over.is_set():
            time.sleep(PAUSE)
        if not over.wait(seconds):
            process.kill()

    def made(self, job: jobs.Job, seconds: float, waiting: int) -> None:
        super().made(job, seconds, waiting)
        self.over[job.folder].set()

    def failed(self, job: jobs.Job, error: str, again: bool) -> None:
        super().failed(job, error, again)
        self.over[job.folder].set()
        if "SIGKILL" in error:
            self.moments[job.folder] = moment_of(job.folder, self.steps)


def batch_workers(count: int, rng: random.Random, place: Path, settings: dict[str, Any], exact: Exact) -> dict[str, Any]:  # fmt: skip
    """Kill the workers of a batch until so many of its runs have lost theirs; the crew resumes them."""
    log, named = place / "workers.log", numbers()

    def make(killer: Killer, runs: int) -> None:
        made = [jobs.Job(place / f"{next(named)}", PROMPT, settings=settings) for _ in range(runs)]
        if stopped := make_all(made, 1, killer, retries=2, hire=killer.hire).signal:
            raise SystemExit(128 + stopped)

    alone = Killer(rng, PATIENCE, settings["steps"], log=log)
    make(alone, 1)
    assert exact(place / "0"), f"a batch makes another asset than generate: {log}"
    killer = Killer(rng, life_of(place / "0"), settings["steps"], log=log)
    while (missing := count - len(killer.moments)) > 0:  # a run that ends before its moment comes does not count
        make(killer, missing)
    return tally(killer.moments, exact)


class Studio:
    """A studio's server in a process of its own, asked through its REST interface."""

    def __init__(self, root: Path):
        (port,) = free_ports(1)
        self.root, self.address = root, f"http://127.0.0.1:{port}"
        command = (sys.executable, "-m", "dreamfusion", "studio", "--folder", str(root), "--port", str(port))
        with root.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen((*command, "--threads", "1"), stdout=log, stderr=log)
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.root.with_suffix(".log").read_text()
        try:
            return self.ask("/runs") == []
        except OSError:
            return False

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer to GET, or to POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.address + path, data, {"content-type": "application/json"}), timeout=60) as answer:
            return json.load(answer)

    def begin(self, settings: dict[str, Any]) -> Path:
        """Put a run into the queue; its folder, which is not there yet."""
        given = {name: value for name, value in settings.items() if name != "threads"}  # the server has them
        return self.root / str(self.ask("/runs", {"prompt": PROMPT, "settings": given})["id"])

    def state(self, run: Path) -> str:
        """'queued', 'running', 'failed', 'stopped' or 'done'."""
        return str(self.ask(f"/runs/{run.name}")["state"])

    def ended(self, run: Path) -> str:
        """Wait until the run is in progress no more; its state then."""
        return str(until(lambda: (now := self.state(run)) not in ("queued", "running", "stopping") and now))

    def workers(self) -> list[int]:
        """Its child processes."""
        table = subprocess.check_output(["ps", "-A", "-o", "ppid=,pid="], text=True)
        pairs = [[int(word) for word in line.split()] for line in table.splitlines()]
        return [pid for parent, pid in pairs if parent == self.process.pid]

    def close(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait()


def studio_workers(count: int, rng: random.Random, place: Path, settings: dict[str, Any], exact: Exact) -> dict[str, Any]:  # fmt: skip
    """Kill the worker of a studio in so many runs, and resume each run through the REST interface."""
    studio, moments = Studio(place / "studio"), dict[Path, str]()
    try:
        alone = studio.begin(settings)
        assert studio.ended(alone) == "done" and exact(alone), "the studio makes another asset than generate"
        life = life_of(alone)
        while len(moments) < count:
            run = studio.begin(settings)
            until(lambda run=run: (run / CONFIG).exists())
            time.sleep(rng.uniform(0, life))
            for pid in studio.workers():
                os.kill(pid, signal.SIGKILL)
            if studio.ended(run) == "done":
                continue  # it has ended before its moment came
            moments[run] = moment_of(run, settings["steps"])
            studio.ask(f"/runs/{run.name}/resume", {})
            print(f"{run.name}: killed {moments[run]}, then {studio.ended(run)}", flush=True)
    finally:
        studio.close()
    return tally(moments, exact)
