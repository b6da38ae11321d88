"""Files that appear whole or not at all: write a temporary file, fsync it, rename it, fsync the folder. And locks."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError
from .paths import explained

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HELD: dict[tuple[int, int], tuple[int, int]] = {}
"""The folders that this process has locked, by device and inode: the thread that holds each, and its descriptor."""


def _let_go() -> None:
    # A forked child has its parent's descriptors, and would keep the parent's folders locked for as long as it lives.
    for _, handle in HELD.values():
        os.close(handle)
    HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def make_folder(path: Path) -> None:
    """Make a folder and its parents if they are missing. UserError if that is not allowed."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes and threads out of a folder. The kernel releases the lock when this process ends, however it
    ends. The thread that holds a folder may lock it again.

    UserError if somebody else holds it. The folder itself is locked, so no lock file is left behind. Systems that
    cannot lock a folder (Windows, some network drives) run without a lock between processes.
    """
    if fcntl is None:
        yield
        return
    with explained(folder):
        handle = os.open(folder, os.O_RDONLY)
    found, me = os.fstat(handle), threading.get_ident()
    key = found.st_dev, found.st_ino
    if key in HELD or not _lock(handle) or not _is_at(handle, folder):
        os.close(handle)
        if HELD.get(key, (0, 0))[0] != me:
            raise UserError(f"{folder} is in use by another process; wait until it has ended, or stop it")
        yield
        return
    HELD[key] = me, handle
    try:
        yield
    finally:
        if HELD.pop(key, None):
            os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file or folder, if nobody has. True where locks are not supported."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open folder is still at its path: another process may have removed it before we locked it."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def sync_folder(path: Path) -> None:
    """Make renames inside a folder survive a power failure. Systems that cannot do this skip it."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def replacing(path: str | Path, size: int | None = None) -> Iterator[Path]:
    """A temporary path with the same suffix, in the same folder, for a library that wants to write a file itself.

    On leaving, the file takes the place of ``path``; on an error it is removed and ``path`` stays as it was.
    """
    path = Path(path)
    with explained(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".tmp-{secrets.token_hex(8)}{path.suffix}"
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if fcntl is not None:
                _lock(handle)  # it is in use: ``remove_strays`` leaves it alone
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        sync_folder(path.parent)


def remove_strays(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder, and not those that are being written."""
    for stray in folder.glob(".tmp-*"):
        with suppress(OSError):
            handle = os.open(stray, os.O_RDONLY)
            try:
                if fcntl is None or _lock(handle):
                    stray.unlink()
            finally:
                os.close(handle)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write one file. UserError if the disk is full or the place cannot be written to; nothing is left behind."""
    with replacing(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write several files, in order, each as ``write_atomic`` does."""
    for path, data in files.items():
        write_atomic(path, data)
