"""The studio's reference pictures: sent by a page, decoded at once, and given to runs by their id alone."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")

from fastapi.testclient import TestClient
from PIL import Image

from dreamfusion.errors import UserError
from dreamfusion.generation import REFERENCE
from dreamfusion.run import CONFIG
from dreamfusion.studio import uploads
from dreamfusion.studio.desk import HIDDEN, QUEUE, Desk
from dreamfusion.studio.web import make_app

HERE = "http://127.0.0.1:8765"


class Critic:
    def notes(self, prompt: str) -> list[str]:
        return []

    def seen(self, picture: Path) -> str:
        return f"a red disc ({Image.open(picture).width} pixels)"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield Desk(tmp_path / "runs")  # it is never started: runs stay in the queue


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return TestClient(make_app(desk, critic=Critic()), base_url=HERE)  # type: ignore[arg-type]


def disc(side: int = 640, kind: str = "PNG") -> bytes:
    """A red disc on white, or on nothing where ``kind`` has transparency."""
    y, x = np.mgrid[:side, :side] - side / 2
    inside = np.hypot(x, y) < side / 4
    pixels = np.where(inside[..., None], [200, 30, 30, 255], [255, 255, 255, 0]).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB" if kind == "JPEG" else "RGBA").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_run_of_a_picture(client: TestClient, desk: Desk, kind: str) -> None:
    sent = client.post("/pictures", content=disc(kind=kind)).json()
    assert sent["seen"] == "a red disc (512 pixels)"
    run = client.post("/runs", json={"prompt": "", "preset": "zero123", "picture": sent["id"]})
    assert run.status_code == 201 and run.json()["id"] == "picture-0"
    entry = json.loads((desk.root / HIDDEN / QUEUE).read_text())["queue"][0]
    assert entry["settings"]["prior.asks"] == "image"
    assert Path(entry["settings"]["prior.image"]) == desk.root / HIDDEN / uploads.FOLDER / f"{sent['id']}.png"
    named = client.post("/runs", json={"prompt": "a red ball", "preset": "fast", "picture": sent["id"]})
    assert named.json()["id"] == "a-red-ball-0"


def test_what_is_no_picture(client: TestClient, desk: Desk) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64)).save(buffer, "PNG")
    gif = io.BytesIO()
    Image.new("L", (8, 8)).save(gif, "GIF")
    for data in (b"", b"no picture", disc()[:500], gif.getvalue(), buffer.getvalue(), b"\xff\xd8\xff" + bytes(1000)):
        answer = client.post("/pictures", content=data)
        assert answer.status_code == 422 and "\n" not in answer.json()["detail"], data[:20]
        assert str(desk.root) not in answer.json()["detail"]
    assert list((desk.root / HIDDEN / uploads.FOLDER).glob("*")) == []
    assert client.post("/pictures", content=bytes(uploads.MOST_BYTES + 1)).status_code == 413


@pytest.mark.parametrize("id", ["0" * 16, "../queue", "queue.json", "x", "..%2f"])
def test_a_picture_that_is_not_there(client: TestClient, id: str) -> None:
    answer = client.post("/runs", json={"prompt": "a ball", "preset": "zero123", "picture": id})
    assert answer.status_code == 422 and "choose it again" in answer.json()["detail"]


def test_a_preset_that_needs_a_picture(client: TestClient) -> None:
    answer = client.post("/runs", json={"prompt": "a ball", "preset": "zero123"})
    assert answer.json() == {"detail": "the preset zero123 needs a picture"}
    path = {"prompt": "a ball", "preset": "zero123", "settings": {"prior.image": "/etc/passwd"}}
    assert "does not change prior.image" in client.post("/runs", json=path).json()["detail"]


def test_a_run_begins_with_the_scene_of_another(client: TestClient, desk: Desk, made_once: Path) -> None:
    shutil.copytree(made_once, desk.root / "first-0")
    run = client.post("/runs", json={"prompt": "a golden ball", "preset": "fast", "start": "first-0"})
    assert run.status_code == 201
    entry = json.loads((desk.root / HIDDEN / QUEUE).read_text())["queue"][0]
    assert Path(entry["settings"]["start"]) == desk.root / "first-0"
    for wrong in ("nothing", "../first-0", ".studio", str(made_once)[:200]):
        answer = client.post("/runs", json={"prompt": "a ball", "preset": "fast", "start": wrong})
        assert answer.json() == {"detail": "there is no such run to begin with"}


def test_the_picture_of_a_run_is_limited_in_bytes_and_in_pixels(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    noise[..., 3] = 0
    noise[16:48, 16:48, 3] = 255
    (desk.root / "mug").mkdir()
    path = desk.root / "mug" / REFERENCE
    Image.fromarray(noise).save(path, "PNG")
    (desk.root / "mug" / CONFIG).touch()
    monkeypatch.setattr(uploads, "LARGEST", 64 * 64)
    size = path.stat().st_size
    assert size > 64 * 64  # more bytes than pixels are allowed
    assert uploads.reference_at(desk.root, desk.root / HIDDEN, "mug").is_file()
    monkeypatch.setattr(uploads, "LARGEST_FILE", size - 1)
    with pytest.raises(UserError, match="the picture of that run is too large"):
        uploads.reference_at(desk.root, desk.root / HIDDEN, "mug")


def test_only_the_newest_are_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_KEPT", 2)
    ids = [uploads.keep_picture(desk.root / HIDDEN, disc(200 + 20 * k)) for k in range(4)]
    assert {p.stem for p in (desk.root / HIDDEN / uploads.FOLDER).glob("*.png")} == set(ids[2:])
