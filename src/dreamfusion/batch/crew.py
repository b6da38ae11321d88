"""Processes that make the assets of a batch, several at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError
from ..interrupts import stopped_by_signals
from .jobs import Job

WORKER = (sys.executable, "-m", "dreamfusion.batch.worker")


class Watch:
    """Is told what happens to the jobs, by one thread at a time. This one does not listen."""

    def begun(self, job: Job) -> None:
        """A worker begins a job, or goes on with it."""

    def heard(self, job: Job, message: dict[str, Any]) -> None:
        """A worker says how far it is; see ``worker``."""

    def made(self, job: Job, seconds: float, waiting: int) -> None:
        """A job is done; ``waiting`` others have not begun."""

    def failed(self, job: Job, error: str, again: bool) -> None:
        """A job failed; ``again``: it will be tried once more."""


@dataclass
class Result:
    """What became of a batch: the jobs that failed, each with the reason, and the signal that stopped it (0: none did)."""

    failed: dict[Path, str] = field(default_factory=dict)
    signal: int = 0


class Worker:
    """A worker's process. It has a session of its own: a Ctrl-C in the terminal reaches it through its owner alone."""

    def __init__(self, command: Sequence[str] = WORKER, log: Path | None = None):
        stderr: Any = log.open("ab") if log else subprocess.DEVNULL
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
        self.process = subprocess.Popen(command, encoding="utf-8", start_new_session=True, **pipes)
        if log:
            stderr.close()

    @property
    def alive(self) -> bool:
        """Whether its process has not ended."""
        return self.process.poll() is None

    def make(self, ask: dict[str, Any], heard: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Its answer to a job; ``heard`` is told what it says before. kind "end": its process ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(ask) + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if "error" in (message := _message(line)):
                    return message
                heard(message)
        return {"error": f"its process ended ({_ending(self.process.wait())})", "kind": "end"}

    def look(self, wanted: tuple[float, float] | None) -> None:
        """Have the pictures of its job look from this azimuth and elevation in degrees; None: from changing sides."""
        self._tell({"look": wanted})

    def watch(self, seconds: float) -> None:
        """Have it show what the prior sees, for so long."""
        self._tell({"watch": seconds})

    def _tell(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        """Ask it to write a checkpoint and to end."""
        self.process.terminate()

    def close(self) -> None:
        """Let it end after its job, and wait for that."""
        with suppress(BrokenPipeError, ValueError):
            self.process.communicate()

    def kill(self) -> None:
        """End it at once. Its run loses the steps since its last checkpoint."""
        self.process.kill()
        self.process.wait()


def _message(line: str) -> dict[str, Any]:
    with suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    return {}


def reason(error: Exception) -> str:
    """What went wrong on this side, as a worker says it: one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _ending(code: int) -> str:
    if code >= 0:
        return str(code)
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    return f"{name}, perhaps for lack of memory" if code == -9 else name


class Hired(Protocol):
    """What ``make_all`` asks of a worker: a process of this machine (``Worker``), or one on some node (``ray_crew``)."""

    @property
    def alive(self) -> bool: ...

    def make(self, ask: dict[str, Any], heard: Callable[[dict[str, Any]], None]) -> dict[str, Any]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...

    def kill(self) -> None: ...


def make_all(
    jobs: Sequence[Job],
    workers: int,
    watch: Watch,
    worker: Sequence[str] = (),
    retries: int = 0,
    log: Path | None = None,
    hire: Callable[[], Hired] | None = None,
) -> Result:
    """Make all jobs that are not finished, ``workers`` at a time. ``hire`` finds workers elsewhere than on this machine.

    A run whose process ends, or that fails by a bug, is tried again from its checkpoint, ``retries`` times, after the
    others. A job whose worker does not start is tried again too. A mistake in what was asked is not. Unless a signal stops the batch,
    every job that was not made is among the failed. Call it from the main thread: SIGINT, SIGTERM and SIGHUP are passed on,
    every run writes its checkpoint, and the result tells the signal. A second SIGINT kills the workers.
    """
    waiting = deque(jobs)
    unmade = {job.folder for job in jobs}
    result, tries = Result(), dict.fromkeys(unmade, 0)
    hired: list[Hired] = []
    telling = threading.Lock()

    with stopped_by_signals() as stop:

        def again(job: Job, answer: dict[str, Any]) -> None:
            tries[job.folder] += 1
            more = tries[job.folder] <= retries and answer.get("kind") != "user"
            if more:
                waiting.append(job)
            else:
                result.failed[job.folder] = answer["error"]
            with telling:
                watch.failed(job, answer["error"], more)

        def do(own: Hired, job: Job, ask: dict[str, Any]) -> None:
            def heard(message: dict[str, Any]) -> None:
                with telling:
                    watch.heard(job, message)

            begin = time.monotonic()
            with telling:
                watch.begun(job)
            try:
                answer = own.make(ask, heard)
            except Exception as error:
                own.kill()  # what it says next would be taken for the answer to another job
                answer = {"error": reason(error), "kind": "bug"}
            if answer["error"] is None:
                unmade.discard(job.folder)
                with telling:
                    watch.made(job, time.monotonic() - begin, len(waiting))
            elif not stop.event.is_set():
                again(job, answer)

        def tend() -> None:
            own: Hired | None = None
            while waiting and not stop.event.is_set():
                try:
                    job = waiting.popleft()
                except IndexError:  # another one took the last
                    break
                try:
                    ask = job.ask()
                    if ask is not None and (own is None or not own.alive):
                        own = hire() if hire else Worker(worker or WORKER, log)
                        hired.append(own)
                except UserError as error:
                    again(job, {"error": str(error), "kind": "user"})
                    continue
                except Exception as error:  # it would end this thread, and nobody would miss the job
                    again(job, {"error": reason(error), "kind": "bug"})
                    continue
                if ask is None or own is None:
                    unmade.discard(job.folder)
                else:
                    do(own, job, ask)
            if own is not None:
                own.close()

        threads = [threading.Thread(target=tend, daemon=True) for _ in range(min(workers, len(waiting)))]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                for own in hired if stop.event.is_set() else ():
                    own.stop()
                time.sleep(0.2)
        except BaseException:
            for own in hired:
                own.kill()
            raise
        result.signal = stop.signal
        if not stop.event.is_set():  # an error of ``watch`` ends a thread
            lost = unmade - result.failed.keys()
            result.failed |= dict.fromkeys(sorted(lost), "nobody was left to make it")
    return result
