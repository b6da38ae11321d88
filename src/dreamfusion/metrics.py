"""Figures and timings of a step, kept as tensors and events until somebody reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor


class Laps:
    """How long the parts of a step take. On a GPU events are recorded in its own queue, and nothing waits for them."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.marks: list[tuple[str, float | torch.cuda.Event]] = []
        self.lap("")

    def lap(self, name: str) -> None:
        """The part ``name`` ends here."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """{"seconds": of all, "seconds_<name>": of each part}; waits for the GPU."""
        found = {"seconds": _between(self.marks[0][1], self.marks[-1][1])}
        for (_, before), (name, after) in zip(self.marks, self.marks[1:], strict=False):
            found[f"seconds_{name}"] = _between(before, after)
        return found


def _between(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    assert isinstance(end, float)
    return end - start


class Metrics(Mapping[str, float]):
    """A step's figures by name. Reading the first one brings all of them from the device, in one transfer."""

    def __init__(self, numbers: Mapping[str, float], tensors: Mapping[str, Tensor], laps: Laps):
        self._known, self._tensors, self._laps = numbers, tensors, laps

    @cached_property
    def _numbers(self) -> dict[str, float]:
        tensors = self._tensors
        values = torch.stack([x.detach().float() for x in tensors.values()]).tolist() if tensors else []
        return {**self._known, **self._laps.seconds(), **dict(zip(tensors, values, strict=True))}

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
