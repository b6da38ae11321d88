"""Torch's global state: what the library needs while it works. What it found is put back.

A caller may be inside of ``no_grad``, ``inference_mode``, ``autocast``, or have another default type or device. Each of them
would end in a traceback or in another asset.
"""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import numpy as np
import torch

from .errors import UserError

AUTOCAST = ("cpu", "cuda", "mps")


class _Shared:
    """State that all threads share: the first that enters changes it, the last that leaves puts it back."""

    def __init__(self, read: Callable[[], tuple], write: Callable[..., None], wanted: tuple) -> None:
        self.read, self.write, self.wanted = read, write, wanted
        self.begin()

    def begin(self) -> None:
        """Nobody is inside."""
        self.lock, self.inside, self.found = threading.Lock(), 0, self.wanted

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.found = self.read()
                if self.found != self.wanted:
                    self.write(*self.wanted)
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.read() != self.found:
                self.write(*self.found)


def _set_numbers(dtype: torch.dtype, precision: str) -> None:
    torch.set_default_dtype(dtype)
    torch.set_float32_matmul_precision(precision)


def _set_order(mode: int, fill: bool) -> None:
    torch.set_deterministic_debug_mode(mode)  # use_deterministic_algorithms would load torch's compiler
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


_SHARED = _Shared(
    lambda: (torch.get_default_dtype(), torch.get_float32_matmul_precision()), _set_numbers, (torch.float32, "highest")
)
_ORDER = _Shared(
    lambda: (torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory),  # type: ignore[attr-defined]
    _set_order,
    (1, False),
)


class _Fork:
    """Whether this process was forked after torch was imported, and whether that was said."""

    happened = said = False

    def note(self) -> None:
        self.happened = True
        for state in (_SHARED, _ORDER):
            state.begin()  # a thread of the parent may have held its lock


_FORK = _Fork()
INSTEAD = "this process was forked from one that used torch; start it with multiprocessing's 'spawn' instead"

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FORK.note)


@contextmanager
def plain_torch() -> Iterator[None]:
    """float32, on the CPU unless said otherwise, in full precision, without autocast. Gradients are as the caller has them."""
    with ExitStack() as inside:
        inside.enter_context(_SHARED)
        if torch.get_default_device().type != "cpu":
            inside.enter_context(torch.device("cpu"))
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                inside.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def own_torch() -> Iterator[None]:
    """``plain_torch`` with gradients, outside of inference mode. In a forked process also on one thread.

    UserError where torch itself cannot work in a forked process.
    """
    with plain_torch(), ExitStack() as inside:
        if torch.is_inference_mode_enabled():
            inside.enter_context(torch.inference_mode(False))
        inside.enter_context(torch.enable_grad())
        if _FORK.happened and torch.get_num_threads() > 1:
            inside.enter_context(threads(torch.get_num_threads()))
        try:
            yield
        except RuntimeError as error:
            if _FORK.happened and "fork" in str(error):
                raise UserError(f"{INSTEAD}: {str(error).splitlines()[0]}") from error
            raise


def in_order(device: torch.device) -> AbstractContextManager[None]:
    """Add up in a fixed order on the CPU. Otherwise several threads add up the gradient of ``table[rows]`` in any order, and the
    same run ends in other bits. Elsewhere the order is left to the device, for a fixed one is slow there."""
    return _ORDER if device.type == "cpu" else nullcontext()


@contextmanager
def threads(count: int) -> Iterator[int]:
    """Use this many CPU threads (0: as many as this process may run on); how many that is.

    In a process that was forked after torch was imported it is one, with a warning: the threads of the parent are gone, and
    torch would wait for them for ever.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before, count = torch.get_num_threads(), count or usable
    if _FORK.happened and count > 1:
        count = 1
        if not _FORK.said:
            _FORK.said = True
            warnings.warn(
                "this process was forked, and torch's threads do not survive that: it works on one thread. "
                "multiprocessing's 'spawn' gives it all of them",
                stacklevel=3,
            )
    if count != before:
        torch.set_num_threads(count)
    try:
        yield count
    finally:
        if torch.get_num_threads() != before and not _FORK.happened:
            torch.set_num_threads(before)


@contextmanager
def kept_random() -> Iterator[None]:
    """Leave the global random streams as they are: for networks, which draw weights that are then replaced."""
    state, plain = torch.random.default_generator.get_state(), random.getstate()
    other = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.random.default_generator.set_state(state)
        np.random.set_state(other)  # noqa: NPY002
        random.setstate(plain)
