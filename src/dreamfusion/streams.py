"""Standard streams that cannot cost a run anything: closed, full, without a reader, or of a narrow encoding."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

PLAIN = {"…": "...", "–": "-", "×": "x", "°": " deg", "→": "->"}
"""What an encoding that lacks one of our own characters gets for it. Others are written as \\u1234."""
GONE = {errno.EPIPE, errno.EBADF, errno.EIO, errno.ESHUTDOWN}
"""Nobody reads any more (a closed pipe, a terminal that hung up). All other errors are worth a word."""


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and (plain := PLAIN.get(error.object[error.start])):
        return plain, error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error("dreamfusion.plainer", _plainer)


class Forgiving:
    """A text stream around another one. Writing never raises; ``failure`` keeps the first error."""

    def __init__(self, stream: TextIO | None):
        self.stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write what the stream can take."""
        self._try(lambda stream: stream.write(text), text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        with suppress(ValueError, OSError, AttributeError):
            return self.stream is not None and self.stream.isatty()
        return False

    def close(self) -> None:
        """Give up on what cannot be written, so that Python does not try again, and complain, when it ends."""
        self.flush()
        if self.failure is not None and self.stream is not None:
            with suppress(ValueError, OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stream.fileno())
                os.close(null)
                self.stream.flush()

    @property
    def lost(self) -> str:
        """Why output was lost, where somebody still wanted it; '' if none was."""
        if self.failure is None or self.failure.errno in GONE:
            return ""
        return self.failure.strerror or str(self.failure)

    def _try(self, act: Any, text: str = "") -> None:
        try:
            if self.stream is not None:
                act(self.stream)
        except UnicodeEncodeError as error:
            plain = text.encode(error.encoding, "dreamfusion.plainer").decode(error.encoding)
            self._try(lambda stream: stream.write(plain))
        except OSError as error:
            self.failure = self.failure or error
        except ValueError:  # a closed file
            self.stream = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def forgiving_streams() -> Iterator[tuple[Forgiving, Forgiving]]:
    """Standard output and error as ``Forgiving`` streams; what was there before is put back."""
    open_closed()
    before = sys.stdout, sys.stderr
    out, err = Forgiving(sys.stdout), Forgiving(sys.stderr)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield out, err
    finally:
        out.close()
        err.close()
        sys.stdout, sys.stderr = before


def open_closed() -> None:
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file that is opened would get its number, and whatever a library prints would end up in it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
