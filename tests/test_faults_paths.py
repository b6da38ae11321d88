"""Paths that cannot be read or written: one line with the real reason, exit code 2, and before the slow part."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamfusion import Asset, UserError, cli, generate, load_prior
from dreamfusion.evaluation.inputs import find_runs
from dreamfusion.paths import kind_of, user_path
from dreamfusion.run import Run
from dreamfusion.suites import load_suite
from tests.faults import CHAIR, as_nobody, one_line, open_to_all, use

LONG = "x" * 300
READERS: dict[str, tuple[list[str], str]] = {
    "resume": (["generate", "--resume", "PATH"], ""),
    "preset": ([*CHAIR, "--preset", "PATH"], ".yaml"),
    "prior": ([*CHAIR, "--prior", "PATH"], ".safetensors"),
    "prior folder": ([*CHAIR, "--prior", "PATH"], ""),
    "guide": ([*CHAIR, "--prior", "guide:PATH"], ""),
    "mixture": ([*CHAIR, "--prior", "0.5*PATH + 0.5*bundled"], ".safetensors"),
    "export": (["export", "PATH"], ""),
    "render": (["render", "PATH"], ""),
    "evaluate": (["evaluate", "PATH"], ""),
    "clip": (["evaluate", "made", "--clip", "PATH"], ""),
    "prompts": (["evaluate", "made", "--prompts", "PATH"], ".txt"),
    "compare": (["compare", "PATH", "made"], ""),
    "compare second": (["compare", "made", "PATH"], ".json"),
    "sample": (["prior", "sample", "a cup", "--prior", "PATH"], ".safetensors"),
    "info": (["prior", "info", "--prior", "PATH"], ".safetensors"),
    "info folder": (["prior", "info", "--prior", "PATH"], ""),
    "doctor": (["doctor", "--prior", "PATH"], ".safetensors"),
    "presets": (["presets", "PATH"], ".yaml"),
}
"""Every option that reads a path, and how the path must end."""


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said_by(argv: list[str]) -> str:
    """The one line of a mistake."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(argv)
    assert (code, out.getvalue()) == (2, ""), (code, out.getvalue(), err.getvalue())
    return one_line(err.getvalue())


def with_path(name: str, path: str) -> list[str]:
    argv, suffix = READERS[name]
    return [word.replace("PATH", path + suffix) for word in argv]


FAULTS = {
    "long": (LONG, "File name too long"),
    "inside a file": ("file/inside", "Not a directory"),
    "dangling": ("dangling", "which does not exist"),
    "below a dangling link": ("dangling/run", "which does not exist"),
    "loop": ("loop", "Too many levels of symbolic links"),
    "no home": ("~nobody-of-this-name/x", "no such home folder"),
    "null": ("a\0b", "null character"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("reader", READERS)
def test_paths_that_cannot_be_read(reader: str, fault: str, made_once: Path) -> None:
    os.symlink(made_once, "made")
    Path("file").write_text("x")
    suffix = READERS[reader][1]
    for name in {"dangling", f"dangling{suffix}"}:
        os.symlink("nowhere", name)
    for name in {"loop", f"loop{suffix}"}:
        os.symlink(name, name)
    path, reason = FAULTS[fault]
    assert reason in said_by(with_path(reader, path))


@pytest.fixture(scope="module")
def shared(made_once: Path) -> Iterator[Path]:
    """Everything in it can be read by all but what its name says."""
    with open_to_all() as folder:
        shutil.copytree(made_once, folder / "made")
        shutil.copytree(made_once, folder / "locked" / "in")
        for suffix in (".yaml", ".safetensors", ".txt", ".json"):
            (folder / "locked" / f"in{suffix}").write_text("x")
            (folder / f"unreadable{suffix}").write_text("x")
            (folder / f"unreadable{suffix}").chmod(0)
        (folder / "unreadable").mkdir(mode=0)
        for name in ("page", "checkpoint", "meta", "tensors", "log"):
            shutil.copytree(made_once, folder / name).chmod(0o777)
        (folder / "page" / "run.yaml").chmod(0)
        (folder / "checkpoint" / "checkpoint").chmod(0)
        (folder / "meta" / "checkpoint" / "checkpoint.json").chmod(0)
        (tensors,) = (folder / "tensors" / "checkpoint").glob("*.safetensors")
        tensors.chmod(0)
        (folder / "log" / "metrics.jsonl").chmod(0)
        (folder / "locked").chmod(0)
        yield folder
        (folder / "locked").chmod(0o700)


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


def test_folders_and_files_without_permission(shared: Path) -> None:
    names = [name for name in READERS if name != "mixture"]
    argvs = [with_path(name, path) for path in ("locked/in", "unreadable") for name in names]
    for argv, line in zip(argvs, said_to_nobody(shared, argvs), strict=True):
        assert "Permission denied" in line and ("locked/in" in line or "unreadable" in line), (argv, line)


@pytest.mark.parametrize(
    ("run", "place"),
    [
        ("page", "page/run.yaml"),
        ("checkpoint", "checkpoint/checkpoint/checkpoint.json"),
        ("meta", "meta/checkpoint/checkpoint.json"),
        ("tensors", "tensors/checkpoint/000002-"),
    ],
)
def test_runs_with_a_part_that_cannot_be_read(shared: Path, run: str, place: str) -> None:
    argvs = [
        ["generate", "--resume", run],
        ["export", run],
        ["render", run],
        ["evaluate", run],
        ["compare", run, "made"],
    ]
    for line in said_to_nobody(shared, argvs):
        assert line.startswith(f"cannot read {place}") and line.endswith(": Permission denied"), line


@pytest.mark.parametrize("part", ["run.yaml", "checkpoint", "checkpoint/checkpoint.json"])
@pytest.mark.parametrize("how", ["dangling", "folder"])
def test_runs_with_a_part_that_is_something_else(part: str, how: str, made_once: Path) -> None:
    run = Path(shutil.copytree(made_once, "run"))
    path = run / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if how == "dangling":
        path.symlink_to("nowhere")
    elif part == "checkpoint":
        path.write_text("")
    else:
        path.mkdir()
    reason = {"dangling": "is a link to nowhere, which does not exist", "folder": "Is a directory"}[how]
    if (how, part) == ("folder", "checkpoint"):
        reason = "Not a directory"
    for command in (["generate", "--resume"], ["export"], ["render"], ["evaluate"]):
        assert reason in said_by([*command, "run"])


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


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.usefixtures("nothing_slow")
def test_paths_that_cannot_be_written(writer: str, fault: str, made_once: Path) -> None:
    os.symlink(made_once, "made")
    Path("file").write_text("x")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    before = sorted(os.listdir())
    path, reason = FAULTS[fault]
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
    assert cli.main(["export", str(made_once), "--out", name]) == 0
    assert Path(name).is_file() and str(Path(name)) in capsys.readouterr().out
    made = {path.name for path in Path(name).parent.iterdir()}
    assert made == ({"x.obj", "x.mtl", "x.png"} if name.endswith(".obj") else {Path(name).name})


def test_render_to_one_file(made_once: Path) -> None:
    assert cli.main(["render", str(made_once), "--views", "45,", "--size", "16", "--out", "one.png"]) == 0
    assert os.listdir() == ["one.png"]


def test_a_folder_whose_name_has_a_dot_is_a_folder(made_once: Path) -> None:
    os.mkdir("old.glb")
    for name in ("old.glb", "v1.2"):
        assert cli.main(["export", str(made_once), "--out", name]) == 0
        assert os.listdir(name) == ["asset.glb"]


def test_a_tilde_is_the_home_folder_everywhere(made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path("home").absolute()
    shutil.copytree(made_once, home / "made")
    monkeypatch.setenv("HOME", str(home))
    (home / "page.yaml").write_text("steps: 1\n")
    (home / "p.txt").write_text("a red chair\na blue cup\n")
    assert user_path("~") == home and user_path("~/x") == home / "x" and user_path("./~") == Path("~")
    assert cli.main(["presets", "~/page.yaml"]) == 0
    from tests.fakes import GrayBallPrior

    use(GrayBallPrior(), monkeypatch)
    assert cli.main([*CHAIR, "--preset=~/page.yaml", "--out=~/new"]) == 0
    assert cli.main(["generate", "--resume=~/new"]) == 0
    assert cli.main(["export", "~/made", "--out=~/x.glb"]) == 0
    assert cli.main(["render", "~/made", "--views=0,", "--size=16", "--out=~/stills"]) == 0
    from dreamfusion import evaluation
    from dreamfusion.evaluation import comparison, summary

    monkeypatch.setattr(
        evaluation, "evaluate_full", lambda runs, *_, **__: ({"run": str(find_runs(runs)[0].path)}, "page")
    )
    monkeypatch.setattr(summary, "table", lambda _: "")
    monkeypatch.setattr(evaluation, "read", lambda place: str(place))
    monkeypatch.setattr(evaluation, "compare", lambda one, other: {"of": [one, other]})
    monkeypatch.setattr(comparison, "table", lambda _: "")
    assert load_suite("~/p.txt") == ["a red chair", "a blue cup"]
    assert cli.main(["evaluate", "~/made", "--out=~/e.json", "--html=~/e.html"]) == 0
    assert cli.main(["compare", "~/e.json", "~/e.json", "--out=~/c.json"]) == 0
    assert json.loads((home / "e.json").read_text()) == {"run": str(home / "made")}
    assert json.loads((home / "c.json").read_text()) == {"of": [str(home / "e.json")] * 2}
    Asset.load("~/x.glb").save("~/y.obj")
    made = {path.name for path in home.iterdir()}
    assert made >= {"new", "x.glb", "stills", "e.json", "e.html", "c.json", "y.obj"} and os.listdir() == ["home"]
    (home / "w.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=rf"{home}/w\.safetensors does not hold"):
        load_prior("~/w.safetensors")


@pytest.mark.parametrize("path", [LONG, "a\0b", "~nobody-of-this-name", "dangling", "loop"])
def test_the_same_lines_from_python(path: str) -> None:
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    for act in (Run.open, Asset.load, lambda p: generate(resume=p), lambda p: generate("a cup", out=p)):
        with pytest.raises(UserError):
            act(path)


def test_what_is_at_a_path() -> None:
    Path("file").write_text("")
    os.symlink("file", "link")
    os.mkfifo("pipe")
    assert [kind_of(Path(p)) for p in ("file", "link", "pipe", ".", "no", "no/no")] == [
        "file", "file", "file", "folder", "nothing", "nothing",
    ]  # fmt: skip


def test_a_run_among_others_that_cannot_be_read_is_left_out(shared: Path) -> None:
    def act() -> list[Any]:
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            place = shared / "several"
            return [[run.path.name for run in find_runs([place])], [str(w.message) for w in caught]]

    (shared / "several").mkdir(exist_ok=True)
    shutil.copytree(shared / "made", shared / "several" / "good")
    (shared / "several" / "bad").mkdir(mode=0)
    os.symlink("nowhere", shared / "several" / "dangling")
    names, warned = as_nobody(act)
    assert names == ["good"] and len(warned) == 2
    assert "Permission denied" in warned[0] and "is a link to nowhere" in warned[1]


def test_an_asset_that_cannot_be_read_is_made_again(made_once: Path) -> None:
    from dreamfusion.evaluation.geometry import finished

    run = Run.open(shutil.copytree(made_once, "run"))
    assert finished(run) is not None
    (run.path / "asset.glb").write_bytes(b"glTF")
    with pytest.warns(UserWarning, match="is not a GLB file that dreamfusion wrote; its surface is extracted again"):
        assert finished(run) is None
