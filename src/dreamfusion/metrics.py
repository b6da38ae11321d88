"""Figures and timings of a step, kept as tensors and events until they are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

Mark = float | torch.cuda.Event
"""A moment: seconds on the CPU; on a GPU an event in its queue, which nothing waits for."""


def clock_of(device: torch.device) -> Callable[[], Mark]:
    """What tells the time on a device."""
    return _record if device.type == "cuda" else time.perf_counter


def _record() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(marks: Mapping[str, Mark]) -> dict[str, float]:
    """{"seconds": of all, "seconds_<name>": of each part}, of the moments when parts ended, the first being the start; waits
    for the GPU."""
    moments = list(marks.items())
    found = {"seconds": _between(moments[0][1], moments[-1][1])}
    for (_, before), (name, after) in pairwise(moments):
        found[f"seconds_{name}"] = _between(before, after)
    return found


def _between(start: Mark, end: Mark) -> float:
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    assert isinstance(end, float)
    return end - start


class Metrics(Mapping[str, float]):
    """A step's figures by name. Reading the first one brings all of them from the device, in one transfer."""

    def __init__(self, numbers: Mapping[str, float], tensors: Mapping[str, Tensor], marks: Mapping[str, Mark]):
        self._known, self._tensors, self._marks = numbers, tensors, marks

    @cached_property
    def _numbers(self) -> dict[str, float]:
        tensors = self._tensors
        values = torch.stack([x.detach().float() for x in tensors.values()]).tolist() if tensors else []
        return {**self._known, **seconds_between(self._marks), **dict(zip(tensors, values, strict=True))}

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
