"""Batches of runs: whatever stops them, the same command goes on, and the assets are those of undisturbed runs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dreamfusion import cli, generate
from dreamfusion.asset import Asset
from dreamfusion.batch import crew, glb_json
from dreamfusion.batch.board import Board
from dreamfusion.batch.jobs import Job
from dreamfusion.batch.prompt_list import read_jobs
from dreamfusion.batch.worker import make
from dreamfusion.errors import UserError
from dreamfusion.files import locked
from dreamfusion.generation import Loader
from dreamfusion.run import Run
from tests.fakes import SMALL, GrayBallPrior, options
from tests.faults import environment, use

OFTEN = {"run.checkpoint_seconds": 1e-6}
LINES = "a ball\na red ball\na blue ball\n"


def worker(*words: object) -> tuple[str, ...]:
    return sys.executable, "-m", "tests.batch_worker", *map(str, words)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(crew, "WORKER", worker())
    Path("p.txt").write_text(LINES)
    return tmp_path


def command(steps: int = 6, **settings: Any) -> list[str]:
    asked = SMALL | {"steps": steps} | settings
    return ["batch", "p.txt", "--out", "set", "--preset", "fast", "--workers", "2", *options(asked)]


def tensors_file(folder: Path) -> str:
    """The name of a run's tensors, which holds the SHA-256 of their content."""
    (path,) = (folder / "checkpoint").glob("*.safetensors")
    return path.name


def undisturbed(place: Path, steps: int = 6) -> dict[str, str]:
    """The tensors of the same runs, made one by one."""
    for prompt in LINES.splitlines():
        folder = place / f"{prompt.replace(' ', '-')}-0"
        generate(prompt, "fast", out=folder, prior=GrayBallPrior(), **SMALL | {"steps": steps})
    return {folder.name: tensors_file(folder) for folder in sorted(place.iterdir())}


def made(place: Path = Path("set")) -> dict[str, str]:
    return {
        run.parent.name: tensors_file(run.parent)
        for run in sorted(place.glob("*/run.yaml"))
        if "broken" not in str(run)
    }


def times() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path("set").rglob("*.*") if path.name != "index.html"}


def test_only_what_is_missing_or_broken_is_made(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = [*command(), "--workers", "1"]  # each takes seconds to start
    assert cli.main(one) == 0
    alone = undisturbed(here / "alone")
    assert made() == alone
    page = Path("set/index.html").read_text()
    assert all(f"{name}/asset.glb" in page for name in alone) and page.count("data:image/jpeg") == 6
    assert "http" not in page and "<script" not in page and "Not made" not in page
    assert not Path("set/workers.log").exists()
    before = times()
    assert cli.main([*command(), "--json"]) == 0
    assert times() == before  # nothing is made twice
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["assets"] == 3

    ball, blue, red = (Path("set") / name for name in alone)
    (ball / "asset.glb").write_bytes((ball / "asset.glb").read_bytes()[:-9])
    tensors = red / "checkpoint" / tensors_file(red)
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
    assert cli.main(one) == 0
    assert made() == alone and glb_json.glb_json(ball / "asset.glb") is not None
    assert "was altered" in capfd.readouterr().err and (red.with_name("a-red-ball-0.broken") / "run.yaml").exists()
    after = times()
    assert all(after[name] == at for name, at in before.items() if name.startswith(str(blue)))

    Path("set/a-ball-0/run.yaml").write_text("[")
    assert Job(ball, "a ball", "fast").state() == ("broken", f"{ball / 'run.yaml'} cannot be read as YAML")
    assert cli.main([*command(), "--view.words", "false"]) == 2
    assert "was made with view.words = true, now false; move it away" in capfd.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_its_checkpoint(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crew, "WORKER", worker(0, 4, here / "mark"))
    assert cli.main([*command(**OFTEN), "--workers", "1"]) == 0  # each takes seconds to start
    said = capfd.readouterr().err
    assert "failed: its process ended (SIGKILL, perhaps for lack of memory); it will be tried again" in said
    assert made() == undisturbed(here / "alone")


def test_failures_are_listed_retries_bounded_and_the_rest_made(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = """
import json, os, sys
for line in sys.stdin:
    name = json.loads(line)["folder"]
    open("tries.txt", "a").write(name + "\\n")
    if name.endswith("red-ball-0"): os._exit(9)
    print(json.dumps({"error": "wrong" if name.endswith("blue-ball-0") else None, "kind": "user"}), flush=True)
"""
    monkeypatch.setattr(crew, "WORKER", (sys.executable, "-c", script))
    assert cli.main(command()) == 1
    said = capfd.readouterr()
    assert "1 of 3 assets, 2 failed" in said.out and "a-red-ball-0: its process ended (9)" in said.out
    tries = Path("tries.txt").read_text().split()
    assert sorted(tries) == ["set/a-ball-0", "set/a-blue-ball-0", *["set/a-red-ball-0"] * 3]
    page = Path("set/index.html").read_text()
    assert "Not made" in page and "its process ended (9)" in page


class Hand:
    """A worker that makes every job at once; "odd" in a job's name is more than it can bear."""

    alive = True

    def __init__(self) -> None:
        self.made: list[str] = []

    def make(self, ask: dict[str, Any], heard: Any) -> dict[str, Any]:
        if "odd" in ask["folder"]:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        self.made.append(Path(ask["folder"]).name)
        return {"error": None}

    def stop(self) -> None: ...

    def close(self) -> None: ...

    def kill(self) -> None:
        self.alive = False


@pytest.mark.parametrize("retries", [0, 2])
def test_every_job_for_which_no_worker_can_be_had_has_failed(tmp_path: Path, retries: int) -> None:
    asked: list[None] = []

    def hire() -> Hand:
        asked.append(None)
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    jobs = [Job(tmp_path / name, "a ball") for name in "abc"]
    result = crew.make_all(jobs, 2, crew.Watch(), retries=retries, hire=hire)
    why = "OSError: [Errno 12] Cannot allocate memory"
    assert result.failed == {job.folder: why for job in jobs} and result.signal == 0
    assert len(asked) == 3 * (1 + retries)


def test_a_job_that_cannot_be_asked_for_is_the_only_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(tmp_path / name, "a ball") for name in ("broken", "odd", "b", "c")]
    ask = Job.ask
    monkeypatch.setattr(Job, "ask", lambda job: {}["step"] if job.folder.name == "broken" else ask(job))
    hands: list[Hand] = []

    def hire() -> Hand:
        hands.append(Hand())
        return hands[-1]

    result = crew.make_all(jobs, 1, crew.Watch(), hire=hire)
    assert {folder.name: why.partition(":")[0] for folder, why in result.failed.items()} == {
        "broken": "KeyError",
        "odd": "UnicodeDecodeError",
    }
    assert [hand.made for hand in hands] == [[], ["b", "c"]] and not hands[0].alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_jobs_that_nobody_took_have_failed(tmp_path: Path) -> None:
    class Deaf(crew.Watch):
        def made(self, job: Job, seconds: float, waiting: int) -> None:
            raise BrokenPipeError

    jobs = [Job(tmp_path / name, "a ball") for name in "abc"]
    result = crew.make_all(jobs, 1, Deaf(), hire=Hand)
    assert set(result.failed) == {jobs[1].folder, jobs[2].folder}


def start(wait: float, steps: int) -> subprocess.Popen[str]:
    """The command in a process of its own, with a slow prior; returns once two runs have a checkpoint."""
    code = f"from dreamfusion.batch import crew; crew.WORKER = {worker(wait)!r}; from dreamfusion.cli import run; run()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command(steps, **OFTEN)], text=True, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 200
    while len(list(Path("set").glob("*/checkpoint/checkpoint.json"))) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_batch_goes_on_exactly(here: Path, number: signal.Signals) -> None:
    process = start(0.1, 40)
    process.send_signal(number)
    if number == signal.SIGKILL:
        process.wait()  # its workers notice, and end
    else:
        assert "the same command goes on" in process.communicate()[1] and process.returncode == 128 + number
        for folder in Path("set").glob("*/checkpoint"):
            with locked(folder.parent):
                pass  # nobody works on it any more
    assert not list(Path("set").glob("*/asset.glb"))
    assert cli.main(command(40, **OFTEN)) == 0
    assert made() == undisturbed(here / "alone", 40)


def test_two_batches_do_not_share_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("set").mkdir()
    code = "from pathlib import Path\nfrom dreamfusion.files import locked\n"
    code += "with locked(Path('set')): print(flush=True); input()"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert cli.main(command()) == 2
        other.kill()
    assert "set is in use by another process" in capsys.readouterr().err


def test_a_worker_makes_goes_on_and_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(GrayBallPrior(), monkeypatch)
    job = Job(tmp_path / "run", "a ball", "fast", SMALL | {"steps": 2, "export.level": 1.0})
    said: list[dict[str, Any]] = []
    ask = job.ask()
    assert ask is not None and make(ask, Loader(), said.append)["error"] is None and job.ask() is None
    assert said[0]["step"] == 1 and said[0]["steps"] == 2 and 0 < said[0]["metrics"]["t"] < 1
    (job.folder / "asset.glb").unlink()
    again = job.ask()
    assert again is not None and again["resume"] and make(again, Loader(), said.append)["error"] is None
    wrong = make(ask | {"folder": str(tmp_path / "wrong"), "preset": "fats"}, Loader(), said.append)
    assert "did you mean 'fast'" in wrong["error"] and wrong["kind"] == "user"
    monkeypatch.setattr("dreamfusion.generation.load_prior", lambda *_, **__: 1 / 0)
    bug = make(ask | {"folder": str(tmp_path / "other")}, Loader(), said.append)
    assert bug == {"error": "ZeroDivisionError: division by zero", "kind": "bug"}
    assert "Traceback" in (tmp_path / "other.log").read_text()


def test_paths_of_a_prior_and_the_words_of_a_picture_are_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").touch()
    job = Job(tmp_path / "run", "a ball", "fast", SMALL | {"prior.id": "mine.safetensors", "scene.levels": "6,10"})
    run = Run.create(job.folder, job.config.model_copy(deep=True))
    run.config.prior.id = str(tmp_path / "mine.safetensors")
    run.write_config("x", "0" * 64)
    assert job.state() == ("new", "")
    other = Job(job.folder, "a ball", "fast", job.settings | {"prior.id": "other.safetensors"})
    with pytest.raises(UserError, match=r"was made with prior\.id"):
        other.state()


def test_a_run_that_was_killed_before_its_film_is_not_finished(tmp_path: Path) -> None:
    film = {"export.turntable_frames": 2, "export.turntable_size": 16}
    job = Job(tmp_path / "run", "a ball", "fast", SMALL | {"steps": 1} | film)
    generate("a ball", "fast", out=job.folder, prior=GrayBallPrior(), **job.settings)
    assert job.state() == ("finished", "") and job.ask() is None
    (job.folder / "turntable.gif").unlink()
    assert job.state() == ("stopped", "") and (asked := job.ask()) is not None and asked["resume"]
    generate(resume=job.folder, prior=GrayBallPrior())
    assert job.state() == ("finished", "") and (job.folder / "turntable.gif").exists()


def test_a_run_that_was_given_steps_and_killed_before_its_asset_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = {"export.turntable_frames": 2, "export.turntable_size": 16}
    job = Job(tmp_path / "run", "a ball", "fast", SMALL | {"steps": 1} | film)
    generate("a ball", "fast", out=job.folder, prior=GrayBallPrior(), **job.settings)
    with monkeypatch.context() as broken:
        broken.setattr(Asset, "from_scene", lambda *_, **__: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            generate(resume=job.folder, prior=GrayBallPrior(), steps=2)
    assert job.state() == ("stopped", "")
    generate(resume=job.folder, prior=GrayBallPrior())
    assert job.state() == ("finished", "")


def test_the_board_counts(tmp_path: Path) -> None:
    import io

    out = io.StringIO()
    jobs = [Job(tmp_path / name, "a [red] ball") for name in "abc"]
    with Board({job.folder: 10 for job in jobs}, out, every=0) as board:
        board.begun(jobs[0])
        board.heard(jobs[0], {"step": 5, "steps": 10})
        assert board.status().startswith("0/3 made, 0:0")
        board.heard(jobs[0], {"warning": "[bold]?"})
        board.made(jobs[0], 61, 2)
        board.failed(jobs[1], "it broke", True)
        board.failed(jobs[1], "it broke", False)
    assert board.status().startswith("1/3 made, 1 failed")
    said = out.getvalue()
    assert f"{jobs[0].folder}: warning: [bold]?" in said and "made in 1:01 min, 2 waiting" in said
    assert said.count("it will be tried again") == 1


def test_cores_are_shared(here: Path) -> None:
    from dreamfusion.batch.jobs import with_threads

    (first, *_) = read_jobs("p.txt", Path("set"))
    assert with_threads(first, 3).config.threads == 3
    (own, *_) = read_jobs("p.txt", Path("set"), settings={"threads": "1"})
    assert with_threads(own, 3).config.threads == 1
    assert os.sched_getaffinity(0)
