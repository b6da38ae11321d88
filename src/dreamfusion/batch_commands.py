"""What the commands about many runs do."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .commands import whole
from .errors import UserError
from .files import locked, make_folder, write_atomic
from .paths import check_file, check_folder, user_path
from .settings.options import given_settings

if TYPE_CHECKING:
    from .batch.crew import Hired
    from .batch.jobs import Job

MOST_ON_RAY = 16384
"""Most runs at a time on a Ray cluster: each has a thread here, which waits for its node."""
WORKER_MB = 1500
"""Memory that one more worker may need; there are no more workers than fit, unless they are asked for."""


def batch(given: argparse.Namespace) -> int:
    """Make all assets of a list. 0 if all are there at the end, 1 if some failed, 128 + signal if it was stopped."""
    from .batch.board import Board
    from .batch.crew import make_all
    from .batch.overview import overview
    from .batch.prompt_list import read_jobs
    from .display import clock
    from .ray_cluster import check_address

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
    begin = time.monotonic()
    make_folder(out)
    with locked(out), hired(given.ray, todo, asked, out) as (todo, workers, hire):
        for job in broken:
            aside = job.set_aside()
            print(f"{job.folder} is broken ({states[job.folder][1]}); it is now {aside}", file=sys.stderr)
        print(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them finished, {workers} at a time", file=sys.stderr)
        with Board({job.folder: job.steps - (job.steps_done() or 0) for job in todo}) as board:
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
    given.output.file(out / "index.html")
    failures = {str(folder): why for folder, why in result.failed.items()}
    given.output.note(folder=str(out), assets=made, wanted=len(jobs), workers=workers, failed=failures)
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
        from .batch.ray_crew import ray_crew

        with ray_crew(cluster, jobs, asked, out) as found:
            yield found.jobs, found.workers, found.hire
    else:
        from .batch.jobs import with_threads

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


def cost(given: argparse.Namespace) -> int:
    """What runs have cost: a table, and the sum."""
    from .batch.cost_report import as_figures, find_costs, table
    from .settings.names import changed
    from .settings.presets import resolve

    wanted = {f"cost.{name}": getattr(given, name) for name in ("kwh_price", "hour_price", "currency")}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    prices = changed(resolve(prompt="x"), wanted).cost if wanted else None
    costs = find_costs(given.runs or ["runs"])
    if not any(cost.parts for cost in costs):
        raise UserError(f"none of the {len(costs)} runs has a record of its cost; runs of earlier versions have none")
    given.output.say(table(costs, prices))
    given.output.note(**as_figures(costs, prices))
    return 0


def serve_prior(given: argparse.Namespace) -> int:
    """Serve a prior to many runs until a signal comes."""
    from .commands import number
    from .priors.prior_client import TOKEN
    from .ray_cluster import check_address
    from .serving.prior_server import LOOPBACK, Serving, served, token_for, until_signal

    check_address(given.ray)
    if given.memory not in ("auto", "fast", "low", "lowest"):
        raise UserError(f"--memory {given.memory} is not allowed; choose auto, fast, low or lowest")
    if given.precision not in ("auto", "float32", "bfloat16", "float16"):
        raise UserError(f"--precision {given.precision} is not allowed; choose auto, float32, bfloat16 or float16")
    serving = Serving(
        given.prior, given.host, whole("--port", given.port, 1, 65535),
        whole("--batch", given.batch, 1, 1024), number("--wait-ms", given.wait_ms, 0, 10_000),
        whole("--rows", given.rows, 0, 65536), whole("--queue", given.queue, 1, 1_000_000),
        number("--timeout", given.timeout, 1, 110), whole("--replicas", given.replicas, 1, 1024),
        whole("--threads", given.threads, 1, 1024), number("--gpus", given.gpus, 0, 16),
        given.device, given.precision, given.memory, token_for(given.host),
    )  # fmt: skip
    with served(serving, given.ray) as hello:
        shown = f"[{serving.host}]" if ":" in serving.host else serving.host
        address = f"ray://{shown}:{serving.port}"
        given.output.say(f"{hello['id']} (SHA-256 {hello['sha256'][:12]}…) for --prior.id {address}  (Ctrl-C ends it)")
        if serving.host not in LOOPBACK:
            given.output.say(f"askers need {TOKEN}={serving.token}")
        given.output.note(address=address, **hello)
        sys.stdout.flush()
        stopped = until_signal()
    print(f"dreamfusion: stopped (signal {stopped})", file=sys.stderr)
    return 128 + stopped


def studio(given: argparse.Namespace) -> int:
    """Serve the studio's page until a signal comes."""
    import secrets

    port = whole("--port", given.port, 1, 65535)
    threads = whole("--threads", given.threads, 0, 1024)
    root = user_path(given.folder)
    try:
        import uvicorn

        from .studio.desk import HIDDEN, Desk
        from .studio.guard import LOOPBACK
        from .studio.web import make_app
    except ImportError as error:
        raise UserError(f"the studio needs {error.name}; install it with: pip install 'dreamfusion[studio]'") from None
    here = given.host in LOOPBACK
    token = "" if here else secrets.token_urlsafe(24)
    desk = Desk(root, threads)
    with locked(root / HIDDEN):
        app = make_app(desk, LOOPBACK if here else (), token)
        shown = f"[{given.host}]" if ":" in given.host else given.host
        address = f"http://{shown}:{port}/{f'?token={token}' if token else ''}"
        settings = uvicorn.Config(
            app, given.host, port, log_level="warning", timeout_graceful_shutdown=2, server_header=False
        )
        server = uvicorn.Server(settings)
        desk.start()
        try:
            given.output.say(f"studio of {root}: {address}  (Ctrl-C ends it)")
            sys.stdout.flush()
            server.run()
        except SystemExit:  # uvicorn has said why
            raise UserError(f"cannot listen at {given.host}:{port}; choose another --port, or --host") from None
        finally:
            desk.close()
    return 0
