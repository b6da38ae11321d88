"""Paths that cannot be read: one line with the real reason, and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamfusion import Asset, UserError, cli, generate, load_prior
from dreamfusion.evaluation.inputs import find_runs
from dreamfusion.paths import kind_of, user_path
from dreamfusion.run import Run
from dreamfusion.suites import load_suite
from tests.faults import CHAIR, LONG, PATH_FAULTS, as_nobody, said_by, said_to_nobody, use

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


def with_path(name: str, path: str) -> list[str]:
    argv, suffix = READERS[name]
    return [word.replace("PATH", path + suffix) for word in argv]


@pytest.mark.parametrize("fault", PATH_FAULTS)
@pytest.mark.parametrize("reader", READERS)
def test_paths_that_cannot_be_read(reader: str, fault: str, made_once: Path) -> None:
    os.symlink(made_once, "made")
    Path("file").write_text("x")
    suffix = READERS[reader][1]
    for name in {"dangling", f"dangling{suffix}"}:
        os.symlink("nowhere", name)
    for name in {"loop", f"loop{suffix}"}:
        os.symlink(name, name)
    path, reason = PATH_FAULTS[fault]
    assert reason in said_by(with_path(reader, path))


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
