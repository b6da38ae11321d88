"""Signals that ask a run to stop, for the command line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(BaseException):
    """SIGTERM or SIGHUP came. It passes through a command as KeyboardInterrupt does, so that nothing half is left."""

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = number


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
    with _handled(NUMBERS, request.note):
        yield request


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into ``Ended``, as Python turns SIGINT into KeyboardInterrupt."""

    def end(number: int, _frame: object) -> None:
        raise Ended(number)

    with _handled(NUMBERS[1:], end):
        yield


@contextmanager
def _handled(numbers: tuple[int, ...], handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handle signals, and put back the handlers from before. Outside of the main thread nothing is handled.

    A SIGHUP that is ignored stays ignored: ``nohup`` asks for that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hangup = getattr(signal, "SIGHUP", None)
    chosen = [n for n in numbers if n != hangup or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in chosen}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
