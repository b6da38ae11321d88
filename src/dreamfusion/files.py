"""Paths and their refusals in one line; files that appear whole or not at all: a temporary file, fsync, a rename."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from .errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EINVAL, errno.EBUSY,
}  # fmt: skip


def user_path(text: str | Path) -> Path:
    """A path as a user writes it; ``~`` is the home folder. UserError if it is no path at all."""
    if "\0" in str(text):
        raise UserError(f"{str(text)!r} is not a path: it holds a null character")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such home folder; write the whole path") from None


def reason(error: OSError, path: str | Path) -> str:
    """Why the operating system refused a path. Of a link that leads nowhere it says only that something is missing."""
    if error.errno in (errno.ENOENT, errno.EEXIST):
        for part in (Path(path), *Path(path).parents):
            with suppress(OSError):
                if part.is_symlink() and not part.exists():
                    return f"{part} is a link to {os.readlink(part)}, which does not exist"
    return error.strerror or str(error)


@contextmanager
def explained(path: str | Path, size: int | None = None) -> Iterator[None]:
    """Turn the operating system's refusals to write ``path`` (``size`` bytes) into a UserError of one line."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            need = f" ({size / 1e6:.1f} MB needed)" if size is not None else ""
            raise UserError(f"disk full: cannot write {path}{need}; free some space, then use --resume") from error
        if error.errno in REFUSED:
            raise UserError(f"cannot write {path}: {reason(error, path)}; choose another place") from error
        raise


@contextmanager
def readable(path: str | Path | None = None) -> Iterator[None]:
    """Turn the operating system's refusals to read ``path`` into a UserError of one line. Without ``path`` it is the file
    that the error names; errors that name none pass."""
    try:
        yield
    except OSError as error:
        place = error.filename if path is None else path
        if not isinstance(place, str | Path) or error.errno not in REFUSED | {errno.EIO}:
            raise
        raise UserError(f"cannot read {place}: {reason(error, place)}") from error


def kind_of(path: Path) -> Literal["folder", "file", "nothing"]:
    """What is at a path. UserError if that cannot be known, and for a link that leads nowhere."""
    try:
        with readable(path):
            mode = os.stat(path).st_mode
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError) and "is a link to" not in str(error):
            return "nothing"
        raise
    return "folder" if stat.S_ISDIR(mode) else "file"


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted. UserError if it cannot be read."""
    with readable(folder):
        return sorted(os.listdir(folder))


def check_folder(folder: Path) -> None:
    """UserError if files cannot be written into a folder, which may be missing. What is made to find out is removed."""
    missing = [p for p in (folder, *folder.parents) if not os.path.lexists(p)]
    made: list[Path] = []
    try:
        with explained(folder):
            for part in reversed(missing):
                part.mkdir(exist_ok=True)
                made.append(part)
            handle, probe = tempfile.mkstemp(dir=folder, prefix=".tmp-")
            os.close(handle)
            os.unlink(probe)
    finally:
        for part in reversed(made):
            with suppress(OSError):  # another process may have put something there
                part.rmdir()


def check_file(path: Path) -> None:
    """UserError if a file cannot be written: before the slow work that makes it."""
    with explained(path):
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; name a file")
    check_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its parents if they are missing. UserError if that is not allowed."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder. The kernel releases the lock when this process ends, however it ends.

    UserError if another process holds it. The folder itself is locked, so no lock file is left behind. Systems that
    cannot lock a folder (Windows, some network drives) run without a lock.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with explained(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"{folder} is in use by another process; wait until it has ended, or stop it") from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)


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
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write one file. UserError if the disk is full or the place cannot be written to; nothing is left behind."""
    with replacing(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write several files, in order, each as ``write_atomic`` does."""
    for path, data in files.items():
        write_atomic(path, data)


def _umask() -> int:
    # mkstemp makes private files; a user's files should have the user's usual permissions.
    mask = os.umask(0)
    os.umask(mask)
    return mask
