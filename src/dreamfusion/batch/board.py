"""What a terminal (or a log file) shows of a batch in progress."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from ..display import clock
from .crew import Watch
from .jobs import Job

WIDTH = 32
"""Characters of a prompt that are shown."""


class Board(Watch):
    """A live table on a terminal: all runs, and a bar for each that is in progress. Elsewhere a line for each event."""

    def __init__(self, steps: dict[Path, int], stream: TextIO | None = None, every: float = 30.0):
        """``steps``: those that each run still has to do, by folder."""
        self.stream, self.every = stream or sys.stderr, every
        self.runs, self.left = len(steps), dict(steps)
        self.total = sum(steps.values())
        self.made_count = self.failed_count = 0
        self.begin = self.said = time.monotonic()
        self.now: dict[Path, str] = {}
        self.bars: Any = None
        self.whole: Any = None
        self.rows: dict[Path, Any] = {}

    def __enter__(self) -> Board:
        if self.stream.isatty():
            from rich import progress as rich
            from rich.console import Console

            columns = (
                rich.TextColumn("{task.description}", markup=False),
                rich.BarColumn(bar_width=20),
                rich.TextColumn("{task.fields[said]}", markup=False),
            )
            self.bars = rich.Progress(*columns, console=Console(file=self.stream), refresh_per_second=4)
            self.whole = self.bars.add_task("all", total=max(self.total, 1), said="")
            self.bars.start()
            self._show()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def begun(self, job: Job) -> None:
        self.now[job.folder] = "starting"
        if self.bars is not None and job.folder not in self.rows:
            self.rows[job.folder] = self.bars.add_task(_short(job.folder.name), total=None, said="starting")

    def heard(self, job: Job, message: dict[str, Any]) -> None:
        if "warning" in message:
            self._line(f"{job.folder}: warning: {message['warning']}")
        elif "step" in message:
            step, steps = message["step"], message["steps"]
            self.left[job.folder] = steps - step
            self._row(job, f"step {step}/{steps}", step, steps)
        elif "doing" in message:
            self._row(job, f"{message['doing']} {message['share']:.0%}")
        self._show()

    def made(self, job: Job, seconds: float, waiting: int) -> None:
        self.made_count += 1
        self._end(job)
        self._line(f"{job.folder}: made in {clock(seconds)} min, {waiting} waiting")
        self._show()

    def failed(self, job: Job, error: str, again: bool) -> None:
        if not again:
            self.failed_count += 1
        self._end(job)
        self._line(f"{job.folder}: failed: {error}{'; it will be tried again' if again else ''}")
        self._show()

    def status(self) -> str:
        """All runs in a few words."""
        left = sum(self.left.values())
        done, spent = self.total - left, time.monotonic() - self.begin
        eta = clock(left * spent / done) if done > 0 else "-:--"
        failed = f", {self.failed_count} failed" if self.failed_count else ""
        rest = f"{eta} left" if left else "exporting" if self.now else ""
        return ", ".join(filter(None, [f"{self.made_count}/{self.runs} made{failed}", rest]))

    def _row(self, job: Job, said: str, done: int | None = None, of: int | None = None) -> None:
        self.now[job.folder] = said
        if self.bars is not None and job.folder in self.rows:
            self.bars.update(self.rows[job.folder], completed=done, total=of, said=said)

    def _end(self, job: Job) -> None:
        self.left[job.folder] = 0
        self.now.pop(job.folder, None)
        if self.bars is not None and job.folder in self.rows:
            self.bars.remove_task(self.rows.pop(job.folder))

    def _line(self, text: str) -> None:
        if self.bars is not None:
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    def _show(self) -> None:
        if self.bars is not None:
            self.bars.update(self.whole, completed=self.total - sum(self.left.values()), said=self.status())
        elif time.monotonic() - self.said > self.every:
            self.said = time.monotonic()
            self._line(f"{self.status()}; " + ", ".join(f"{path.name}: {said}" for path, said in self.now.items()))


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
