from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from dreamfusion import files, generate, run
from dreamfusion.errors import UserError
from dreamfusion.files import replacing, write_atomic
from dreamfusion.run import Run, default_path
from dreamfusion.settings.presets import resolve
from tests.fakes import SMALL, GrayBallPrior


def tensors(value: float) -> dict[str, Tensor]:
    return {"a": torch.full((3, 4), value), "step": torch.tensor(value), "mask": torch.ones(5, dtype=torch.bool)}


@pytest.fixture
def fresh(tmp_path: Path) -> Run:
    made = Run.create(tmp_path / "run", resolve("fast", {"seed": 3}, "a red chair"))
    made.write_config("bundled", "ab" * 32)
    return made


@pytest.fixture
def saved(fresh: Run) -> Run:
    fresh.save_checkpoint(tensors(1.0), {"step": 1})
    return fresh


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_run_yaml_repeats_the_run(fresh: Run) -> None:
    page = fresh.recorded
    assert page["prior"] == {"id": "bundled", "sha256": "ab" * 32}
    assert page["environment"]["packages"]["torch"] == torch.__version__
    assert page["environment"]["threads"] == torch.get_num_threads()
    assert Run.open(fresh.path).config == fresh.config
    assert resolve(str(fresh.path / "run.yaml")) == fresh.config
    text = (fresh.path / "run.yaml").read_text()
    assert os.uname().nodename not in text and str(fresh.path) not in text


def test_recorded_packages_are_the_direct_dependencies() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    direct = {line.split(">=")[0] for line in project["dependencies"]}
    only_talk = {"rich", "pyyaml", "annotated-types"}  # cannot change a result
    assert set(run.PACKAGES) == direct - only_talk


def test_checkpoint_comes_back_and_only_the_newest_is_kept(saved: Run) -> None:
    saved.save_checkpoint(tensors(2.0), {"step": 2, "skipped": 0})
    loaded, meta = saved.load_checkpoint()
    assert same(loaded, tensors(2.0)) and meta == {"step": 2, "skipped": 0}
    assert len(list((saved.path / "checkpoint").iterdir())) == 2


def killed_at(line: int, act: Any) -> bool:
    """Run act in a child that is killed (SIGKILL) before its nth line of files.py and run.py; whether it was killed."""
    child = os.fork()
    if child == 0:
        left = [line]

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if Path(frame.f_code.co_filename) not in (Path(files.__file__), Path(run.__file__)):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("apart", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_checkpoint_survives_a_kill_at_every_line(saved: Run, apart: int) -> None:
    """At every third line, and slowly at every one: each kill needs a process."""
    seen = []
    for line in range(0, 10_000, apart):
        saved.save_checkpoint(tensors(1.0), {"step": 1})
        killed = killed_at(line, lambda: saved.save_checkpoint(tensors(2.0), {"step": 2}))
        loaded, meta = Run.open(saved.path).load_checkpoint()
        assert same(loaded, tensors(float(meta["step"])))
        seen.append(meta["step"])
        if not killed:
            break
    assert seen == sorted(seen) and seen[0] == 1 and seen[-1] == 2 and len(seen) > 20 / apart
    assert seen.count(2) > 2 / apart  # also killed between the rename and the removal of the old file
    saved.save_checkpoint(tensors(3.0), {"step": 3})
    assert len(list((saved.path / "checkpoint").iterdir())) == 2


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(saved: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(p.name for p in (saved.path / "checkpoint").iterdir())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"^disk full: cannot write .*\.safetensors \(0\.0 MB needed\); free"):
            saved.save_checkpoint(tensors(2.0), {"step": 2})
    assert sorted(p.name for p in (saved.path / "checkpoint").iterdir()) == before
    assert same(saved.load_checkpoint()[0], tensors(1.0))


def truncate(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-7])


def flip(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def edit_meta(folder: Path, **changes: Any) -> None:
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (truncate, "is truncated: "),
        (flip, "was altered: its SHA-256 is not"),
        (lambda f: [p.unlink() for p in f.glob("*.safetensors")], "is damaged: cannot read"),
        (lambda f: edit_meta(f, state={"step": 7}), "was altered: its SHA-256 is not"),
        (
            lambda f: edit_meta(f, format=3, dreamfusion="9.9"),
            r"has format 3, made by dreamfusion 9\.9; this is .* reads formats 1 to 2",
        ),
        (lambda f: (f / "checkpoint.json").write_text('{"format": 1'), "truncated or altered"),
        (lambda f: (f / "checkpoint.json").write_text("[]"), "truncated or altered"),
        (lambda f: (f / "checkpoint.json").unlink(), "has no checkpoint yet"),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_line(saved: Run, damage: Any, line: str) -> None:
    damage(saved.path / "checkpoint")
    with pytest.raises(UserError, match=line) as caught:
        Run.open(saved.path).load_checkpoint()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("page", "line"),
    [
        (None, "is not a run: it holds no run.yaml"),
        ("config: [", "cannot be read as YAML"),
        ("steps: 3", "is not a run: its run.yaml lacks"),
        ("format: 3\ndreamfusion: 9.9\nconfig: {}", "is a run of format 3, made by dreamfusion 9.9"),
        ("format: 2\nconfig: {steps: 0}", "steps = 0 is not allowed"),
        ("format: 1\nconfig: {steps: 0}", "steps = 0 is not allowed"),
        ("format: 2\nconfig: {optimizer: {lr: 0.1}}", "optimizer.lr is now scene.lr"),
    ],
)
def test_folders_that_are_no_runs(tmp_path: Path, page: str | None, line: str) -> None:
    if page is not None:
        (tmp_path / "run.yaml").write_text(page)
    with pytest.raises(UserError, match=line):
        Run.open(tmp_path)


def test_create_makes_nothing_and_refuses_what_is_taken(saved: Run, tmp_path: Path) -> None:
    config = saved.config
    Run.create(tmp_path / "deep" / "er", config)
    assert not (tmp_path / "deep").exists()
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", config)
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    for name, line in [
        ("file", "is a file, not a run"),
        ("file/x", "cannot write .*Not a directory"),
        ("other", "exists and is not a run"),
        ("run", "already holds a run; go on with --resume"),
        ("n" * 300, "File name too long"),
    ]:
        with pytest.raises(UserError, match=line):
            Run.create(tmp_path / name, config)
    with pytest.raises(UserError, match="cannot write /proc/nothing"):
        Run.create("/proc/nothing/run", config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "other", "run"]


def test_a_run_that_got_nowhere_may_be_started_again(fresh: Run) -> None:
    fresh.log({"step": 1})
    Run.create(fresh.path, fresh.config).write_config("bundled", "cd" * 32)
    assert (
        fresh.read_log() == [] and yaml.safe_load((fresh.path / "run.yaml").read_text())["prior"]["sha256"] == "cd" * 32
    )


def test_default_paths_are_free(tmp_path: Path) -> None:
    first = default_path("A red chair", 7, tmp_path)
    assert first == tmp_path / "a-red-chair-7"
    first.mkdir()
    assert default_path("A red chair", 7, tmp_path) == tmp_path / "a-red-chair-7-2"


def test_log_is_cut_back_to_the_checkpoint(fresh: Run) -> None:
    for step in range(1, 8):
        fresh.log({"step": step, "loss": step / 3, "odd": float("inf")})
    path = fresh.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 8, "lo')  # killed in the middle of a line
    (fresh.path / ".tmp-stray.png").write_text("")
    assert [e["step"] for e in fresh.read_log()] == list(range(1, 8))
    fresh.truncate_log(5)
    fresh.log({"step": 6, "loss": 2.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [e["step"] for e in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[4] == {"step": 5, "loss": 5 / 3, "odd": None}
    assert not list(fresh.path.glob(".tmp-*"))


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    write_atomic(target, b"old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
    with replacing(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]
    os.umask(mask := os.umask(0))
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
    with pytest.raises(UserError, match=r"cannot write .*a\.png/x: "):
        write_atomic(target / "x", b"")


HOLD = """
import sys, time
from pathlib import Path
from dreamfusion.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_belongs_to_one_process_until_it_ends_however_it_ends(fresh: Run) -> None:
    before = sorted(fresh.path.iterdir())
    source = os.environ | {"PYTHONPATH": str(Path(run.__file__).parents[1])}
    argv = [sys.executable, "-c", HOLD, str(fresh.path)]
    other = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=source)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is in use by another process"), fresh.locked():
            pass
        with pytest.raises(UserError, match="is in use by another process"):
            generate("a ball", "fast", out=fresh.path, prior=GrayBallPrior(), **SMALL)
    finally:
        other.kill()
        other.wait()
    with fresh.locked():
        pass
    with fresh.locked():
        assert sorted(fresh.path.iterdir()) == before


def test_a_run_is_held_while_it_goes_on_and_let_go_after(tmp_path: Path) -> None:
    place = tmp_path / "run"

    def try_another(_: object) -> None:
        def resume() -> None:
            with pytest.raises(UserError, match="in use"):
                generate(resume=place, prior=GrayBallPrior())

        with ThreadPoolExecutor(1) as pool:  # the thread that holds it may go into it again
            pool.submit(resume).result()

    generate("a ball", "fast", out=place, prior=GrayBallPrior(), callbacks=[try_another], **(SMALL | {"steps": 2}))
    generate(resume=place, prior=GrayBallPrior())
