"""Runs that are paused, that are given other settings while they are in progress, and several at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")

from dreamfusion import cli, generate
from dreamfusion.run import Run
from dreamfusion.studio import desk as desks
from dreamfusion.studio.desk import Desk
from tests.fakes import SMALL, GrayBallPrior
from tests.faults import environment
from tests.test_studio import client_of, state, submit, wait


@pytest.fixture(autouse=True)
def source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers import this source tree."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def desk_of(root: Path, made: Path, seconds: float, at_once: int = 1) -> Desk:
    worker = (sys.executable, "-m", "tests.studio_worker", str(made), str(seconds))
    return Desk(root, worker=worker, at_once=at_once)


def test_a_paused_run_keeps_its_place_even_if_the_server_ends(tmp_path: Path, made_once: Path) -> None:
    desk = desk_of(tmp_path / "runs", made_once, 0.3)
    client = client_of(desk)
    first, second, third = (submit(client, prompt) for prompt in ("a first", "a second", "a third"))
    assert client.post(f"/runs/{second}/pause").json()["state"] == "paused"  # it has not begun
    desk.start()
    wait(lambda: client.get(f"/runs/{first}").json()["step"] >= 1)
    assert client.post(f"/runs/{first}/pause").json()["state"] in ("stopping", "paused")
    wait(lambda: state(client, third) == "done")  # it overtakes both
    assert [run["state"] for run in client.get("/runs").json()] == ["paused", "paused", "done"]
    assert client.get(f"/runs/{first}/scene.jpg").status_code != 409  # nobody holds it
    assert client.post("/runs/nothing/pause").status_code == 404
    assert client.post(f"/runs/{third}/pause").status_code == 409
    desk.close()
    again = desk_of(tmp_path / "runs", made_once, 0.02)
    client = client_of(again)
    again.start()
    assert [run["state"] for run in client.get("/runs").json()] == ["paused", "paused", "done"]
    assert client.post(f"/runs/{first}/resume", json={}).json()["state"] in ("queued", "running")
    wait(lambda: state(client, first) == "done")
    assert client.post(f"/runs/{second}/stop").json() == {"id": second, "state": "removed"}
    again.close()


def test_several_runs_at_a_time_in_their_order(tmp_path: Path, made_once: Path) -> None:
    desk = desk_of(tmp_path / "runs", made_once, 0.5, at_once=2)
    client = client_of(desk)
    ids = [submit(client, f"a thing {k}") for k in range(3)]
    desk.start()
    both = wait(lambda: [run["state"] for run in client.get("/runs").json()] == ["running", "running", "queued"])
    assert both
    for id in ids[:2]:
        wait(lambda id=id: client.get(f"/runs/{id}/live.jpg").status_code == 200)
    assert client.post(f"/runs/{ids[0]}/look", json={"azimuth": 10}).status_code == 204
    assert client.post(f"/runs/{ids[2]}/look", json={"azimuth": 10}).status_code == 409
    client.post(f"/runs/{ids[0]}/stop")
    wait(lambda: state(client, ids[2]) == "running")  # its place is taken at once
    wait(lambda: {state(client, id) for id in ids[1:]} == {"done"})
    assert state(client, ids[0]) == "stopped" and desk.queue.entries == [] and desk.active == {}
    desk.close()


def test_what_may_be_asked_of_a_run_in_the_queue(tmp_path: Path, made_once: Path) -> None:
    desk = desk_of(tmp_path / "runs", made_once, 0.3)  # nobody works
    client = client_of(desk)
    id = submit(client, settings={"seed": "4"})
    assert client.post(f"/runs/{id}/resume", json={}).json()["detail"].endswith("it is in the queue")
    for new, said in (({"seed": 3}, "keeps its seed"), ({"guidance_scale": "much"}, "is not allowed")):
        answer = client.post(f"/runs/{id}/resume", json={"settings": new})
        assert answer.status_code == 422 and said in answer.json()["detail"]
    notes = client.post(f"/runs/{id}/resume/check", json={"settings": {"view.background_lr": 0.5}}).json()["notes"]
    assert notes == ["view.background_lr = 0.5 has no effect: view.background is not learned"]
    client.post(f"/runs/{id}/pause")
    assert client.post(f"/runs/{id}/resume", json={"settings": {"scene.lr": 0.05}}).json()["state"] == "queued"
    assert client.post(f"/runs/{id}/resume", json={"steps": 9}).status_code == 200
    again = desk_of(tmp_path / "runs", made_once, 0.02)  # the server has ended before it began
    again.start()
    wait(lambda: state(client_of(again), id) == "done")
    assert again.queue.entries == []
    again.close()


@pytest.mark.slow
def test_a_change_while_it_runs_is_recorded_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause, a change in full run, and one that comes too late; the same run alone, from its run.yaml, has the same tensors."""
    monkeypatch.setattr(desks, "LIVE", {"every": 0.0, "live": 0})
    desk = Desk(tmp_path / "runs", worker=(sys.executable, "-m", "tests.batch_worker", "0.1"))
    client = client_of(desk)
    id = desk.submit("a ball", "fast", {name: str(value) for name, value in SMALL.items()} | {"steps": "40"})
    other = submit(client, "another")
    desk.pause(other)
    desk.start()

    def step() -> int:
        found = desk.active.get(id)
        return found.said.get("step", 0) if found else 0

    wait(lambda: step() > 1)
    assert client.post(f"/runs/{id}/pause").json()["state"] == "stopping"
    wait(lambda: state(client, id) == "paused")
    paused = client.get(f"/runs/{id}").json()["step"]
    client.post(f"/runs/{id}/resume", json={})
    wait(lambda: step() > paused)
    new = {"distillation.weight": "uniform", "scene.lr": "0.05"}
    assert client.post(f"/runs/{id}/resume", json={"settings": new}).json()["state"] == "running"
    (change,) = wait(lambda: client.get(f"/runs/{id}").json().get("changes"))
    assert paused < change["step"] < 40 and change["settings"] == {"distillation.weight": "uniform", "scene.lr": "0.05"}
    wait(lambda: step() == 40)
    client.post(f"/runs/{id}/resume", json={"settings": {"scene.lr": "0.1"}})
    wait(lambda: state(client, id) == "done")
    desk.close()
    assert len(Run.open(tmp_path / "runs" / id).config.changes) == 1
    generate(preset=str(tmp_path / "runs" / id / "run.yaml"), out=tmp_path / "alone", prior=GrayBallPrior())
    places = (tmp_path / "runs" / id, tmp_path / "alone")
    files = [[p.name for p in place.glob("checkpoint/*.safetensors")] for place in places]
    assert files[0] == files[1] != []


def test_mistakes_in_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in ("0", "65", "two"):
        assert cli.main(["studio", "--at-once", wrong]) == 2
        assert f"--at-once = '{wrong}' is not allowed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
