"""Paths that cannot be written: one line with the real reason, exit code 2, and before the slow part."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dreamfusion import cli
from tests.faults import CHAIR, PATH_FAULTS, said_by, said_to_nobody


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


WRITERS = {
    "generate": [*CHAIR, "--out", "PATH"],
    "export": ["export", "made", "--out", "PATH"],
    "export file": ["export", "made", "--out", "PATH/x.glb"],
    "render": ["render", "made", "--out", "PATH"],
    "turntable": ["render", "made", "--turntable", "--out", "PATH"],
    "evaluate": ["evaluate", "made", "--out", "PATH/e.json"],
    "html": ["evaluate", "made", "--html", "PATH/e.html"],
    "compare": ["compare", "made", "made", "--out", "PATH/c.json"],
    "sample": ["prior", "sample", "a cup", "--out", "PATH/x.png"],
}
"""Every option that writes to a path."""


@pytest.fixture
def nothing_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where something slow is begun."""

    def slow(*_: object, **__: object) -> None:
        raise AssertionError("the slow part was begun")

    from dreamfusion import evaluation, generation, loading, recorded

    monkeypatch.setattr(generation, "load_prior", slow)
    monkeypatch.setattr(loading, "load_prior", slow)
    monkeypatch.setattr(recorded, "load_scene", slow)
    monkeypatch.setattr(evaluation, "evaluate_full", slow)
    monkeypatch.setattr(evaluation, "evaluate", slow)


@pytest.mark.parametrize("fault", PATH_FAULTS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.usefixtures("nothing_slow")
def test_paths_that_cannot_be_written(writer: str, fault: str, made_once: Path) -> None:
    os.symlink(made_once, "made")
    Path("file").write_text("x")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    before = sorted(os.listdir())
    path, reason = PATH_FAULTS[fault]
    assert reason in said_by([word.replace("PATH", path) for word in WRITERS[writer]])
    assert sorted(os.listdir()) == before


def test_writing_without_permission(shared: Path) -> None:
    readonly = shared / "readonly"
    readonly.mkdir(mode=0o555)
    argvs = [[w.replace("PATH", "readonly/deep/er") for w in argv] for argv in WRITERS.values()]
    for line in said_to_nobody(shared, argvs):
        assert line.startswith("cannot write readonly/deep/er") and "Permission denied" in line, line
    assert not list(readonly.iterdir())


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["export", "made", "--out", "x.glb", "--format", "obj"], "--out x.glb is one file"),
        (["export", "made", "--out", "x.glb", "--format", "glb,obj"], "--out x.glb is one file"),
        (["export", "made", "--out", "x.fbx"], "cannot write x.fbx: '.fbx' is no known format"),
        (["render", "made", "--out", "x.png"], "--out x.png is one file"),
        (["render", "made", "--out", "x.mp4", "--turntable"], "--out x.mp4 is one file"),
        (["render", "made", "--out", "x.png", "--views", "0,", "--kind", "color,depth"], "--out x.png is one file"),
        (["compare", "made", "missing"], "there is no run and no evaluation at missing"),
        (["evaluate", "made", "--html", "made"], "cannot write made: it is a folder"),
        (["prior", "sample", "a cup", "--out", "folder.png"], "cannot write folder.png: it is a folder"),
        ([*CHAIR, "--out", "chair.glb"], "--out chair.glb: a run is a folder"),
    ],
)
@pytest.mark.usefixtures("nothing_slow")
def test_a_file_where_a_folder_is_meant_and_the_other_way_round(argv: list[str], line: str, made_once: Path) -> None:
    os.symlink(made_once, "made")
    os.mkdir("folder.png")
    assert line in said_by(argv)
    assert sorted(os.listdir()) == ["folder.png", "made"]


@pytest.mark.parametrize("name", ["x.glb", "deep/er/x.obj", "X.STL", "x.y.ply"])
def test_export_to_one_file(name: str, made_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = ["--maps", "auto"] if name.endswith(".obj") else []
    assert cli.main(["export", str(made_once), *maps, "--out", name]) == 0
    assert Path(name).is_file() and str(Path(name)) in capsys.readouterr().out
    made = {path.name for path in Path(name).parent.iterdir()}
    assert made == (
        {"x.obj", "x.mtl", "x.png", "x-normals.png", "x-occlusion.png"} if name.endswith(".obj") else {Path(name).name}
    )


def test_render_to_one_file(made_once: Path) -> None:
    assert cli.main(["render", str(made_once), "--views", "45,", "--size", "16", "--out", "one.png"]) == 0
    assert os.listdir() == ["one.png"]


def test_a_folder_whose_name_has_a_dot_is_a_folder(made_once: Path) -> None:
    os.mkdir("old.glb")
    for name in ("old.glb", "v1.2"):
        assert cli.main(["export", str(made_once), "--out", name]) == 0
        assert os.listdir(name) == ["asset.glb"]
