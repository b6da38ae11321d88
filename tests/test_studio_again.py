"""Making a recorded run once more: what the studio gives back is the body of a new run, and that run has the same settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")

from fastapi.testclient import TestClient

from dreamfusion.generation import REFERENCE
from dreamfusion.run import CONFIG
from dreamfusion.settings.config import Config
from dreamfusion.settings.presets import resolve
from dreamfusion.studio.desk import Desk
from dreamfusion.studio.web import make_app
from tests.test_studio import HERE
from tests.test_studio_pictures import disc


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "runs", threads=3)  # nobody works


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return TestClient(make_app(desk), base_url=HERE)


def recorded(folder: Path, made: Path, config: Config) -> Path:
    """A finished run with these settings."""
    shutil.copytree(made, folder)
    page = yaml.safe_load((folder / CONFIG).read_text())
    page["config"] = config.model_dump(mode="json")
    (folder / CONFIG).write_text(yaml.safe_dump(page))
    return folder


def repeated(client: TestClient, desk: Desk, id: str) -> tuple[dict[str, Any], Config]:
    """What is given back for a run, and the settings of the run that is made of it."""
    found = client.get(f"/runs/{id}").json()
    answer = client.post("/runs", json=found["again"])
    assert answer.status_code == 201, answer.text
    entry = desk.queue.entries[-1]
    return found, resolve(entry["preset"], entry["settings"], entry["prompt"])


@pytest.mark.parametrize(
    ("preset", "given"),
    [
        ("fast", {}),
        ("fast", {"seed": 7, "steps": 12, "guidance_scale": 3, "view.elevation_deg": "0,9", "prior.asks": "words"}),
        ("fast", {"scene.kind": "mlp", "distillation.kind": "ism", "distillation.interval": 0.1}),
        ("magic3d", {"steps": 20, "guidance_scale": 2, "export.faces": 300}),  # they hold in every stage
        ("dreamgaussian", {"view.background": "learned"}),
    ],
)
def test_the_new_run_has_the_same_settings(
    preset: str, given: dict[str, Any], client: TestClient, desk: Desk, made_once: Path
) -> None:
    config = resolve(preset, given, "a red chair")
    recorded(desk.root / "first", made_once, config)
    found, new = repeated(client, desk, "first")
    assert new == config.model_copy(update={"threads": 3})  # as the studio has it
    assert found["left_out"] == [] and found["again"]["preset"] == preset
    assert len(found["again"]["settings"]) == len(given)
    assert "again" not in client.get("/runs").json()[-1]


def test_what_a_page_cannot_say_is_named(client: TestClient, desk: Desk, made_once: Path) -> None:
    config = resolve("magic3d", {"stages.2.steps": 9, "prior.id": "guide"}, "a cat")
    config.changes = ({"step": 1, "settings": {"scene.lr": 0.02}},)
    config.start = "/nowhere"
    recorded(desk.root / "odd", made_once, config)
    found, new = repeated(client, desk, "odd")
    lines = ["stages.2.steps", "the scene that it began with", "prior.id", "what was changed after step 1"]
    assert found["left_out"] == lines and found["again"]["settings"] == {}
    assert new == resolve("magic3d", {"threads": 3}, "a cat")
    recorded(
        desk.root / "own", made_once, resolve("fast", {"seed": 2}, "a dog").model_copy(update={"preset": "my.yaml"})
    )
    found, new = repeated(client, desk, "own")
    assert found["again"]["preset"] == "balanced" and found["preset"] == "my.yaml"
    assert new == resolve("fast", {"seed": 2, "threads": 3}, "a dog").model_copy(update={"preset": "balanced"})
    (desk.root / "own" / CONFIG).write_text("x")
    assert client.get("/runs/own").json()["state"] == "broken" and "again" not in client.get("/runs/own").json()


def test_the_picture_and_the_start_come_back(client: TestClient, desk: Desk, made_once: Path) -> None:
    first = recorded(desk.root / "first", made_once, resolve("fast", {}, "a ball"))
    mine = recorded(desk.root / "mug", made_once, Config(prompt="a mug", preset="zero123"))
    config = resolve("zero123", {"image": str(mine / REFERENCE), "start": str(first)}, "a mug")
    shutil.rmtree(mine)
    recorded(mine, made_once, config)
    assert client.get("/runs/mug").json()["left_out"] == ["its picture"]
    (mine / REFERENCE).write_bytes(disc(200))
    found, new = repeated(client, desk, "mug")
    assert found["again"] == {
        "prompt": "a mug",
        "preset": "zero123",
        "settings": {},
        "picture": "mug",
        "start": "first",
    }
    kept = Path(new.prior.image)
    assert kept.parent == desk.root / ".studio" / "pictures" and kept.read_bytes() == disc(
        200
    )  # PNG of the same pixels
    assert new.start == str(first) and new.prior.asks == "image"
    (mine / REFERENCE).unlink()
    (mine / REFERENCE).symlink_to("/etc/passwd")
    for picture in ("mug", "first", "../mug", "0" * 16):
        body = {"prompt": "a mug", "preset": "zero123", "picture": picture}
        assert "is not here any more" in client.post("/runs", json=body).json()["detail"]


def test_the_page_of_the_interface_says_so(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    whole = described["components"]["schemas"]["WholeRun"]["properties"]
    assert {"id", "state", "curves", "again", "left_out"} <= whole.keys()
    assert "$ref" in str(whole["again"]) and "once more" in whole["again"]["description"]
    answer = described["paths"]["/runs/{id}"]["get"]["responses"]["200"]["content"]["application/json"]
    assert answer["schema"] == {"$ref": "#/components/schemas/WholeRun"}
