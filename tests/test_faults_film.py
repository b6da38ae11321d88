"""The film: a missing encoder costs the MP4 only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from dreamfusion import UserError, cli, generate
from dreamfusion.export import film
from dreamfusion.export.film import NoEncoder, encode, write_film
from dreamfusion.export.texture import Picture
from tests.fakes import SMALL, GrayBallPrior, options
from tests.faults import CHAIR, FILM, use

FILMED = [*CHAIR, *options(FILM)]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def frames(count: int, height: int = 16, width: int = 16) -> Iterator[Picture]:
    for k in range(count):
        yield np.full((height, width, 3), 20 * k, np.uint8)


def script(text: str) -> str:
    path = Path("ffmpeg.sh").absolute()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def not_executable() -> str:
    Path("file").write_text("")
    return str(Path("file").absolute())


ENCODERS: dict[str, tuple[Callable[[], str], str]] = {
    "missing": (lambda: "/nowhere/ffmpeg", "/nowhere/ffmpeg cannot be started: No such file or directory"),
    "a folder": (lambda: "/", "/ cannot be started: Permission denied"),
    "not executable": (not_executable, "cannot be started: Permission denied"),
    "no program": (lambda: script("")[:-3], "cannot be started: No such file or directory"),
    "without libx264": (
        lambda: script("echo 'noise' >&2; echo \"Unknown encoder 'libx264'\" >&2; exit 8"),
        "ffmpeg failed with exit code 8 (Unknown encoder 'libx264')",
    ),
    "fails at the end": (
        lambda: script("cat >/dev/null; echo 'Conversion failed!' >&2; exit 1"),
        "ffmpeg failed with exit code 1 (Conversion failed!)",
    ),
    "says nothing": (lambda: script("exit 3"), "ffmpeg failed with exit code 3"),
    "writes nothing": (lambda: script("cat >/dev/null"), "ffmpeg failed with exit code 0"),
    "killed": (lambda: script("head -c 100 >/dev/null; kill -9 $$"), "ffmpeg was killed by signal 9"),
    "talks much": (lambda: script("yes complaint | head -20000 >&2; exit 1"), "exit code 1 (complaint)"),
}


@pytest.fixture(params=ENCODERS)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """ffmpeg does not work; why."""
    program, why = ENCODERS[request.param]
    path = program()
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: path)
    return why


def gif_frames() -> int:
    with Image.open("turntable.gif") as animation:
        return int(animation.n_frames)


def test_without_an_encoder_there_is_the_animation(broken: str) -> None:
    with pytest.warns(UserWarning, match="turntable.mp4 is left out: ") as caught:
        written = write_film(Path(), frames(5, 64, 64), 5)
    assert len(caught) == 1 and broken in str(caught[0].message)
    assert written == [Path("turntable.gif")] and gif_frames() == 5
    assert not Path("turntable.mp4").exists() and not list(Path().glob(".tmp-*"))


@pytest.mark.parametrize("how", ["package", "program"])
def test_ffmpeg_is_not_installed(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    if how == "package":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(NoEncoder, match="imageio-ffmpeg"):
        encode(Path("x.mp4"), frames(2))
    with pytest.warns(UserWarning, match="pip install"):
        assert write_film(Path(), frames(2), 2) == [Path("turntable.gif")]


def test_a_film_from_before_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("turntable.mp4").write_bytes(b"before")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "/nowhere")
    with pytest.warns(UserWarning, match="left out"):
        write_film(Path(), frames(2), 2)
    assert Path("turntable.mp4").read_bytes() == b"before"


def test_a_full_disk_is_not_the_encoders_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    program = script("cat >/dev/null; echo 'x.mp4: No space left on device' >&2; exit 1")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: program)
    with pytest.raises(UserError, match=r"^disk full: cannot write .*turntable\.mp4; free some space"):
        write_film(Path(), frames(2), 2)
    assert os.listdir() == ["ffmpeg.sh"]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 33), (2, 64)])
def test_a_film_of_any_size(height: int, width: int) -> None:
    assert write_film(Path(), frames(4, height, width), 4) == [Path("turntable.mp4"), Path("turntable.gif")]
    reader = imageio_ffmpeg.read_frames("turntable.mp4")
    details = next(reader)
    assert details["size"] == (width + width % 2, height + height % 2) and details["codec"] == "h264"
    assert len(list(reader)) == 4 and gif_frames() == 4


def test_frames_that_fail_leave_no_file_and_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    start = film._start

    def note(*given: Any) -> Any:
        started.append(start(*given))
        return started[0]

    def failing() -> Iterator[Picture]:
        yield from frames(2)
        raise KeyboardInterrupt

    monkeypatch.setattr(film, "_start", note)
    with pytest.raises(KeyboardInterrupt):
        write_film(Path(), failing(), 3)
    assert os.listdir() == [] and started[0].poll() is not None


def test_a_run_without_an_encoder_is_finished(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(GrayBallPrior(), monkeypatch)
    assert cli.main([*FILMED, "--out", "r"]) == 0
    said = capsys.readouterr()
    warned = [line for line in said.err.splitlines() if "warning" in line]
    assert len(warned) == 1 and warned[0].startswith("dreamfusion: warning: turntable.mp4 is left out: ")
    assert broken in warned[0]
    assert "triangles" in said.out and "r/turntable.gif" in said.out and "turntable.mp4" not in said.out
    made = {path.name for path in Path("r").iterdir()}
    assert made == {"asset.glb", "preview.png", "turntable.gif", "run.yaml", "metrics.jsonl", "cost.json", "checkpoint"}


def test_a_film_of_fewer_steps_does_not_stay_beside_the_new_animation(monkeypatch: pytest.MonkeyPatch) -> None:
    film = {"export.turntable_frames": 2, "export.turntable_size": 16}
    generate("a ball", "fast", out="r", prior=GrayBallPrior(), **SMALL | {"steps": 1} | film)
    assert Path("r/turntable.mp4").exists() and Path("r/turntable.gif").exists()
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "/nowhere/ffmpeg")
    with pytest.warns(UserWarning, match=r"turntable\.mp4 is left out"):
        generate(resume="r", prior=GrayBallPrior(), steps=2)
    assert Path("r/turntable.gif").exists() and not Path("r/turntable.mp4").exists()


def test_render_without_an_encoder(
    made_once: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "/nowhere/ffmpeg")
    argv = ["render", str(made_once), "--turntable", "--frames", "2", "--size", "16", "--out", "f", "--json"]
    assert cli.main([*argv, "--kind", "color,depth"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["files"] == ["f/turntable.gif", "f/depth/turntable.gif"]
    assert said.err.count("is left out: /nowhere/ffmpeg cannot be started") >= 1


def test_doctor_finds_a_broken_encoder(broken: str) -> None:
    from dreamfusion.doctor import _ffmpeg

    finding = _ffmpeg()
    assert finding.missing and broken in finding.found and finding.found.endswith("(needed for: turntable.mp4)")
