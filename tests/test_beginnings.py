"""What a run begins with: a file, in the stage that can hold one; never two things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.batch.jobs import _same
from dreamfusion.errors import UserError
from dreamfusion.generation import generate
from dreamfusion.no_effect import without_effect
from dreamfusion.scene.mesh_scene import MeshScene
from dreamfusion.scene.splat_scene import SplatScene
from dreamfusion.settings.building import build, stage_configs
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from tests.fakes import GrayBallPrior

TINY: dict[str, Any] = {"steps": 2, "resolution": 12, "threads": 1, "export.turntable_frames": 0}
CLOUD = np.random.default_rng(0).normal(size=(60, 3))
CLOUD *= np.linspace(0.2, 0.8, 60)[:, None] / np.linalg.norm(CLOUD, axis=1, keepdims=True)


@pytest.fixture
def cloud(tmp_path: Path) -> str:
    """A point cloud file of ``CLOUD``."""
    path = tmp_path / "cloud.ply"
    trimesh.PointCloud(CLOUD).export(path)
    return str(path)


@pytest.fixture
def torus(tmp_path: Path) -> str:
    """A mesh file: a ring of radius 0.6 in the plane z = 0, whose tube has a radius of 0.25. Its farthest point is at 0.85."""
    path = tmp_path / "torus.obj"
    trimesh.creation.torus(0.6, 0.25, major_sections=48, minor_sections=24).export(path)
    return str(path)


def off_torus(points: torch.Tensor) -> torch.Tensor:
    """Distance of points (N, 3) from the torus."""
    return (((points[:, :2].norm(dim=1) - 0.6) ** 2 + points[:, 2] ** 2).sqrt() - 0.25).abs()


@pytest.mark.parametrize(
    ("preset", "left"),
    [
        ("gaussian-dreamer", ["splats"]),
        ("magic3d", ["mesh"]),
        ("fantasia3d", ["mesh", "mesh"]),
        ("prolificdreamer", ["mesh", "mesh"]),
        ("dreamgaussian", ["splats", "mesh"]),
        ("rewritten", ["splats", "mesh"]),
    ],
)
def test_a_file_takes_the_place_of_the_stages_before_the_first_that_can_hold_it(preset: str, left: list[str]) -> None:
    config = resolve(preset, {"mesh": "thing.ply"}, "x")
    stages = stage_configs(config)
    assert [stage.scene.kind for stage in stages] == left
    assert [stage.scene.file for stage in stages] == ["thing.ply", *[""] * (len(left) - 1)]
    assert stages == [s.model_copy(update={"scene": o.scene}) for s, o in zip(usual(preset, left), stages, strict=True)]
    assert without_effect(config) == []


def usual(preset: str, left: list[str]) -> list[Any]:
    """The last stages of a preset that is given no file."""
    return stage_configs(resolve(preset, {}, "x"))[-len(left) :]


def test_splats_begin_with_a_cloud_in_place_of_the_coarse_field(cloud: str) -> None:
    trainer = Trainer(resolve("gaussian-dreamer", TINY | {"mesh": cloud}, "x"), GrayBallPrior())
    assert isinstance(trainer.scene, SplatScene) and trainer.total == 2
    torch.testing.assert_close(trainer.scene.centres.detach(), torch.from_numpy(CLOUD).float(), atol=1e-6, rtol=0)
    before = trainer.scene.centres.detach().clone()
    assert all(p.metrics["skipped"] == 0 for p in trainer.steps()) and not torch.equal(trainer.scene.centres, before)


def test_an_initial_shape_is_moved_and_then_painted(torus: str) -> None:
    given = {"mesh": torus, "stages.2.scene.resolution": 32, "export.resolution": 24}
    trainer = Trainer(resolve("fantasia3d", TINY | given, "x"), GrayBallPrior())
    assert isinstance(trainer.scene, MeshScene)
    assert off_torus(trainer.scene.body().vertices.detach()).max() < 0.02
    shapes = []
    for progress in trainer.steps():
        shapes.append(trainer.scene.body().vertices.detach().clone())
        assert progress.stages == 2 and off_torus(shapes[-1]).mean() < 0.03
    assert not torch.equal(shapes[0], shapes[1]) and torch.equal(shapes[2], shapes[3])


def test_a_later_stage_begins_with_its_own_file_whatever_came_before(cloud: str) -> None:
    """Also where the scene before it is of the same kind and would be taken over as it is."""
    page = {"steps": 1, "scene.kind": "splats", "scene.count": 40}
    config = build(TINY | {"prompt": "x", "stages": [page, page, page | {"scene.file": cloud, "scene.lr": 1e-9}]})
    trainer = Trainer(config, GrayBallPrior())
    counts = [len(trainer.scene) for _ in trainer.steps() if isinstance(trainer.scene, SplatScene)]
    assert counts == [40, 40, 60]
    assert trainer.scene.centres.detach().norm(dim=1).max().item() == pytest.approx(0.8, abs=1e-4)


def test_stages_before_the_file_of_a_later_one_are_left_out(cloud: str) -> None:
    config = resolve("dreamgaussian", {"stages.2.scene.file": cloud, "stages.2.steps": 7}, "x")
    assert [(s.scene.kind, s.scene.file, s.steps) for s in stage_configs(config)] == [("mesh", cloud, 7)]


def test_a_file_of_the_whole_page_is_that_of_its_first_stage(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text("scene: {kind: splats, file: a.ply}\nstages: [{steps: 3}, {steps: 4}, {scene: {kind: mesh}}]\n")
    assert [s.scene.file for s in stage_configs(resolve(str(page), {}, "x"))] == ["a.ply", "", ""]
    recorded = build({"scene.kind": "splats", "scene.file": "a.ply", "stages": [{"steps": 3}, {"steps": 4}]})
    assert [s.scene.file for s in stage_configs(recorded)] == ["a.ply", ""]


@pytest.mark.parametrize(
    ("preset", "given", "said"),
    [
        (
            "fantasia3d",
            {"mesh": "a.obj", "stages.1.steps": 3},
            r"stages.1.steps changes nothing: stage 2 begins with a",
        ),
        ("fantasia3d", {"mesh": "a.obj", "stages.3.scene.file": "b.obj"}, "a run begins with one file"),
        ("fantasia3d", {"mesh": "a.obj", "start": "run"}, "start names the run to begin with"),
        ("balanced", {"mesh": "a.obj", "scene.kind": "mesh", "start": "run"}, "start names the run to begin with"),
    ],
)
def test_a_run_cannot_begin_with_two_things(preset: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve(preset, given, "x")


def test_a_config_that_begins_with_two_things_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = build({"prompt": "x", "start": "run", "scene.kind": "mesh", "scene.file": "a.obj"})
    with pytest.raises(UserError, match="start names the run to begin with"):
        generate(config=config, out=tmp_path / "out", prior=GrayBallPrior())
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:the mesh does not show")
def test_the_file_of_a_stage_is_recorded_for_any_folder(
    cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded path is absolute, and a batch knows the run by the relative one."""
    monkeypatch.chdir(tmp_path)
    own = {"mesh": "cloud.ply", "export.resolution": 16, "export.texture_size": 64, "steps": 1}
    generate("x", "gaussian-dreamer", out="run", prior=GrayBallPrior(), **(TINY | own))
    recorded = resolve(str(tmp_path / "run" / "run.yaml"), {}, "").stages
    assert [page["scene.file"] for page in recorded] == [cloud]
    assert _same("stages", [{"scene.file": "cloud.ply"}], [{"scene.file": cloud}])
    assert not _same("stages", [{"scene.file": "other.ply"}], [{"scene.file": cloud}])


FORMS: dict[str, dict[str, Any]] = {
    "tetrahedra": {"scene.kind": "mesh", "scene.resolution": 12},
    "vertices": {"scene.kind": "mesh", "scene.shape": "vertices"},
    "several": {"scene.kind": "mesh", "scene.shape": "vertices", "scene.particles": 2},
    "splats": {"scene.kind": "splats", "scene.count": 60},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_stopped_run_goes_on_without_the_file_that_it_began_with(form: str, torus: str) -> None:
    """Bit by bit as if it had not stopped, also past a change of settings, where its stage is made anew."""
    change = {"step": 2, "settings": {"distillation.guidance_scale": 3.0}}
    own = FORMS[form] | {"scene.fast": False, "scene.file": torus, "steps": 3, "changes": [change]}
    config = build(TINY | own | {"prompt": "x"})
    whole, stopped = Trainer(config, GrayBallPrior()), Trainer(config, GrayBallPrior())
    assert len(list(whole.steps())) == 3
    stopped.step()
    Path(torus).unlink()
    rest = Trainer(config, GrayBallPrior(), at=stopped.state())
    assert len(list(rest.steps())) == 2
    mine, other = rest.state()[0], whole.state()[0]
    assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in other)
