"""The film: a missing encoder costs the MP4 only. Long exports say how far they are, and can be stopped."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from dreamfusion import Asset, Stopped, UserError, cli, generate
from dreamfusion.display import Waiting
from dreamfusion.export import film, formats, texture
from dreamfusion.export.film import NoEncoder, encode, write_film
from dreamfusion.export.texture import Picture
from dreamfusion.geometry import mesh
from dreamfusion.reports import report, reporting
from dreamfusion.run import Run
from tests.fakes import GrayBallPrior
from tests.faults import CHAIR, TINY, made_run, use

FILM = ["--export.turntable-frames=3"]


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
    assert cli.main([*CHAIR, *FILM, "--out", "r"]) == 0
    said = capsys.readouterr()
    warned = [line for line in said.err.splitlines() if "warning" in line]
    assert len(warned) == 1 and warned[0].startswith("dreamfusion: warning: turntable.mp4 is left out: ")
    assert broken in warned[0]
    assert "triangles" in said.out and "r/turntable.gif" in said.out and "turntable.mp4" not in said.out
    made = {path.name for path in Path("r").iterdir()}
    assert made == {"asset.glb", "preview.png", "turntable.gif", "run.yaml", "metrics.jsonl", "checkpoint"}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("made") / "made")


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


def test_long_work_reports_its_parts(made_once: Path) -> None:
    run, said = Run.open(made_once), []
    from dreamfusion.recorded import load_scene

    with reporting(lambda *given: said.append(given)):
        scene, config = load_scene(run)
        Asset.from_scene(scene, config.export).save("x.glb")
        write_film(Path(), frames(3), 3)
    names = list(dict.fromkeys(what for what, _, _ in said))
    assert names == ["surface", "unwrapping", "texels", "texture", "texels without a face", "writing x.glb", "film"]
    assert [given for given in said if given[0] == "film"] == [("film", k, 3) for k in (1, 2, 3)]
    assert all(0 <= done <= parts for _, done, parts in said)


def test_parts_are_small(made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two reports are at most ``TEXELS`` colours; how they are divided changes nothing."""
    from dreamfusion.recorded import load_scene

    scene, config = load_scene(Run.open(made_once))
    whole = Asset.from_scene(scene, config.export).texture
    said: list[str] = []
    monkeypatch.setattr(texture, "TEXELS", 100)
    with reporting(lambda what, *_: said.append(what)):
        parts = Asset.from_scene(scene, config.export).texture
    assert np.array_equal(whole, parts) and said.count("texture") > 10


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamfusion import display

    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    show = Waiting(stream)
    for k in range(100):
        show("texture", k, 100)
        now[0] += 0.3
    lines = stream.getvalue().splitlines()
    assert lines == ["texture 17%", "texture 34%", "texture 51%", "texture 68%", "texture 85%"]


def test_reports_nest_and_end() -> None:
    outer, inner = [], []
    with reporting(lambda *given: outer.append(given)):
        with reporting(lambda *given: inner.append(given)):
            report("a", 0, 1)
        report("b", 1, 1)
    report("c", 0, 1)
    assert outer == [("a", 0, 1), ("b", 1, 1)] and inner == [("a", 0, 1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("argv", [["export", "r", "--format", "obj"], ["render", "r", "--turntable", "--size", "16"]])
def test_exports_can_be_stopped(
    argv: list[str],
    number: signal.Signals,
    made_once: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(made_once, "r")
    before = sorted(Path("r").rglob("*"))

    def stop(what: str, done: int, _: int) -> None:
        if what == ("texture" if "export" in argv else "film"):
            os.kill(os.getpid(), number)

    for module in (film, texture):
        monkeypatch.setattr(module, "report", stop)
    handlers = [signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT,)]
    try:
        assert cli.main(argv) == 128 + number
    finally:
        signal.signal(signal.SIGINT, handlers[0])
    assert capsys.readouterr().err.startswith("dreamfusion: stopped")
    assert sorted(Path("r").rglob("*")) == before, "nothing half is left"


@pytest.mark.parametrize("work", ["surface", "texture", "writing asset.glb", "film"])
def test_a_run_that_is_stopped_in_its_export_is_resumed(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(GrayBallPrior(), monkeypatch)
    stop, told = threading.Event(), []

    def ask(what: str, *_: int) -> None:
        told.append(what)
        if what == work:
            stop.set()

    settings = TINY | {"export.turntable_frames": 3}
    with pytest.raises(Stopped, match="resume with --resume r") as caught, reporting(ask):
        generate("a ball", out="r", prior=GrayBallPrior(), stop=stop, **settings)
    assert caught.value.folder == Path("r") and not list(Path("r").glob(".tmp-*"))
    assert Run.open("r").load_checkpoint(resumable=True)[1]["step"] == TINY["steps"]
    stop.clear()
    generate(resume="r", prior=GrayBallPrior(), stop=stop)
    assert {"asset.glb", "preview.png", "turntable.mp4", "turntable.gif"} <= {p.name for p in Path("r").iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_export_of_a_run(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(GrayBallPrior(), monkeypatch)
    write = formats.place
    monkeypatch.setattr(formats, "place", lambda *given: os.kill(os.getpid(), number) or write(*given))
    assert cli.main([*CHAIR, *FILM, "--out", "r"]) == 128 + number
    assert "resume with --resume r" in capsys.readouterr().err
    monkeypatch.setattr(formats, "place", write)
    assert cli.main(["generate", "--resume", "r"]) == 0
    assert Path("r/turntable.mp4").is_file()


def test_the_surface_is_sampled_in_parts() -> None:
    import torch

    said: list[tuple[str, int, int]] = []
    with reporting(lambda *given: said.append(given)):
        mesh.sample_grid(lambda x: torch.ones(len(x)), 10, chunk=100)
    assert said == [("surface", k, 1000) for k in range(0, 1000, 100)]
