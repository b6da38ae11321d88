"""The crew of a batch on a Ray cluster: each run is a task, on whichever node has room for it.

The task keeps a worker's process (``worker``) on its node and hands on what it says. So a run is made there by the same
code, with the same answers, as on one machine. If the node dies, the task is lost, and ``crew.make_all`` asks for the run again:
it goes on from its checkpoint, elsewhere. The retries are the crew's own, Ray does none, so that they are counted once.
If the task alone dies, its worker notices the end of its input, writes a checkpoint and ends.

All nodes must see the folder of the batch at the same path, and have this version of the package.
"""

from __future__ import annotations

import os
import platform
import queue
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from ..files import write_atomic
from ..ray_cluster import connected
from . import crew
from .crew import Worker
from .jobs import Job, with_threads

PASSED_ON = ("DREAMFUSION_CACHE", "DREAMFUSION_PRIOR", "DREAMFUSION_PRIOR_TOKEN")
"""Variables of the environment that hold on the nodes too, where they are set."""
MESSAGES, HEARTBEATS = 200, 2000
"""What the driver hears in a second at most, however many runs there are. A task speaks even if its run has nothing to say,
once a second or less often: Ray cancels a task when it speaks."""
NODE_SECONDS = 600.0
"""Longest time for a node to answer whether it sees the folder."""
MEMORY_MB = 1500
"""Memory that a run is given a place for."""


@dataclass(frozen=True)
class Site:
    """What a node needs to know besides the job: the folder of the batch, a file in it that tells that it is shared, and variables
    of the environment. ``heartbeat``: seconds after which a task speaks."""

    out: str
    mark: str
    version: str
    variables: dict[str, str]
    heartbeat: float = 1.0

    def trouble(self) -> str:
        """Why this node cannot take part; '' if it can."""
        if self.version != __version__:
            return f"the node {platform.node()} has dreamfusion {__version__}, and the batch is of {self.version}"
        if not os.path.exists(os.path.join(self.out, self.mark)):
            return f"the node {platform.node()} does not see {self.out}; put --out into a folder that all nodes share"
        return ""


def make_on_node(site: Site, command: Sequence[str], ask: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """On a node: what a worker says about a job, and its answer last. The worker's process stays for the next task."""
    if trouble := site.trouble():
        yield {"error": trouble, "kind": "node"}
        return
    os.environ.update(site.variables)
    own = _worker(tuple(command), Path(site.out) / f"workers-{platform.node()}.log")
    said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: said.put(own.make(ask, said.put)), daemon=True)
    thread.start()
    answered = False
    try:
        while not answered:
            try:
                message = said.get(timeout=site.heartbeat)
            except queue.Empty:
                message = {}
            answered = "error" in message
            yield message
    finally:
        if not answered:  # the task is cancelled
            own.stop()
            thread.join()


_KEPT: dict[tuple[str, ...], Worker] = {}
"""The worker of this process, by its command."""


def _worker(command: tuple[str, ...], log: Path) -> Worker:
    if command not in _KEPT or not _KEPT[command].alive:
        _KEPT[command] = Worker((sys.executable, *command), log)
    return _KEPT[command]


class RayWorker:
    """A place in a cluster at which one run at a time is made; a ``crew.Hired``."""

    alive = True

    def __init__(self, ray: Any, site: Site, gpus: int, every: float):
        """``gpus``: those of a run; ``every``: seconds between two messages of a run."""
        self.ray, self.site, self.gpus, self.every = ray, site, gpus, every
        self.task = ray.remote(make_on_node)
        self.running: Any = None
        self.stopped = False

    def make(self, ask: dict[str, Any], heard: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """As ``Worker.make``. kind "end" also where the node died, and "node" where it cannot take part."""
        ask = ask | {"folder": os.path.abspath(ask["folder"]), "every": self.every}
        room = {"num_cpus": int(ask["settings"]["threads"]), "num_gpus": self.gpus, "memory": MEMORY_MB * 1_000_000}
        task = self.task.options(**room, max_retries=0, num_returns="streaming")
        try:
            self.running = task.remote(self.site, tuple(crew.WORKER[1:]), ask)
            if self.stopped:
                self.ray.cancel(self.running)
            for reference in self.running:
                message = self.ray.get(reference)
                if "error" in message:
                    return message
                heard(message)
        except self.ray.exceptions.RayError as error:
            return {"error": f"its node or its task was lost ({_first_line(error)})", "kind": "end"}
        return {"error": "its task ended without an answer", "kind": "end"}

    def stop(self) -> None:
        """Let the run write a checkpoint and end; a run that waits for a place does not begin."""
        if not self.stopped:
            self.stopped = True
            self._cancel(force=False)

    def close(self) -> None:
        """Nothing is left to do: its task has ended."""

    def kill(self) -> None:
        """End the task at once."""
        self._cancel(force=True)

    def _cancel(self, force: bool) -> None:
        if self.running is not None:
            with suppress(self.ray.exceptions.RayError, ValueError):
                self.ray.cancel(self.running, force=force)


def _first_line(error: Exception) -> str:
    """The first sentence of what Ray says, which goes on for pages; the kind of error where our own code failed."""
    name = type(error).__name__.partition("(")[0]
    if name == "RayTaskError":
        return name
    return next((line.strip() for line in str(error).splitlines() if line.strip()), name).partition(". ")[0]


@dataclass(frozen=True)
class RayCrew:
    """The jobs with their threads, how many are made at a time, and how to hire a worker."""

    jobs: list[Job]
    workers: int
    hire: Callable[[], RayWorker]


@contextmanager
def ray_crew(where: str, jobs: Sequence[Job], asked: int, out: Path) -> Iterator[RayCrew]:
    """A crew on the cluster ``where`` (``ray_cluster.connected``) for jobs in the folder ``out``, which is there.

    A run takes as many of a node's CPUs as it has threads, by default one, and a GPU if its device is one. ``asked``: runs at a time,
    0 for as many as fit. UserError if a node does not see the folder or has another version, or if no node has room for a run.
    """
    given = {int(job.settings.get("threads", 1)) for job in jobs}
    if 0 in given:
        raise UserError("threads=0 takes all cores of whichever node; with --ray, say how many a run shall have")
    jobs = [with_threads(job, 1) for job in jobs]
    with connected(where) as ray:
        devices = {job.config.device for job in jobs}
        has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
        gpus = int(any(d.startswith("cuda") for d in devices) or ("auto" in devices and has_gpus))
        room = places(ray.nodes(), max(given, default=1), gpus)
        if jobs and not room:
            what = f"{max(given, default=1)} CPUs, {gpus} GPUs and {MEMORY_MB} MB"
            raise UserError(f"no node of the cluster has room for a run: {what}; lower --threads, or add nodes")
        workers = min(asked or room, max(len(jobs), 1))
        mark = f".shared-{secrets.token_hex(8)}"
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        site = Site(os.path.abspath(out), mark, __version__, variables, max(1.0, workers / HEARTBEATS))
        write_atomic(out / mark, b"")
        try:
            check_nodes(ray, site)
            yield RayCrew(jobs, workers, lambda: RayWorker(ray, site, gpus, max(0.5, workers / MESSAGES)))
        finally:
            (out / mark).unlink(missing_ok=True)


def places(nodes: Sequence[dict[str, Any]], threads: int, gpus: int) -> int:
    """How many runs of so many threads and GPUs fit on the nodes (``ray.nodes()``) at a time."""
    count = 0
    for has in (node["Resources"] for node in nodes if node["Alive"]):
        fits = [int(has.get("CPU", 0) // threads), int(has.get("memory", 0) // (MEMORY_MB * 1e6))]
        count += min([*fits, int(has.get("GPU", 0) // gpus)] if gpus else fits)
    return count


def check_nodes(ray: Any, site: Site) -> None:
    """Ask every node that has CPUs whether it can take part. UserError if one cannot, or does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(site_trouble)
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[task.options(num_cpus=0, scheduling_strategy=there).remote(site)] = node["NodeManagerAddress"]
    try:
        troubles = [trouble for trouble in ray.get(list(asked), timeout=NODE_SECONDS) if trouble]
    except ray.exceptions.RayError as error:
        _, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        names = ", ".join(asked[reference] for reference in waiting[:3]) or "one"
        raise UserError(
            f"of {len(asked)} nodes of the cluster, {names} cannot take part ({_first_line(error)})"
        ) from None
    if troubles:
        more = f"; {len(troubles)} of {len(asked)} nodes have such a trouble" if len(troubles) > 1 else ""
        raise UserError(troubles[0] + more)


def site_trouble(site: Site) -> str:
    """``Site.trouble`` as a task."""
    return site.trouble()
