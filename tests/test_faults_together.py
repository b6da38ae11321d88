"""Two at once: a folder is taken before the slow part, and nobody's files are lost."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trimesh

from dreamfusion import Asset, UserError, cli, files, generate, generation
from dreamfusion.files import locked, remove_strays, replacing, write_atomic
from dreamfusion.run import Run
from dreamfusion.settings.presets import resolve
from tests.fakes import SMALL, GrayBallPrior
from tests.faults import CHAIR, TINY, made_run, one_line, use

CONFIG = resolve("balanced", TINY, "a red chair")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    use(GrayBallPrior(), monkeypatch)


def in_a_thread(act: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


def in_a_process(act: Callable[[], Any]) -> str:
    """What ``act`` answers, or the line of its UserError, in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(act()).encode())
        except UserError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as answer:
        return answer.read()


def claim(path: str | None) -> str:
    with Run.claim(path, CONFIG) as run:
        return str(run.path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def while_loading(act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let ``act`` happen while the (first) prior is loaded; what it answered."""
    seen: list[Any] = []

    def load(*_: object, **__: object) -> GrayBallPrior:
        monkeypatch.setattr(generation, "load_prior", lambda *_, **__: GrayBallPrior())
        seen.append(act())
        return GrayBallPrior()

    monkeypatch.setattr(generation, "load_prior", load)
    return seen


@pytest.mark.parametrize(
    "argv", [[*CHAIR, "--out", "r"], ["generate", "--resume", "r"]], ids=["a new run", "a resumed run"]
)
def test_a_folder_is_taken_while_the_prior_loads(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if "--resume" in argv:
        made_run(Path("r"))
    others: list[dict[str, Any]] = [{"out": "r"} | TINY, {"resume": "r"}, {"out": "./r/../r"} | TINY]

    def said(other: dict[str, Any]) -> str:
        with pytest.raises(UserError) as caught:
            generate(**({} if "resume" in other else {"prompt": "a red chair"}), **other)
        return str(caught.value)

    seen = while_loading(lambda: [in_a_thread(partial(said, other)) for other in others], monkeypatch)

    assert cli.main(argv) == 0
    for line in seen[0]:
        assert "in use by another process" in line or "already holds a run" in line or "holds no run.yaml" in line
    assert (Path("r") / "asset.glb").is_file()


def test_another_process_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = while_loading(lambda: in_a_process(lambda: claim("r")), monkeypatch)
    generate("a red chair", out="r", **TINY)
    assert seen == ["r is in use by another process; wait until it has ended, or stop it"]
    assert in_a_process(lambda: claim("r")) == "r already holds a run; go on with --resume r, or choose another --out"


def test_a_forked_child_does_not_keep_its_parents_folder() -> None:
    os.mkdir("r")
    read, write = os.pipe()
    with locked(Path("r")):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is done
            os._exit(0)
        assert in_a_process(lambda: locked(Path("r")).__enter__()).startswith("r is in use by another process")
    with locked(Path("r")):
        pass
    os.close(write)
    os.waitpid(child, 0)


def test_the_line_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with Run.claim("r", CONFIG):

        def second() -> int:
            return cli.main([*CHAIR, "--out", "r"])

        assert in_a_thread(second) == 2
    assert one_line(capsys.readouterr().err).startswith("r is in use by another process")
    assert os.listdir() == [], "nothing was written"


def test_two_default_runs_take_two_folders(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = while_loading(lambda: in_a_thread(lambda: cli.main(CHAIR)), monkeypatch)
    assert cli.main(CHAIR) == 0 and seen == [0]
    assert sorted(os.listdir("runs")) == ["a-red-chair-0", "a-red-chair-0-2"]
    for name in os.listdir("runs"):
        assert Run.open(Path("runs") / name).read_log()[-1]["step"] == 2
        Asset.load(f"runs/{name}/asset.glb")


def test_many_processes_take_many_default_folders() -> None:
    count, barrier = 4, threading.Barrier(4)

    def work(_: int) -> str:
        barrier.wait()

        def act() -> str:
            with Run.claim(None, CONFIG) as run:
                run.write_config("gray-ball", "0" * 64)
                return str(run.path)

        return in_a_process(act)

    with ThreadPoolExecutor(count) as pool:
        taken = list(pool.map(work, range(count)))
    assert len(set(taken)) == count and sorted(Path(p).name for p in taken) == sorted(os.listdir("runs"))


def test_without_locks_a_run_that_was_finished_meanwhile_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Network drives may not support locks: what is there is looked at again after the slow part."""
    monkeypatch.setattr(files, "fcntl", None)
    seen = while_loading(
        lambda: in_a_thread(lambda: generate("a red chair", out="r", **TINY) and contents(Path("r"))), monkeypatch
    )
    with pytest.raises(UserError, match="r already holds a run"):
        generate("a red chair", out="r", seed=7, **TINY)
    assert contents(Path("r")) == seen[0] and "asset.glb" in seen[0]


@pytest.mark.parametrize("fault", ["a file", "a folder", "a run"])
def test_what_appears_meanwhile_is_not_overwritten(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def appear() -> None:
        if fault == "a run":
            (Path("r") / "run.yaml").write_text("x")
            (Path("r") / "asset.glb").write_text("mine")
        else:
            (Path("r") / "mine").mkdir() if fault == "a folder" else (Path("r") / "mine").write_text("mine")

    while_loading(appear, monkeypatch)
    with pytest.raises(UserError, match=r"already holds a run|exists and is not a run"):
        generate("a red chair", out="r", **TINY)
    assert sorted(os.listdir("r")) == (["asset.glb", "run.yaml"] if fault == "a run" else ["mine"])


def test_a_mistake_after_the_claim_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError("no such prior")

    monkeypatch.setattr(generation, "load_prior", fail)
    for argv in (CHAIR, [*CHAIR, "--out", "deep/er/r"]):
        assert cli.main(argv) == 2 and os.listdir() == []
    os.mkdir("mine")
    assert cli.main([*CHAIR, "--out", "mine"]) == 2 and os.listdir() == ["mine"], "a folder that was there stays"


def test_a_parent_that_another_run_uses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        Path("runs/other").mkdir()
        raise UserError("no such prior")

    monkeypatch.setattr(generation, "load_prior", fail)
    assert cli.main(CHAIR) == 2 and os.listdir("runs") == ["other"]


def test_a_thread_may_lock_its_own_folder_again() -> None:
    os.mkdir("r")
    with locked(Path("r")), locked(Path("./r")):
        with pytest.raises(UserError, match="in use"):
            in_a_thread(lambda: locked(Path("r")).__enter__())
    with locked(Path("r")):
        assert len(files.HELD) == 1
    assert not files.HELD


def test_a_folder_that_was_removed_before_it_was_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process found nothing to keep and removed its empty folder: a lock on that one protects nothing."""
    os.mkdir("r")
    lock = files._lock

    def meanwhile(handle: int) -> bool:
        os.rmdir("r")
        os.mkdir("r")
        return lock(handle)

    monkeypatch.setattr(files, "_lock", meanwhile)
    with pytest.raises(UserError, match="in use"), locked(Path("r")):
        pass


def test_a_stray_file_is_removed_unless_it_is_being_written() -> None:
    run = Run.open(made_run(Path("r")))
    (run.path / ".tmp-of-a-killed-process.glb").write_text("half")
    with replacing(run.path / "asset.glb") as temporary:
        temporary.write_bytes(b"another export")
        run.truncate_log(2)
        assert [p.name for p in run.path.glob(".tmp-*")] == [temporary.name]
    assert (run.path / "asset.glb").read_bytes() == b"another export"
    remove_strays(run.path)
    assert not list(run.path.glob(".tmp-*"))


def test_an_export_beside_a_resumed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(Path("r"))
    with Run.open("r").locked():
        assert in_a_thread(lambda: cli.main(["export", "r", "--format", "stl"])) == 0
        assert in_a_thread(lambda: cli.main(["render", "r", "--views", "0,", "--size", "16"])) == 0
    assert Path("r/asset.stl").is_file() and Path("r/views/color-0.png").is_file()


def test_writers_of_one_file_leave_a_whole_one() -> None:
    data = [bytes([k]) * 100_000 for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda d: write_atomic("x", d), data * 3))
    assert Path("x").read_bytes() in data and os.listdir() == ["x"]


def test_files_have_the_usual_permissions() -> None:
    before = os.umask(0o027)
    try:
        write_atomic("x", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("x").st_mode) == 0o640


@pytest.fixture(scope="module")
def asset() -> Asset:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        use(GrayBallPrior(), patch)
        return generate("a ball", prior=GrayBallPrior(), **SMALL | {"steps": 1, "export.maps": "auto"})


def test_assets_share_no_files(asset: Asset) -> None:
    names = ["chair 1.obj", "chair_1.obj", "chair  1.obj", "chair\t1.obj", "chair(1).obj", "chair_1.OBJ", "chair#1.obj"]
    written = [set(asset.save(name)) for name in names]
    each = 4  # .obj, .mtl, the texture, occlusion
    assert len(set.union(*written)) == each * len(names) == len(os.listdir())
    for name in names:
        mesh = trimesh.load(name, process=False, file_type="obj")
        assert mesh.visual.material.image.size == (64, 64)
    plain = {"chair_1.obj", "chair_1.mtl", "chair_1.png", "chair_1-occlusion.png"}
    assert {p.name for p in asset.save("chair_1.obj")} == plain
    assert set(asset.save("chair 1.obj")) == written[0], "the same names every time"
