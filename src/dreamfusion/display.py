"""What a terminal (or a log file) shows of a run in progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from .trainer import Progress

SHOWN = ("t", "guidance_norm", "residual_norm", "opacity")
BAR_SECONDS = 0.1
"""The bar on a terminal is drawn at most this often."""
HIDDEN = ("step", "stage", "seconds", "shading", "skipped")


def memory_mb() -> tuple[float, float]:
    """Resident memory of this process now and at its peak, in MB; nan where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan"), float("nan")
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, KB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6, peak
    except (OSError, ValueError, IndexError):
        return peak, peak


def clock(seconds: float) -> str:
    """Seconds as 1:02 or 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def figures(metrics: Mapping[str, Any]) -> str:
    """A step's figures in one line: the usual ones, then the regularisers' terms."""
    terms = [k for k in metrics if k not in SHOWN and k not in HIDDEN and not k.startswith("seconds_")]
    said = [f"{k} {metrics[k]:.3g}" for k in (*SHOWN, *terms) if metrics.get(k) is not None]
    return "  ".join(said) + (f"  skipped {metrics['skipped']:.0f}" if metrics.get("skipped") else "")


class Waiting:
    """A ``reports.Report``: a line now and then about work that takes long. Quick work is not mentioned."""

    def __init__(self, stream: TextIO | None = None, every: float = 5.0):
        self.stream, self.every = stream or sys.stderr, every
        self.said = time.monotonic()

    def __call__(self, what: str, done: int, parts: int) -> None:
        if time.monotonic() - self.said >= self.every:
            self.said = time.monotonic()
            print(f"{what} {done / parts:.0%}", file=self.stream, flush=True)


class Display:
    """A callback for ``generate``: a live bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, title: str = "", stream: TextIO | None = None, every: float = 10.0):
        self.title = title
        self.stream = stream or sys.stderr
        self.every = every
        self.said = float("-inf")
        self.first: tuple[int, float] | None = None
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        step, steps = progress.step, progress.steps
        if self.first is None:  # a resumed run does not start at 0, and the first step compiles kernels
            self.first = (step, progress.seconds)
            if self.title:
                print(self.title, file=self.stream, flush=True)
        if step < steps and time.monotonic() - self.said < (BAR_SECONDS if self.stream.isatty() else self.every):
            return  # reading the figures may wait for a GPU
        self.said = time.monotonic()
        done, spent = step - self.first[0], progress.seconds - self.first[1]
        rate = done / spent if spent > 0 else 0.0
        left = clock((steps - step) / rate) if rate else "-:--"
        pace = f"{rate:.1f} steps/s  {left} left  {memory_mb()[0]:.0f} MB"
        if self.stream.isatty():
            self._draw(step, steps, pace, figures(progress.metrics))
        else:
            print(f"step {step}/{steps}  {pace}  {figures(progress.metrics)}", file=self.stream, flush=True)

    def _draw(self, step: int, steps: int, pace: str, terms: str) -> None:
        if self.bar is None:
            from rich import progress as rich
            from rich.console import Console

            columns = (
                rich.TextColumn("step {task.completed}/{task.total}"),
                rich.BarColumn(bar_width=30),
                rich.TextColumn("{task.fields[pace]}\n{task.fields[terms]}"),
            )
            self.bar = rich.Progress(*columns, console=Console(file=self.stream))
            self.task = self.bar.add_task("", total=steps, pace="", terms="")
            self.bar.start()
        self.bar.update(self.task, completed=step, pace=pace, terms=terms)
