"""numba's ``njit``, with a cache on disk that may be missing, full or unreadable.

Compiled kernels are kept where numba keeps them: in $NUMBA_CACHE_DIR, beside the source, or in the user's cache. If none of
these can be written to, they are kept in the temporary folder; if that fails too, each process compiles them anew.

numba finds a kernel again by its code and by what it closes over. It never finds a kernel that closes over another one, because it
also compares a number that each process draws for each kernel. Here such kernels are compared by their code and their source files.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from ..paths import temporary_folder

UNUSABLE = (OSError, EOFError, ValueError, TypeError, AttributeError, ImportError, LookupError, pickle.PickleError)
"""What reading or writing a cache may raise: a full disk, another user's files, a damaged or foreign file."""
CONFIG: Any = numba.config  # it makes its names when it is imported
WARNED: set[str] = set()


class KernelCache(FunctionCache):
    """A cache whose failures cost the time to compile, and nothing else."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        try:
            yield
        except UNUSABLE as error:
            why = " ".join(str(error).split()) or type(error).__name__
            warn_once(
                f"the cache of compiled kernels in {self.cache_path} cannot be used ({why}); they are compiled anew"
            )

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), code_of(self._py_func)


@cache
def source_of(path: str) -> bytes:
    """What a source file holds, or nothing where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def code_of(function: Any) -> str:
    """A hash of a function's code and source file, and of what it closes over, the same in every process. The file counts because
    constants are compiled in, and numba looks only at the file of the outermost function."""
    found = hashlib.sha256(function.__code__.co_code + source_of(function.__code__.co_filename))
    for cell in function.__closure__ or ():
        held = getattr(cell.cell_contents, "py_func", cell.cell_contents)
        found.update(code_of(held).encode() if hasattr(held, "__code__") else dumps(held))
    return found.hexdigest()


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(cache=True, **options)`` that works without a cache."""

    def compiled(function: Callable[..., Any]) -> Any:
        # Kernels of other constants, from other processes' caches, must not share a name for the linker.
        if function.__closure__:
            function.__qualname__ += f"_{code_of(function)[:12]}"
        dispatcher = numba.njit(**options)(function)
        if (cache := cache_for(function)) is not None:
            dispatcher._cache = cache  # as its enable_caching does
        return dispatcher

    return compiled


def cache_for(function: Callable[..., Any]) -> KernelCache | None:
    """The cache of a function's compiled code; None, with one warning, if it can be written nowhere."""
    try:
        return KernelCache(function)
    except RuntimeError:  # numba has no place for it
        pass
    before, folder = CONFIG.CACHE_DIR, temporary_folder("kernels")
    if folder is not None:
        try:
            CONFIG.CACHE_DIR = str(folder)
            cache = KernelCache(function)
            warn_once(f"no cache folder can be written to; compiled kernels are kept in {folder}. Set NUMBA_CACHE_DIR")
            return cache
        except RuntimeError:
            pass
        finally:
            CONFIG.CACHE_DIR = before
    warn_once("no cache folder can be written to; kernels are compiled in each process anew. Set NUMBA_CACHE_DIR")
    return None


def cache_folder_of(kernel: Any) -> Path | None:
    """Where a kernel's compiled code is kept; None for nowhere."""
    cache = getattr(kernel, "_cache", None)
    return Path(cache.cache_path) if isinstance(cache, KernelCache) else None


def warn_once(message: str) -> None:
    """One warning, however many kernels have the same trouble."""
    if not WARNED:
        WARNED.add(message)
        warnings.warn(message, stacklevel=3)
