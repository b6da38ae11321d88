"""The scene of a run that was stopped: drawn from its checkpoint, from any side, by a process that does one picture at a time."""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")

from fastapi.testclient import TestClient

from dreamfusion.batch import live_pictures
from dreamfusion.batch import worker as serving
from dreamfusion.batch.jobs import Job
from dreamfusion.batch.live_pictures import picture_of
from dreamfusion.errors import UserError
from dreamfusion.export import turntable
from dreamfusion.generation import Loader
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.studio.desk import Busy, Desk
from dreamfusion.studio.easel import Easel
from dreamfusion.studio.web import make_app
from tests.fakes import SMALL, GrayBallPrior
from tests.faults import environment, use
from tests.test_studio import HERE, wait

FAKE = """
import base64, json, os, sys, time
for line in sys.stdin:
    azimuth = json.loads(line)["azimuth"]
    if azimuth == 1:
        time.sleep(100)
    if azimuth == 2:
        os._exit(9)
    print(json.dumps({"error": None, "picture": base64.b64encode(str(os.getpid()).encode()).decode()}), flush=True)
"""
"""Draws its process's number; it never ends with azimuth 1, and crashes with 2."""


@pytest.fixture
def studio(
    tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TestClient, Easel, Path]]:
    """The studio of one run, which nobody makes; its easel; and the run's folder."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "runs" / "ball-0"
    shutil.copytree(made_once, folder)
    desk, easel = Desk(folder.parent), Easel(tmp_path / "log", threads=1)
    with TestClient(make_app(desk, easel=easel), base_url=HERE) as client:
        yield client, easel, folder
    assert easel.closed and easel.own is None  # the server's end is the process's end


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Callable[..., Easel]]:
    """Makes easels with the process ``FAKE``."""
    made: list[Easel] = []

    def make(**bounds: float) -> Easel:
        made.append(Easel(tmp_path / "log", command=(sys.executable, "-c", FAKE), **bounds))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for easel in made:
        easel.close()


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)), dtype=int)


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_newest_checkpoint_is_seen_from_all_sides_and_a_damaged_one_is_named(studio: Any) -> None:
    client, _, folder = studio

    def agrees(azimuth: float, elevation: float) -> np.ndarray:
        asked = {"azimuth": azimuth, "elevation": elevation, "size": 64}
        answer = client.get("/runs/ball-0/scene.jpg", params=asked)
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg", answer.text
        scene, _ = load_scene(Run.open(folder))
        expected = pixels(base64.b64decode(picture_of(scene, azimuth, elevation, 64)))
        assert expected.shape == (64, 64, 3) and np.abs(pixels(answer.content) - expected).max() <= 2
        return expected

    run = Run.open(folder)
    tensors, meta = run.load_checkpoint()
    noise = torch.Generator().manual_seed(0)
    lumpy = {k: v + torch.randn(v.shape, generator=noise) if v.is_floating_point() else v for k, v in tensors.items()}
    first = agrees(0, 15)
    run.save_checkpoint(lumpy, meta)  # somebody has gone on with it
    front, side = agrees(0, 15), agrees(90, -30)
    assert np.abs(front - first).max() > 10 and np.abs(side - front).max() > 10
    meta["step"] -= 1
    run.save_checkpoint(tensors, meta)
    (saved,) = (folder / "checkpoint").glob("*.safetensors")
    saved.write_bytes(saved.read_bytes()[:-1])
    answer = client.get("/runs/ball-0/scene.jpg")
    assert answer.status_code == 422 and "is truncated" in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"] and str(folder.parent) not in answer.json()["detail"]


def test_what_is_not_there_or_not_allowed_starts_no_process(studio: Any) -> None:
    client, easel, folder = studio
    for wrong in ("azimuth=nan", "azimuth=inf", "azimuth=4000", "elevation=90", "size=9", "size=4096", "size=x"):
        answer = client.get(f"/runs/ball-0/scene.jpg?{wrong}")
        assert answer.status_code == 422 and answer.json()["detail"].startswith(wrong.partition("=")[0])
    assert client.get("/runs/nothing/scene.jpg").status_code == 404
    shutil.rmtree(folder / "checkpoint")
    assert client.get("/runs/ball-0/scene.jpg").json() == {"detail": "there is no checkpoint yet"}
    assert easel.own is None


def test_a_run_in_progress_has_its_own_pictures(tmp_path: Path, made_once: Path, fake: Any) -> None:
    shutil.copytree(made_once, tmp_path / "runs" / "ball-0")
    desk = Desk(tmp_path / "runs")
    client = TestClient(make_app(desk, easel=fake()), base_url=HERE)
    assert client.get("/runs/ball-0/scene.jpg").status_code == 200
    desk.active["ball-0"] = None  # type: ignore[assignment]
    answer = client.get("/runs/ball-0/scene.jpg")
    assert answer.status_code == 409 and "live.jpg" in answer.json()["detail"]


def test_one_picture_at_a_time_and_no_longer_than_it_may(tmp_path: Path, fake: Any) -> None:
    easel, said = fake(), []

    def slow() -> None:
        with pytest.raises(UserError, match=r"^the scene could not be drawn: it took longer than 3 seconds$"):
            easel.draw(tmp_path, 1, 0, 64)
        said.append("late")

    first = int(easel.draw(tmp_path, 0, 0, 64))
    assert int(easel.draw(tmp_path, 3, 0, 64)) == first  # the same process
    easel.seconds = 3.0
    other = threading.Thread(target=slow)
    other.start()
    wait(easel.one.locked, 30)
    with pytest.raises(Busy, match="another picture is being drawn"):  # it does not wait for that one
        easel.draw(tmp_path, 0, 0, 64)
    other.join(60)
    easel.seconds = 60.0
    assert said == ["late"] and not alive(first)
    assert int(easel.draw(tmp_path, 0, 0, 64)) != first


def test_a_crash_costs_one_picture(tmp_path: Path, fake: Any) -> None:
    easel = fake()
    with pytest.raises(UserError, match=r"^the scene could not be drawn: its process ended \(9\)$"):
        easel.draw(tmp_path, 2, 0, 64)
    assert int(easel.draw(tmp_path, 0, 0, 64)) > 0


def test_the_process_ends_when_nobody_looks(tmp_path: Path, fake: Any) -> None:
    easel = fake(idle=0.1)
    number = int(easel.draw(tmp_path, 0, 0, 64))
    wait(lambda: not alive(number), 60)
    wait(lambda: not easel.one.locked(), 60)
    assert int(easel.draw(tmp_path, 0, 0, 64)) != number


def test_the_end_of_the_studio_ends_what_is_drawn(tmp_path: Path, fake: Any) -> None:
    easel, said = fake(), []

    def slow() -> None:
        try:
            easel.draw(tmp_path, 1, 0, 64)
        except UserError as error:
            said.append(str(error))

    other = threading.Thread(target=slow)
    other.start()
    wait(lambda: easel.own is not None, 30)
    easel.close()
    other.join(30)
    assert len(said) == 1 and "SIGKILL" in said[0] and easel.own is None
    with pytest.raises(Busy):
        easel.draw(tmp_path, 0, 0, 64)


@pytest.mark.parametrize(("live", "seconds", "fresh"), [(8, 1e9, True), (8, 0.0, False), (0, 1e9, False)])
def test_a_stop_leaves_a_preview_of_the_last_step(
    live: int, seconds: float, fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If somebody looks at the run's pictures, and if it does not take too long."""
    use(GrayBallPrior(), monkeypatch)
    monkeypatch.setattr(live_pictures, "LAST_SECONDS", seconds)
    ended = threading.Event()

    def heard(message: dict[str, Any]) -> None:
        if message.get("step", 0) >= 3:
            ended.set()
            time.sleep(0.1)  # a thread passes it on, after at most 0.2 s

    ask = Job(tmp_path / "run", "a ball", "fast", SMALL | {"steps": 50}).ask()
    assert ask is not None
    with pytest.raises(SystemExit):
        serving.make(ask | {"live": live, "every": 0.0}, Loader(), heard, ended)
    run = Run.open(tmp_path / "run")
    assert 3 <= run.read_meta()["step"] < 50 and (run.path / "preview.png").exists() == fresh
    if fresh:
        turntable.write_preview(tmp_path / "expected.png", load_scene(run)[0], 4)
        found, expected = (np.asarray(Image.open(p)) for p in (run.path / "preview.png", tmp_path / "expected.png"))
        assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("seconds", "size"), [(0.1, 192), (2.0, 96), (7.9, 48), (8.2, None)])
def test_a_preview_of_a_slow_scene_is_small(
    seconds: float, size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``seconds`` of a picture of 192 pixels a side. Twelve of them are to take 6 s at most: time grows with the pixels."""
    clock, written = [0.0], []

    def slow(*_: Any) -> str:
        clock[0] += seconds
        return ""

    monkeypatch.setattr(live_pictures, "picture_of", slow)
    monkeypatch.setattr(live_pictures, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(
        turntable, "write_preview", lambda path, scene, views, size: written.append((path, views, size))
    )
    assert live_pictures.last_preview(tmp_path, None) == (size is not None)  # type: ignore[arg-type]
    assert written == ([(tmp_path, 4, size)] if size else [])
