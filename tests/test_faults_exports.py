"""Long exports say how far they are, and can be stopped."""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from dreamfusion import Asset, Stopped, cli, generate
from dreamfusion.display import Waiting
from dreamfusion.export import film, formats, texture
from dreamfusion.export.film import write_film
from dreamfusion.geometry import mesh
from dreamfusion.reports import report, reporting
from dreamfusion.run import Run
from tests.fakes import GrayBallPrior
from tests.faults import FILM, TINY, use
from tests.test_faults_film import FILMED, frames


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_long_work_reports_its_parts(made_once: Path) -> None:
    run, said = Run.open(made_once), []
    from dreamfusion.recorded import load_scene

    with reporting(lambda *given: said.append(given)):
        scene, config = load_scene(run)
        Asset.from_scene(scene, config.export.model_copy(update={"maps": "auto"})).save("x.glb")
        write_film(Path(), frames(3), 3)
    names = list(dict.fromkeys(what for what, _, _ in said))
    assert names == [
        "surface",
        "unwrapping",
        "texels",
        "texture",
        "texels without a face",
        "occlusion",
        "relief",
        "writing x.glb",
        "film",
    ]
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

    settings = TINY | FILM
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
    monkeypatch.setattr(formats, "place", lambda *given, **more: os.kill(os.getpid(), number) or write(*given, **more))
    assert cli.main([*FILMED, "--out", "r"]) == 128 + number
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
