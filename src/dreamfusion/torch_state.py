"""Torch's global state: what the library needs while it works. What it found is put back.

A caller may be inside of ``no_grad``, ``inference_mode``, ``autocast``, or have another default type or device. Each of them
would end in a traceback or in another asset.
"""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from .errors import UserError

AUTOCAST = ("cpu", "cuda", "mps")


class _Shared:
    """The state that all threads share: the first that enters changes it, the last that leaves puts it back."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.found: tuple[torch.dtype, str] = torch.float32, "highest"

    def enter(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.found = torch.get_default_dtype(), torch.get_float32_matmul_precision()
                self._set(torch.float32, "highest")
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self._set(*self.found)

    def _set(self, dtype: torch.dtype, precision: str) -> None:
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)


_SHARED = _Shared()


class _Fork:
    """Whether this process was forked after torch was imported, and whether that was said."""

    happened = said = False

    def note(self) -> None:
        self.happened = True
        _SHARED.__init__()  # type: ignore[misc]  # a thread of the parent may have held its lock


_FORK = _Fork()
INSTEAD = "this process was forked from one that used torch; start it with multiprocessing's 'spawn' instead"

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FORK.note)


@contextmanager
def plain_torch() -> Iterator[None]:
    """float32, on the CPU unless said otherwise, in full precision, without autocast. Gradients are as the caller has them."""
    with ExitStack() as inside:
        _SHARED.enter()
        inside.callback(_SHARED.leave)
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
