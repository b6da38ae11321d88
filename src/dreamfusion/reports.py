"""Long work says how far it is, to whoever asked; so it can be shown, and stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Report = Callable[[str, int, int], None]
"""Called with the name of the work, and with how many of its parts are done. What it raises ends the work."""

_ASKED: ContextVar[tuple[Report, ...]] = ContextVar("reports", default=())


@contextmanager
def reporting(to: Report) -> Iterator[None]:
    """Call ``to`` between the parts of long work of this thread, inside the ``with`` statement."""
    token = _ASKED.set((*_ASKED.get(), to))
    try:
        yield
    finally:
        _ASKED.reset(token)


def report(what: str, done: int, parts: int) -> None:
    """Say that ``done`` of the ``parts`` of some work are done."""
    for to in _ASKED.get():
        to(what, done, parts)
