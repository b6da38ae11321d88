"""Signals that ask a run to stop, for the command line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopRequest:
    """``event`` is set by the first signal; ``signal`` is its number (0 while there is none)."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal = 0

    def note(self, number: int, _frame: object) -> None:
        """A signal's handler: ask to stop; a second SIGINT interrupts at once."""
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
        self.event.set()


@contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to stop. Call it from the main thread."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in NUMBERS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
