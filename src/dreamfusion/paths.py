"""Paths as users write them, and what the operating system refuses, in one line each."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
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
    """A path as a user writes it: ``~`` is the home folder, ``./~`` is a name. UserError if it is no path at all."""
    if "\0" in str(text):
        raise UserError(f"{str(text)!r} is not a path: it holds a null character")
    found = os.path.expanduser(text)
    if found == str(text).rstrip("/") and found.startswith("~") and not os.path.lexists(found):
        raise UserError(f"{text}: there is no such home folder; write the whole path")
    return Path(found)


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


def file_to_read(text: str | Path) -> Path:
    """A path of a file as a user writes it. UserError if it cannot be reached or is a folder; it may be missing."""
    path = user_path(text)
    if kind_of(path) == "folder":
        raise UserError(f"cannot read {path}: it is a folder, not a file")
    return path


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


def is_temporary(path: Path) -> bool:
    """Whether a path is in this user's ``temporary_folder``."""
    found = temporary_folder("")
    return found is not None and path.is_relative_to(found)


def temporary_folder(name: str) -> Path | None:
    """A folder of this user's own below the system's temporary one, for a cache that has no better place.

    None if there is none, or if it is another user's: what is in a cache is trusted.
    """
    me = os.getuid() if hasattr(os, "getuid") else 0
    try:
        base = Path(tempfile.gettempdir()) / f"dreamfusion-{me}"
        for folder in (base, base / name):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != me or found.st_mode & 0o022:
                return None
        check_folder(base / name)
    except (OSError, UserError):
        return None
    return base / name
