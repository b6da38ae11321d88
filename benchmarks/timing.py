"""How long work takes, beside other things that the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable

WARM = 2


def best(work: Callable[[], object], repeats: int) -> float:
    """Shortest of the times, in milliseconds, after ``WARM`` runs that do not count."""
    times = []
    for _ in range(repeats + WARM):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1e3)
    return min(times[WARM:])
