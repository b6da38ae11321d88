"""Workers that are killed by SIGKILL at random moments, for ``kills.py``: those of a local batch, and that of a running studio.

Each run loses its worker once, at a moment between the appearance of its folder and the end of its export. In a batch the crew
tries it again. In the studio it is resumed through the REST interface. Workers and the studio's server are processes of their
own, forked from one that has torch, kernels and the prior in memory, so that a trial takes seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count as numbers
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from jobs import Lines

from dreamfusion import cli
from dreamfusion.batch import jobs, worker
from dreamfusion.batch.crew import Worker, make_all
from dreamfusion.ray_cluster import free_ports
from dreamfusion.run import CHECKPOINT, CONFIG, META
from dreamfusion.studio import in_progress

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


def random_moment(rng: random.Random, life: float) -> float:
    """Seconds into a run that takes ``life``. Half of them are in its first quarter, where the steps are."""
    return life * rng.random() ** 2


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


def work() -> None:
    """Be a worker, in a child of this process that has its pipes already, and end."""
    os.closerange(3, 4096)  # Popen waits until the child has closed the last of its own pipes
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        worker.main()
    finally:
        os._exit(0)


class ForkedWorker(Worker):
    """A worker that does not start an interpreter: the child process goes on as ``batch.worker`` and never comes to an exec."""

    def __init__(self, command: Sequence[str] = (), log: Path | None = None):
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with (log or Path(os.devnull)).open("ab") as stderr:
            self.process = subprocess.Popen(
                ("worker",), encoding="utf-8", start_new_session=True, stderr=stderr, preexec_fn=work, **pipes
            )


class Killer(Lines):
    """Kills the worker of each job once. The crew has one worker at a time."""

    def __init__(self, rng: random.Random, life: float, steps: int, new: Callable[[], Worker]):
        """``life``: seconds that a run usually takes; it is killed after a random part of them. ``new`` makes a worker."""
        super().__init__(partial(print, flush=True))
        self.rng, self.life, self.steps, self.new = rng, life, steps, new
        self.moments: dict[Path, str] = {}
        self.over: dict[Path, threading.Event] = {}
        self.newest: Worker | None = None

    def hire(self) -> Worker:
        """A new worker for the crew."""
        self.newest = self.new()
        return self.newest

    def begun(self, job: jobs.Job) -> None:
        assert self.newest is not None
        self.over[job.folder] = threading.Event()
        if job.folder not in self.moments:
            what = (self.newest.process, job.folder, random_moment(self.rng, self.life), self.over[job.folder])
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
    new = partial(ForkedWorker, log=log)

    def make(killer: Killer, runs: int) -> None:
        made = [jobs.Job(place / f"{next(named)}", PROMPT, settings=settings) for _ in range(runs)]
        if stopped := make_all(made, 1, killer, retries=2, hire=killer.hire).signal:
            raise SystemExit(128 + stopped)

    alone = Killer(rng, PATIENCE, settings["steps"], new)
    make(alone, 1)
    assert exact(place / "0"), f"a batch makes another asset than generate: {log}"
    killer = Killer(rng, life_of(place / "0"), settings["steps"], new)
    while (missing := count - len(killer.moments)) > 0:  # a run that ends before its moment comes does not count
        make(killer, missing)
    return tally(killer.moments, exact)


class Studio:
    """A studio's server in a process of its own, asked through its REST interface."""

    def __init__(self, root: Path):
        (port,) = free_ports(1)
        self.root, self.address = root, f"http://127.0.0.1:{port}"
        in_progress.Worker = ForkedWorker  # type: ignore[misc]
        self.server = os.fork()
        if self.server == 0:
            self._serve(["studio", "--folder", str(root), "--port", str(port), "--threads", "1"])
        until(self._answers)

    def _serve(self, argv: list[str]) -> None:
        with self.root.with_suffix(".log").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        try:
            cli.main(argv)
        finally:
            os._exit(0)

    def _answers(self) -> bool:
        assert os.waitpid(self.server, os.WNOHANG) == (0, 0), self.root.with_suffix(".log").read_text()
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
        return [pid for parent, pid in pairs if parent == self.server]

    def close(self) -> None:
        """End the server."""
        os.kill(self.server, signal.SIGTERM)
        os.waitpid(self.server, 0)


def studio_workers(count: int, rng: random.Random, place: Path, settings: dict[str, Any], exact: Exact) -> dict[str, Any]:  # fmt: skip
    """Kill the worker of a studio in so many runs, and resume each run through the REST interface."""
    studio, moments = Studio(place / "studio"), dict[Path, str]()
    try:
        alone = studio.begin(settings)
        assert studio.ended(alone) == "done" and exact(alone), "the studio makes another asset than generate"
        life = life_of(alone)
        while len(moments) < count:
            run = studio.begin(settings)
            until((run / CONFIG).exists)
            time.sleep(random_moment(rng, life))
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
