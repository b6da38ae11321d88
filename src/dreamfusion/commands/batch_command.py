"""``dreamfusion batch``: an asset of each line of a file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..files import locked, make_folder, write_atomic
from ..paths import check_file, check_folder, user_path
from ..settings.options import add_settings, given_settings
from .option_values import whole

if TYPE_CHECKING:
    from ..batch.crew import Hired
    from ..batch.jobs import Job

MOST_ON_RAY = 16384
"""Most runs at a time on a Ray cluster: each has a thread here, which waits for its node."""
WORKER_MB = 1500
"""Memory that one more worker may need; there are no more workers than fit, unless they are asked for."""


def options(parser: argparse.ArgumentParser) -> None:
    """A list of prompts, a folder, how many runs at a time, and every setting."""
    parser.add_argument("prompts", metavar="FILE", help="prompts: a text file (one a line), a .csv or a .yaml")
    parser.add_argument("--out", metavar="FOLDER", help="the folder that holds the runs; needed")
    parser.add_argument("--preset", metavar="NAME", help="preset of the lines that name none [balanced]")
    parser.add_argument("--workers", metavar="N", help="runs at a time [one a core, as far as memory goes; 1 on a GPU]")
    parser.add_argument(
        "--retries", default="2", metavar="N", help="how often a run is tried again whose process ended [%(default)s]"
    )
    ray = "make the runs on a Ray cluster: 'auto' the one of this machine, HOST:PORT of its head, 'local' one just for this"
    parser.add_argument("--ray", metavar="WHERE", help=ray)
    from ..settings.presets import load_preset

    parser.usage = "dreamfusion batch FILE --out FOLDER [options]"
    parser.epilog = "Settings on the command line hold for all lines; what a line says itself counts more."
    add_settings(parser, load_preset())


def act(given: argparse.Namespace) -> int:
    """Make all assets of a list. 0 if all are there at the end, 1 if some failed, 128 + signal if it was stopped."""
    from ..batch.board import Board
    from ..batch.crew import make_all
    from ..batch.overview import overview
    from ..batch.prompt_list import read_jobs
    from ..display import clock
    from ..ray_cluster import check_address

    if given.ray is not None:
        check_address(given.ray)
    settings: dict[str, str] = given_settings(given)
    retries = whole("--retries", given.retries, 0, 100)
    asked = whole("--workers", given.workers, 1, MOST_ON_RAY if given.ray else 1024) if given.workers else 0
    if not given.out:
        raise UserError("--out names the folder that holds the runs; for example --out runs/set")
    out = user_path(given.out)
    jobs = read_jobs(given.prompts, out, given.preset or "balanced", settings)
    check_folder(out)
    check_file(out / "index.html")
    states = {job.folder: job.state() for job in jobs}
    broken = [job for job in jobs if states[job.folder][0] == "broken"]
    todo = [job for job in jobs if states[job.folder][0] != "finished"]
    there = [job for job in jobs if states[job.folder][0] in ("finished", "stopped")]
    by_hand = {job.folder: lines for job in there if (lines := job.changed_by_hand())}
    begin = time.monotonic()
    make_folder(out)
    with locked(out), hired(given.ray, todo, asked, out) as (todo, workers, hire):
        for job in broken:
            aside = job.set_aside()
            print(f"{job.folder} is broken ({states[job.folder][1]}); it is now {aside}", file=sys.stderr)
        print(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them finished, {workers} at a time", file=sys.stderr)
        with Board({job.folder: job.steps() - (job.steps_done() or 0) for job in todo}) as board:
            result = make_all(todo, workers, board, retries=retries, log=out / "workers.log", hire=hire)
        for log in out.glob("workers*.log"):
            if not log.stat().st_size:
                log.unlink()
        write_atomic(out / "index.html", overview(Path(given.prompts).stem, jobs, result.failed, out).encode())
    made = len(jobs) - len(todo) + board.made_count
    given.output.say(
        f"{clock(time.monotonic() - begin)} min, {made} of {len(jobs)} assets, {len(result.failed)} failed"
    )
    for folder, why in result.failed.items():
        given.output.say(f"  {folder}: {why}")
    for folder, lines in by_hand.items():
        given.output.say(f"  {folder} is as somebody changed it while it was stopped: {', '.join(lines)}")
    given.output.file(out / "index.html")
    failures = {str(folder): why for folder, why in result.failed.items()}
    given.output.note(folder=str(out), assets=made, wanted=len(jobs), workers=workers, failed=failures)
    given.output.note(changed={str(folder): lines for folder, lines in by_hand.items()})
    if result.signal:
        print(f"dreamfusion: stopped (signal {result.signal}); the same command goes on", file=sys.stderr)
        return 128 + result.signal
    return 1 if result.failed else 0


@contextmanager
def hired(
    cluster: str | None, jobs: list[Job], asked: int, out: Path
) -> Iterator[tuple[list[Job], int, Callable[[], Hired] | None]]:
    """The jobs with their threads, how many are made at a time, and who hires the workers: this machine's crew (None), or that
    of a Ray cluster."""
    if cluster and jobs:
        from ..batch.ray_crew import ray_crew

        with ray_crew(cluster, jobs, asked, out) as found:
            yield found.jobs, found.workers, found.hire
    else:
        from ..batch.jobs import with_threads

        workers = min(asked or usual_workers(jobs), max(len(jobs), 1))
        yield [with_threads(job, max(cores() // workers, 1)) for job in jobs], workers, None


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_workers(jobs: Sequence[Job]) -> int:
    """One worker a core, as far as the free memory goes; one where a GPU does the work."""
    devices = {job.config.device for job in jobs}
    if any(d.startswith("cuda") for d in devices) or ("auto" in devices and Path("/proc/driver/nvidia").exists()):
        return 1
    return max(1, min(cores(), int(free_memory_mb() / WORKER_MB)))


def free_memory_mb() -> float:
    """Memory that is free for new processes; infinite where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1e3
    except (OSError, ValueError):
        pass
    return float("inf")
