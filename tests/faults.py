"""What the tests of faults share: a command line in this process or in one of its own, with a prior that knows one picture."""

from __future__ import annotations

import ctypes
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
TINY = SMALL | {"steps": 2, "export.turntable_size": 16}
CHAIR = ["generate", "a red chair", *options(TINY)]
FAKED = """
import sys
from dreamfusion import cli, generation
from dreamfusion.export import turntable
from tests.fakes import GrayBallPrior
drawn = turntable.preview_sheet
turntable.preview_sheet = lambda scene, size, views: drawn(scene, 8, 1)
generation.load_prior = lambda *_, **__: GrayBallPrior()
sys.exit(cli.main(sys.argv[1:]))
"""
"""A program: the command line with ``GrayBallPrior`` and small previews."""


def use(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``generate`` load this prior, and draw small previews."""
    from dreamfusion import generation
    from dreamfusion.export import turntable

    drawn = turntable.preview_sheet
    monkeypatch.setattr(generation, "load_prior", lambda *_, **__: prior)
    monkeypatch.setattr(turntable, "preview_sheet", lambda scene, size, views: drawn(scene, 8, 1))


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
    return subprocess.run([sys.executable, *argv], timeout=120, check=False, **given)


def one_line(said: str) -> str:
    """The one line of an error, without its head."""
    (line,) = said.splitlines()
    assert line.startswith("dreamfusion: error: "), said
    return line.removeprefix("dreamfusion: error: ")


def without_privileges() -> None:
    """Take from root what lets it read and write everything. It still owns its files, so that imports go on to work."""
    if os.getuid() == 0:
        header, none = (
            struct.pack("Ii", 0x20080522, 0),
            bytes(24),
        )  # Linux's capset(2), version 3: no capability in any set
        assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0, os.strerror(ctypes.get_errno())


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
