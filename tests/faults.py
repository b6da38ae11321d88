"""What the tests of faults share: a command line in this process or in one of its own, with a prior that knows one picture."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import SMALL, GrayBallPrior, options

ROOT = Path(__file__).parents[1]
TINY = SMALL | {"steps": 2}
FILM = {"export.turntable_frames": 3, "export.turntable_size": 16}
"""A film for a tiny run, which has none."""
CHAIR = ["generate", "a red chair", *options(TINY)]


def use(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``generate`` load this prior."""
    from dreamfusion import generation

    monkeypatch.setattr(generation, "load_prior", lambda *_, **__: prior)


def made_run(folder: Path) -> Path:
    """A finished tiny run in a folder."""
    from dreamfusion import cli

    with pytest.MonkeyPatch.context() as patch:
        use(GrayBallPrior(), patch)
        assert cli.main([*CHAIR, "--out", str(folder)]) == 0
    return folder


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that imports this source tree."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more


def program(argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGV`` and wait; its output is text."""
    given = {"capture_output": True, "text": True, "env": environment()} | more
    return subprocess.run([sys.executable, *argv], timeout=300, check=False, **given)


def one_line(said: str) -> str:
    """The one line of an error, without its head."""
    (line,) = said.splitlines()
    assert line.startswith("dreamfusion: error: "), said
    return line.removeprefix("dreamfusion: error: ")


def block(*places: Path) -> None:
    """Put files where folders are wanted: root may write everywhere else."""
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("")


def without_privileges() -> None:
    """Take from root what lets it read and write everything. It still owns its files, so that imports go on to work."""
    if os.getuid() == 0:
        header, none = (
            struct.pack("Ii", 0x20080522, 0),
            bytes(24),
        )  # Linux's capset(2), version 3: no capability in any set
        assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0, os.strerror(ctypes.get_errno())


def forked(act: Callable[[], Any]) -> int:
    """Let ``act`` happen in a process that is forked from this one, and wait; its exit code (-9: SIGKILL).

    It knows nothing of what other such processes did, and does not import anything anew.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def as_nobody(act: Callable[[], Any]) -> Any:
    """What ``act`` answers (JSON) in a process without root's privileges."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            without_privileges()
            os.write(write, json.dumps(act()).encode())
        except BaseException:
            os.write(write, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A temporary folder that every user can reach. pytest's own are for their owner only."""
    folder = Path(tempfile.mkdtemp(prefix="dreamfusion-test-", dir="/tmp"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


LONG = "x" * 300
PATH_FAULTS = {
    "long": (LONG, "File name too long"),
    "inside a file": ("file/inside", "Not a directory"),
    "dangling": ("dangling", "which does not exist"),
    "below a dangling link": ("dangling/run", "which does not exist"),
    "loop": ("loop", "Too many levels of symbolic links"),
    "no home": ("~nobody-of-this-name/x", "no such home folder"),
    "null": ("a\0b", "null character"),
}
"""Paths with something wrong: how, and what is said of it."""


def said_by(argv: list[str]) -> str:
    """The one line of a mistake."""
    from dreamfusion import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(argv)
    assert (code, out.getvalue()) == (2, ""), (code, out.getvalue(), err.getvalue())
    return one_line(err.getvalue())


def said_to_nobody(folder: Path, argvs: list[list[str]]) -> list[Any]:
    """The lines that a user without privileges gets for each command line."""
    import dreamfusion.evaluation  # noqa: F401
    from dreamfusion import generation  # noqa: F401

    codecs.lookup("utf-8-sig")

    def act() -> list[str]:
        os.chdir(folder)
        return [said_by(argv) for argv in argvs]

    said = as_nobody(act)
    assert isinstance(said, list), said
    return said
