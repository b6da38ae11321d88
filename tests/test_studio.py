"""The studio: its queue, its REST interface, and what stands between it and the network."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")

from fastapi.testclient import TestClient

from dreamfusion import cli, generate
from dreamfusion.errors import UserError
from dreamfusion.run import Run
from dreamfusion.studio import desk as desks
from dreamfusion.studio import exporting
from dreamfusion.studio.desk import HIDDEN, TRASH, Busy, Desk
from dreamfusion.studio.guard import MOST_BYTES, Guard
from dreamfusion.studio.offers import REFUSED, check_settings, presets, settings, vocabulary
from dreamfusion.studio.web import make_app
from tests.fakes import SMALL, GrayBallPrior
from tests.faults import environment

HERE = "http://127.0.0.1:8765"


class Critic:
    def notes(self, prompt: str) -> list[str]:
        if not prompt.strip():
            raise UserError("the prompt is empty")
        return ["what is a limo?"] if "limo" in prompt else []


@pytest.fixture
def desk(tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    found = new_desk(tmp_path / "runs", made_once)
    found.start()
    yield found
    found.close()


def new_desk(root: Path, made: Path, seconds: float = 0.02) -> Desk:
    return Desk(root, worker=(sys.executable, "-m", "tests.studio_worker", str(made), str(seconds)))


def client_of(desk: Desk, **options: Any) -> TestClient:
    return TestClient(make_app(desk, critic=Critic(), **options), base_url=HERE)  # type: ignore[arg-type]


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return client_of(desk)


def wait(true: Callable[[], Any], seconds: float = 120.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def state(client: TestClient, id: str) -> str:
    return client.get(f"/runs/{id}").json()["state"]


def submit(client: TestClient, prompt: str = "a red chair", **more: Any) -> str:
    answer = client.post("/runs", json={"prompt": prompt, "preset": "fast", **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_a_run_is_made_shown_and_deleted(client: TestClient, desk: Desk, made_once: Path) -> None:
    id = submit(client, settings={"seed": "3", "guidance_scale": 2})
    assert id == "a-red-chair-3"
    wait(lambda: state(client, id) == "done")
    found = client.get(f"/runs/{id}").json()
    assert (found["prompt"], found["preset"], found["seed"], found["step"]) == ("a red chair", "fast", 3, 2)
    assert found["figures"]["triangles"] == 300 and found["notes"] == ["a word of warning"]
    assert found["cost"]["wh"] > 0 and [point["step"] for point in found["curves"]] == [1, 2]
    for name, kind in (("asset.glb", "model/gltf-binary"), ("preview.png", "image/png")):
        answer = client.get(f"/runs/{id}/{name}")
        assert answer.content == (made_once / name).read_bytes() and answer.headers["content-type"] == kind
    assert client.get(f"/runs/{id}/front.jpg").content[:3] == b"\xff\xd8\xff"
    assert client.get(f"/runs/{id}/turntable.mp4").status_code == 404
    assert [run["id"] for run in client.get("/runs").json()] == [id]
    assert client.delete(f"/runs/{id}").status_code == 204
    assert client.get("/runs").json() == [] and client.get(f"/runs/{id}").status_code == 404
    (trashed,) = (desk.root / TRASH).iterdir()
    assert trashed.name.startswith(id) and (trashed / "asset.glb").exists()


def test_progress_stop_and_resume(tmp_path: Path, made_once: Path, desk: Desk) -> None:
    desk.close()
    slow = new_desk(tmp_path / "slow", made_once, 4.0)
    slow.start()
    client = client_of(slow)
    id, other = submit(client), submit(client)
    assert other == "a-red-chair-0-2"  # the name is taken by one that only waits
    found = wait(lambda: (now := client.get(f"/runs/{id}").json()).get("left") and now)
    assert found["state"] == "running" and found["metrics"]["residual_norm"] > 0 and 0 < found["left"] <= 20
    assert (
        client.get(f"/runs/{id}/live.jpg").status_code == 200
        and client.get(f"/runs/{other}/live.jpg").status_code == 404
    )
    assert (
        client.delete(f"/runs/{id}").status_code == 409
        and client.post(f"/runs/{id}/resume", json={}).status_code == 409
    )
    assert client.post(f"/runs/{other}/stop").json() == {"id": other, "state": "removed"}
    client.post(f"/runs/{id}/stop")
    wait(lambda: state(client, id) == "stopped")
    assert client.post(f"/runs/{id}/stop").status_code == 409
    assert client.post(f"/runs/{id}/resume", json={"steps": 9}).json()["state"] in ("queued", "running")
    wait(lambda: state(client, id) == "running")
    slow.close()  # the server ends in the middle
    again = new_desk(tmp_path / "slow", made_once)
    assert [entry["id"] for entry in again.queue.entries] == [id] and again.queue.entries[0]["more"] == {"steps": 9}
    again.start()
    wait(lambda: state(client_of(again), id) == "done")
    again.close()
    assert json.loads((tmp_path / "slow" / HIDDEN / "queue.json").read_text())["queue"] == []


def test_a_stopped_run_is_given_other_settings(tmp_path: Path, made_once: Path) -> None:
    folder = tmp_path / "runs" / "ball-0"
    shutil.copytree(made_once, folder)
    page = yaml.safe_load((folder / "run.yaml").read_text())
    page["config"] |= {
        "steps": 9,
        "changes": [{"step": 1, "settings": {"scene.lr": 0.02, "view.elevation_deg": [0.0, 9.0]}}],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(page))
    desk = new_desk(tmp_path / "runs", made_once)  # nobody works
    client = client_of(desk)
    may = {setting["name"] for setting in client.get("/settings").json() if setting["mid_run"]}
    assert {"distillation.guidance_scale", "scene.lr", "export.faces"} <= may
    assert not {"steps", "seed", "scene.levels", "distillation.kind"} & may
    changes = [{"step": 1, "settings": {"scene.lr": "0.02", "view.elevation_deg": "0,9"}}]
    assert client.get("/runs/ball-0").json()["changes"] == changes
    for new, said in (
        ({"seed": 3}, "a resumed run keeps its seed"),
        ({"prior": "hf:x/y"}, "a resumed run keeps its prior.id"),
        ({"prompt": "a cat"}, "a resumed run keeps its prompt"),
        ({"scene.file": "/etc/passwd"}, "a resumed run keeps its scene.file"),
        ({"guidance_scale": "much"}, "distillation.guidance_scale = 'much' is not allowed"),
        ({"distillation.interval": 0.1}, "belongs to distillation.kind=ism"),
        ({"guidance": 3}, "unknown setting 'guidance'"),
        ({f"x{k}": 1 for k in range(200)}, "at most 100"),
    ):
        answer = client.post("/runs/ball-0/resume", json={"settings": new})
        assert answer.status_code == 422 and said in answer.json()["detail"] and "\n" not in answer.json()["detail"]
        answer = client.post("/runs/ball-0/resume/check", json={"settings": new})
        assert answer.status_code == 422 and said in answer.json()["detail"]
    for asked, notes in (
        ({"settings": {"scene.lr": 0.05}, "steps": 10}, []),
        ({"settings": {"scene.lr": "0.02"}}, ["scene.lr = 0.02 changes nothing: the run has that value already"]),
        ({"settings": {"view.background_lr": 0.5}}, ["view.background_lr = 0.5 has no effect: view.background is not learned"]),
    ):  # fmt: skip
        assert client.post("/runs/ball-0/resume/check", json=asked).json() == {"notes": notes}
    assert client.post("/runs/nothing/resume/check", json={}).status_code == 404
    assert desk.queue.entries == []
    answer = client.post(
        "/runs/ball-0/resume", json={"settings": {"guidance_scale": 5, "shading.albedo": " "}, "steps": 10}
    )
    assert answer.json()["state"] == "queued"
    assert (
        desk.queue.entries[0]["more"] == {"steps": 10, "distillation.guidance_scale": "5"}
        and desk.queue.entries[0]["resume"]
    )
    desk.stop("ball-0")
    shutil.rmtree(folder / "checkpoint")  # without one it begins anew, with them
    client.post("/runs/ball-0/resume", json={"settings": {"guidance_scale": 5}})
    assert (
        desk.queue.entries[0]["settings"] == {"distillation.guidance_scale": "5"}
        and not desk.queue.entries[0]["resume"]
    )


def test_a_crash_ends_the_run_and_not_the_studio(client: TestClient, tmp_path: Path, made_once: Path) -> None:
    bad, wrong, good = submit(client, "a crash"), submit(client, "a wrong chair"), submit(client, "a good chair")
    wait(lambda: state(client, good) == "done")
    assert client.get(f"/runs/{bad}").json()["error"] == "its process ended (9)"
    assert client.get(f"/runs/{wrong}").json()["error"] == "it cannot be" and state(client, wrong) == "failed"
    assert client_of(new_desk(tmp_path / "runs", made_once)).get(f"/runs/{bad}").json()["state"] == "failed"
    assert client.delete(f"/runs/{bad}").status_code == 204 and client.get(f"/runs/{bad}").status_code == 404


@pytest.mark.parametrize("where", ["begin", "make", "end"])
def test_an_error_of_the_studio_ends_the_run_and_not_the_queue(
    where: str, client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(of: Any, name: str) -> None:
        """The function of this name fails for the run "a-bad-chair-0", and works for the others."""
        real = getattr(of, name)

        def call(*given: Any) -> Any:
            if any("a-bad-chair-0" in str(each) for each in given):
                raise OSError(errno.EMFILE, "Too many open files")
            return real(*given)

        monkeypatch.setattr(of, name, call)

    failing(*{"begin": (desks, "InProgress"), "make": (desk, "_heard"), "end": (desks, "notes_about_entry")}[where])
    bad, good = submit(client, "a bad chair"), submit(client, "a good chair")
    wait(lambda: state(client, good) == "done")
    assert client.get(f"/runs/{bad}").json()["error"] == "OSError: [Errno 24] Too many open files"
    assert state(client, bad) == "failed" and desk.queue.entries == [] and desk.active == {}


def test_a_run_that_cannot_be_deleted_keeps_its_place(tmp_path: Path, made_once: Path) -> None:
    desk = new_desk(tmp_path / "runs", made_once)  # nobody works
    client = client_of(desk)
    id = submit(client)
    shutil.copytree(made_once, desk.root / id)
    code = "import sys\nfrom pathlib import Path\nfrom dreamfusion.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print(flush=True); input()"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(desk.root / id)], **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        answer = client.delete(f"/runs/{id}")
        assert answer.status_code == 422 and "in use by another process" in answer.json()["detail"]
        other.kill()
    assert state(client, id) == "queued" and [entry["id"] for entry in desk.queue.entries] == [id]
    assert client.delete(f"/runs/{id}").status_code == 204 and desk.runs() == desk.queue.entries == []


def test_the_queue_is_bounded(tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MOST_WAITING", 3)
    client = client_of(new_desk(tmp_path / "idle", made_once))  # nobody works
    ids = [submit(client) for _ in range(3)]
    answer = client.post("/runs", json={"prompt": "a chair"})
    assert answer.status_code == 409 and "the queue is full" in answer.json()["detail"]
    assert client.delete(f"/runs/{ids[1]}").status_code == 204
    assert [run["id"] for run in client.get("/runs").json()] == [ids[0], ids[2]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "x" * 1001}, "the most is 1000"),
        ({"prompt": "x" * 5000}, "at most 4000"),
        ({"prompt": "a\x07b"}, "not text"),
        ({"prompt": 5}, "prompt: "),
        ({}, "prompt: Field required"),
        ({"prompt": "a", "preset": "fats"}, "the studio has no preset 'fats'"),
        ({"prompt": "a", "preset": "/etc/passwd.yaml"}, "the studio has no preset"),
        ({"prompt": "a", "preset": "dreamfusion-sd"}, "the studio has no preset"),
        ({"prompt": "a", "settings": {"stepz": 3}}, "unknown setting 'stepz' (did you mean 'steps'?)"),
        ({"prompt": "a", "settings": {"steps": -1}}, "steps = '-1' is not allowed"),
        ({"prompt": "a", "settings": {"prior": "hf:x/y"}}, "the studio does not change prior.id"),
        ({"prompt": "a", "settings": {"image": "/etc/passwd"}}, "the studio does not change prior.image"),
        ({"prompt": "a", "settings": {"mesh": "/etc/passwd"}}, "the studio does not change scene.file"),
        ({"prompt": "a", "settings": {"stages.1.steps": 3}}, "the studio does not change stages.1.steps"),
        ({"prompt": "a", "out": "/tmp/x"}, "Extra inputs are not permitted"),
        ({"prompt": "a", "settings": {f"x{k}": 1 for k in range(200)}}, "at most 100"),
    ],
)
def test_mistakes_are_one_clear_line(body: dict[str, Any], said: str, client: TestClient, desk: Desk) -> None:
    answer = client.post("/runs", json=body)
    assert answer.status_code == 422 and said in answer.json()["detail"] and "\n" not in answer.json()["detail"]
    assert desk.runs() == []


@pytest.mark.parametrize(
    "id", ["%2e%2e", "..%2f..%2fetc", "x%00y", ".studio", ".trash", "link", "nothing", "x" * 500, "é"]
)
@pytest.mark.parametrize("rest", ["", "/asset.glb", "/run.yaml", "/front.jpg", "/live.jpg", "/scene.jpg"])
def test_nothing_outside_of_the_folder_is_reached(
    id: str, rest: str, client: TestClient, desk: Desk, made_once: Path
) -> None:
    if not (desk.root / "link").exists():
        (desk.root / "link").symlink_to(made_once)
    assert client.get(f"/runs/{id}{rest}", follow_redirects=False).status_code in (404, 405, 307)
    assert client.delete(f"/runs/{id}").status_code in (404, 405) and made_once.is_dir()


def test_a_link_inside_of_a_run_is_not_followed(client: TestClient, desk: Desk) -> None:
    id = submit(client)
    wait(lambda: state(client, id) == "done")
    path = desk.root / id / "preview.png"
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert (
        client.get(f"/runs/{id}/preview.png").status_code == 404
        and client.get(f"/runs/{id}/front.jpg").status_code == 404
    )


def test_other_sites_names_and_large_bodies_are_refused(client: TestClient, desk: Desk) -> None:
    assert client.get("/runs", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/runs", headers={"host": "localhost:9"}).status_code == 200
    body = {"prompt": "a chair", "preset": "fast"}
    assert client.post("/runs", json=body, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/runs", json=body, headers={"origin": "null"}).status_code == 403
    assert client.post("/runs", json=body, headers={"origin": "http://["}).status_code == 403
    assert client.post("/runs", json=body, headers={"origin": HERE}).status_code == 201
    large = b'{"prompt": "' + b"x" * MOST_BYTES + b'"}'
    assert client.post("/runs", content=large).status_code == 413
    assert client.post("/runs", content=iter([large[:10], large[10:]])).status_code == 413  # without a length
    assert client.post("/runs", content=b"\xff").status_code == 422
    for path in ("/", "/runs", "/nowhere", "/static/studio.js"):
        headers = client.get(path).headers
        assert (
            "default-src 'self'" in headers["content-security-policy"]
            and headers["x-content-type-options"] == "nosniff"
        )
        assert headers["x-frame-options"] == "DENY" and "access-control-allow-origin" not in headers
    assert client.options("/runs", headers={"origin": HERE, "access-control-request-method": "POST"}).status_code == 405


def test_a_token_is_needed_where_others_may_come(desk: Desk) -> None:
    client = client_of(desk, hosts=(), token="secret")
    for path in ("/", "/runs", "/static/studio.js", "/?token=wrong", "/runs?token=secret"):
        assert client.get(path, headers={"host": "any.example"}).status_code == 401, path
    assert client.get("/runs", headers={"authorization": "Bearer secret"}).status_code == 200
    answer = client.get("/?token=secret", follow_redirects=False)
    assert answer.status_code == 303 and "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
    assert client.get("/runs").status_code == 200  # the cookie


@pytest.mark.parametrize("asked", ["wrong", "%E2%82%AC", "%C3%A9", "a;b", "secret&token=wrong"])
def test_a_cookie_outlives_another_token_in_the_address(desk: Desk, asked: str) -> None:
    client = client_of(desk, hosts=(), token="secret")
    client.get("/?token=secret", follow_redirects=False)
    answer = client.get(f"/?token={asked}", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["set-cookie"].startswith("dreamfusion-token=secret;")
    assert client.get("/runs").status_code == 200


@pytest.mark.parametrize(
    ("length", "status"),
    [("0", 200), (str(MOST_BYTES), 200), ("²", 413), ("", 413), ("-1", 413), ("1e3", 413), ("9" * 5000, 413)],
)
def test_a_length_that_is_no_number_is_refused(length: str, status: int) -> None:
    said: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    # Bytes as a server hands them on: a client would encode ² otherwise.
    headers = [(b"host", b"localhost"), (b"content-length", length.encode("latin-1"))]
    scope = {"type": "http", "method": "GET", "path": "/runs", "query_string": b"", "headers": headers}
    asyncio.run(Guard(app)(scope, receive, send))
    assert said[0]["status"] == status


def test_the_page_and_what_it_offers(client: TestClient) -> None:
    page = client.get("/").text
    assert "dreamfusion" in page and "http:" not in page and "https:" not in page
    for name in ("studio.js", "studio.css", "model-viewer.min.js", "icon.svg"):
        assert f"/static/{name}" in page and client.get(f"/static/{name}").status_code == 200
    assert client.get("/static/../web.py").status_code == 404
    offered = client.get("/presets").json()
    assert {"fast", "balanced", "magic3d"} <= offered.keys() and not {
        "dreamfusion-sd",
        "text2mesh",
    } & offered.keys()
    names = [setting["name"] for setting in client.get("/settings").json()]
    assert "steps" in names and not set(REFUSED) & set(names)
    words = client.get("/vocabulary").json()
    assert "armchair" in words["things"] and "red" in words["looks"]
    assert client.get("/check", params={"prompt": "a limo"}).json() == {"notes": ["what is a limo?"], "error": None}
    assert client.get("/check", params={"prompt": " "}).json()["error"] == "the prompt is empty"
    assert client.get("/docs").status_code == 404  # it would fetch scripts from elsewhere
    described = client.get("/openapi.json").json()["paths"]
    assert {"/runs", "/runs/{id}", "/runs/{id}/events", "/runs/{id}/asset.glb", "/events"} <= described.keys()
    assert set(described["/runs/{id}"]) == {"get", "delete"}


def test_offers_can_be_used() -> None:
    assert len(vocabulary()["things"]) > 1343 and len(settings()) > 100
    for name in presets():
        assert check_settings(name, {"steps": 3, "seed": " "}) == {"steps": "3"}


def test_events_tell_what_changes(desk: Desk, client: TestClient) -> None:
    """The events of a run, read from the application itself: the test client waits for the end of an answer."""
    import asyncio

    id = submit(client)
    app, got, leave = make_app(desk, critic=Critic()), [], asyncio.Event()  # type: ignore[arg-type]

    async def read() -> None:
        async def receive() -> dict[str, Any]:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            got.append(message)
            if b'"state": "done"' in message.get("body", b""):
                leave.set()

        headers = [(b"host", b"127.0.0.1")]
        scope = {"type": "http", "method": "GET", "path": f"/runs/{id}/events", "headers": headers, "query_string": b""}
        scope |= {"raw_path": scope["path"].encode(), "root_path": "", "scheme": "http", "http_version": "1.1"}
        await asyncio.wait_for(
            app({**scope, "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9)}, receive, send), 120
        )

    asyncio.run(read())
    head, *rest = got
    assert head["status"] == 200 and (b"content-type", b"text/event-stream; charset=utf-8") in head["headers"]
    said = [
        json.loads(m["body"].decode().removeprefix("data: ")) for m in rest if m.get("body", b"").startswith(b"data: ")
    ]
    assert all(one["id"] == id for one in said) and said[-1]["state"] == "done"


def test_exports_are_made_apart_and_removed(client: TestClient, desk: Desk) -> None:
    id = submit(client)
    wait(lambda: state(client, id) == "done")
    answer = client.post(f"/runs/{id}/export", json={"format": "exe"})
    assert answer.status_code == 422 and "unknown format 'exe'" in answer.json()["detail"]
    assert client.post("/runs/nothing/export", json={}).status_code == 404
    assert client.post(f"/runs/{id}/export", json={"faces": 1}).status_code == 422
    answer = client.post(f"/runs/{id}/export", json={"format": "obj", "faces": 200, "texture_size": 64})
    assert answer.status_code == 200, answer.text
    assert answer.content[:2] == b"PK" and f'filename="{id}.zip"' in answer.headers["content-disposition"]
    assert not list((desk.root / HIDDEN).glob("export-*"))


def test_an_export_that_finds_no_place_leaves_the_next_one_free(
    tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = made_once, "glb", 300, 64, False
    for _ in range(2):  # the second is not told that another export is in progress
        with pytest.raises(UserError, match="there is no place for the export: No such file"):
            exporting.export(tmp_path / "gone", *asked)

    def full(**_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / HIDDEN).mkdir()
    with monkeypatch.context() as disk:
        disk.setattr(exporting.tempfile, "mkdtemp", full)
        with pytest.raises(UserError, match="no place for the export: No space left"):
            exporting.export(tmp_path, *asked)
    monkeypatch.setattr(exporting.subprocess, "run", lambda command, **_: exit("busy no more"))
    with pytest.raises(SystemExit, match="busy no more"):
        exporting.export(tmp_path, *asked)
    assert not list((tmp_path / HIDDEN).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("new", [{}, {"distillation.weight": "uniform", "scene.lr": "0.05"}])
def test_a_run_that_the_server_lost_goes_on_exactly(
    new: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody watches what the prior sees, and may change settings; the same run alone ends with the same tensors."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    root, words = tmp_path / "runs", (sys.executable, "-m", "tests.batch_worker")
    monkeypatch.setattr(desks, "LIVE", {"every": 0.0, "live": 8})
    first = Desk(root, worker=(*words, "0.1"))
    asked = {name: str(value) for name, value in SMALL.items()} | {"steps": "30", "run.checkpoint_seconds": "1e-6"}
    id = first.submit("a ball", "fast", asked)
    first.start()
    wait(lambda: first.watch() or first.picture(id, "prior_picture")[0] > 2)  # type: ignore[func-returns-value]
    wait(lambda: first.picture(id, "picture")[0] > 2 and (root / id / "checkpoint" / "checkpoint.json").exists())
    first.active[id].own.kill()
    wait(lambda: first.run(id)["state"] == "failed")  # type: ignore[index]
    first.resume(id, settings=new)
    wait(lambda: id in first.active and "step" in first.active[id].said)
    first.close()
    again = Desk(root, worker=words)
    again.start()
    wait(lambda: again.run(id)["state"] == "done")  # type: ignore[index]
    again.close()
    if new:
        assert [list(change["settings"]) for change in Run.open(root / id).config.changes] == [list(new)]
        generate(preset=str(root / id / "run.yaml"), out=tmp_path / "alone", prior=GrayBallPrior())
    else:
        generate("a ball", "fast", out=tmp_path / "alone", prior=GrayBallPrior(), **SMALL | {"steps": 30})
    files = [[p.name for p in place.glob("checkpoint/*.safetensors")] for place in (root / id, tmp_path / "alone")]
    assert files[0] == files[1]


def test_mistakes_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for argv, said in (
        (["--port", "0"], "--port = '0'"),
        (["--folder", "file"], "cannot write file"),
        (["--threads", "x"], "--threads"),
    ):
        assert cli.main(["studio", *argv]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert os.listdir(tmp_path) == ["file"]


def test_a_damaged_queue_is_an_empty_one(tmp_path: Path, made_once: Path) -> None:
    (tmp_path / HIDDEN).mkdir()
    for text in ("", "[]", '{"queue": 3}', '{"queue": [1, {"id": "x"}], "failed": {}}'):
        (tmp_path / HIDDEN / "queue.json").write_text(text)
        assert new_desk(tmp_path, made_once).queue.entries == []
    with pytest.raises(Busy):
        new_desk(tmp_path, made_once).stop("x")
