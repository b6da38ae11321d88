"""Many assets at once: ``python benchmarks/batch.py --out runs/batch-benchmark``.

Rows: the local crew with 1, 2 and 4 workers; the same workers with one served prior (needs the extra 'batch'); a simulated
cluster of two nodes, one of which is killed when half of the assets are there. Each row tells assets per hour, its share of
linear (the first row's speed times the workers), the workers' peak memory, and how many assets have exactly the tensors of the
first row. 'traffic' measures bytes, and ``--nodes`` puts them into the paper model of docs/many-runs.md.

Rows that are in the result are not made again (delete them there), and runs go on where they were stopped. The result is
``results/batch.json``. The defaults are 32 assets of a few steps; timings mean something on an idle machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jobs import Job, Lines, choose_prompts, folder_of
from kills import SETTINGS
from machine import provenance

from dreamfusion.batch import jobs as batch_jobs
from dreamfusion.batch.crew import Hired, make_all
from dreamfusion.cost.meter import read_parts, total
from dreamfusion.errors import UserError
from dreamfusion.files import write_atomic
from dreamfusion.run import Run

RESULT = Path(__file__).parent / "results" / "batch.json"
Figures = dict[str, Any]


class Clock:
    """Seconds of work on a row, over all sessions."""

    def __init__(self, folder: Path):
        self.path = folder / "seconds.json"
        self.before: float = json.loads(self.path.read_text()) if self.path.exists() else 0.0
        self.begin = time.monotonic()

    def stop(self) -> float:
        """All seconds so far, which are kept."""
        seconds = self.before + time.monotonic() - self.begin
        write_atomic(self.path, json.dumps(seconds).encode())
        return seconds


class Killer(Lines):
    """Acts once, when so many assets are made."""

    def __init__(self, say: Callable[[str], None], at: int, act: Callable[[], None]):
        super().__init__(say)
        self.at, self.act, self.made_count, self.lost = at, act, 0, 0

    def made(self, job: batch_jobs.Job, seconds: float, waiting: int) -> None:
        super().made(job, seconds, waiting)
        self.made_count += 1
        if self.made_count == self.at:
            threading.Thread(target=self.act).start()

    def failed(self, job: batch_jobs.Job, error: str, again: bool) -> None:
        super().failed(job, error, again)
        self.lost += again


def jobs_of(folder: Path, prompts: Sequence[str], settings: dict[str, Any]) -> list[Job]:
    """A job for each prompt."""
    return [Job(folder_of(folder, prompt), prompt, settings=settings) for prompt in prompts]


def make(
    folder: Path, jobs: Sequence[Job], workers: int, watch: Lines, hire: Callable[[], Hired] | None = None
) -> Figures:
    """Make what is missing; the row's figures. SystemExit when stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(folder)
    missing = [job for job in jobs if job.ask()]
    result = make_all(missing, workers, watch, retries=2, log=folder / "workers.log", hire=hire)
    seconds = clock.stop()
    if result.signal:
        raise SystemExit(128 + result.signal)
    memory = [total(read_parts(job.folder))["peak_mb"] for job in jobs if read_parts(job.folder)]
    return {
        "workers": workers, "assets": len(jobs) - len(result.failed), "failed": len(result.failed), "seconds": round(seconds, 1),
        "per_hour": round(3600 * (len(jobs) - len(result.failed)) / seconds, 1),
        "peak_mb": round(statistics.median(memory)) if memory else None,
    }  # fmt: skip


def crew(out: Path, prompts: Sequence[str], workers: int) -> Figures:
    """The local crew, each run with a prior of its own process."""
    folder = out / f"crew-{workers}"
    return make(folder, jobs_of(folder, prompts, SETTINGS), workers, Lines(print))


def served(out: Path, prompts: Sequence[str], workers: int) -> Figures:
    """The local crew, and one served prior."""
    from dreamfusion import __version__
    from dreamfusion.priors.prior_client import ADDRESS, PriorClient
    from dreamfusion.priors.wire import Message
    from dreamfusion.ray_cluster import free_ports
    from dreamfusion.serving import prior_server

    folder, (port,) = out / f"served-{workers}", free_ports(1)
    with prior_server.served(prior_server.Serving(port=port, batch=workers)):
        os.environ[ADDRESS] = f"127.0.0.1:{port}"
        jobs = jobs_of(folder, prompts, SETTINGS | {"prior.id": "ray://"})
        figures = make(folder, jobs, workers, Lines(print))
        counts = PriorClient("ray://").ask(Message({"do": "counts", "version": __version__, "sha256": ""}, {})).page
    kept = ("questions", "calls", "occupancy", "together", "seconds")
    return figures | {"prior": {key: counts[key] for key in kept}}


def cluster(out: Path, prompts: Sequence[str], nodes: int) -> Figures:
    """A simulated cluster with a worker a node; a node is killed when half of the assets are there."""
    from dreamfusion.batch.ray_crew import ray_crew
    from dreamfusion.ray_cluster import simulated

    folder = out / f"cluster-{nodes}"
    folder.mkdir(parents=True, exist_ok=True)
    with simulated(nodes) as found, ExitStack() as inside:
        jobs = jobs_of(folder, prompts, SETTINGS)
        hired = inside.enter_context(ray_crew(found.address, jobs, 0, folder))
        victim = next(iter(found.worker_nodes))
        watch = Killer(print, len(prompts) // 2, lambda: found.remove_node(victim, allow_graceful=False))
        figures = make(folder, jobs, hired.workers, watch, hired.hire)
    return figures | {"nodes": nodes, "killed": int(watch.made_count >= watch.at), "tried_again": watch.lost}


def exact(out: Path, row: str, prompts: Sequence[str]) -> Figures:
    """Of a row's assets: how many have bit by bit the tensors of the first row, and the largest difference of one."""
    count, most = 0, 0.0
    for prompt in prompts:
        mine, first = (Run.open(folder_of(out / r, prompt)).load_checkpoint()[0] for r in (row, "crew-1"))
        scene = [key for key in first if key.startswith("scene.")]
        count += all(torch.equal(mine[key], first[key]) for key in first)
        most = max([most, *(float((mine[key].double() - first[key].double()).abs().max()) for key in scene)])
    return {"exact": count, "largest_difference": most}


def traffic(out: Path, presets: Sequence[str]) -> Figures:
    """Bytes of presets, at their own sizes."""
    from traffic import folder_bytes, question_bytes

    return {p: question_bytes(p) | folder_bytes(p, out / "traffic" / p) for p in presets}


def print_model(page: Figures, nodes: int, runs_each: int, seconds_per_step: float, checkpoint_seconds: float) -> None:
    """The paper model for so many nodes; ``checkpoint_seconds`` 0: those of the preset."""
    from traffic import model

    from dreamfusion.settings.presets import resolve

    for preset, figures in page["rows"]["traffic"].items():
        config = resolve(preset, {}, "x")
        often = checkpoint_seconds or config.run.checkpoint_seconds
        run = {"steps": config.steps, "seconds_per_step": seconds_per_step, "checkpoint_seconds": often}
        print(
            f"{preset}, {nodes} nodes with {runs_each} runs each, {seconds_per_step:g} s a step, a checkpoint in {often:g} s:"
        )
        for name, value in model(figures, run, nodes, runs_each).items():
            print(f"  {name:22} {value:,.1f}" + (f" ({value / 1e6:,.1f} MB/s)" if name in ("storage", "prior") else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--assets", type=int, default=32, help="assets a row, 1 to 153")
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers")
    parser.add_argument("--rows", default="crew,served,cluster,traffic", help="kinds of rows")
    parser.add_argument("--presets", default="fast,balanced", help="presets whose bytes are measured")
    parser.add_argument("--nodes", type=int, default=0, help="print the paper model for so many nodes")
    parser.add_argument("--runs-each", type=int, default=16, help="runs at a time on a node of the model")
    parser.add_argument("--seconds-per-step", type=float, default=0.33, help="seconds a step in the model")
    parser.add_argument("--checkpoint-seconds", type=float, default=0, help="in the model, instead of the preset's")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(sys.path[1:]))  # for the processes of a cluster
    prompts = choose_prompts(str(args.assets))
    page: Figures = json.loads(args.result.read_text()) if args.result.exists() else {}
    about = {"what": "batch", "assets": args.assets, "settings": {k: str(v) for k, v in SETTINGS.items()}}
    if any(page.get(key, value) != value for key, value in about.items()):
        raise SystemExit(
            f"batch: error: {args.result} is of other assets or settings; move it away, or name another --result"
        )
    page |= about | {"rows": page.get("rows", {})}
    rows: dict[str, Callable[[], Figures]] = {}
    counts = [int(text) for text in args.workers.split(",")]
    rows |= {f"crew-{n}": partial(crew, args.out, prompts, n) for n in counts}
    rows |= {f"served-{n}": partial(served, args.out, prompts, n) for n in counts}
    rows |= {"cluster-2": lambda: cluster(args.out, prompts, 2)}
    rows |= {"traffic": lambda: traffic(args.out, args.presets.split(","))}
    for name, work in rows.items():
        if name.partition("-")[0] in args.rows.split(",") and name not in page["rows"]:
            figures = work()
            if name != "traffic":
                base = page["rows"].get("crew-1", figures)["per_hour"]
                figures["of_linear"] = round(figures["per_hour"] / (base * figures["workers"]), 3)
                if "crew-1" in page["rows"] and not figures["failed"]:
                    figures |= exact(args.out, name, prompts)
            page["rows"][name] = figures
            args.result.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(args.result, (json.dumps(page | provenance(), indent=1) + "\n").encode())
        if name in page["rows"]:
            print(name, json.dumps(page["rows"][name]))
    if args.nodes and "traffic" in page["rows"]:
        print_model(page, args.nodes, args.runs_each, args.seconds_per_step, args.checkpoint_seconds)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"batch: error: {error}")
