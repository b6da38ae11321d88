"""Presets of several stages and of given meshes: what learns, what stays, what is asked about."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh

from dreamfusion.errors import UserError
from dreamfusion.loading import load_prior
from dreamfusion.priors.question import Question
from dreamfusion.scene import level_grid
from dreamfusion.scene.grid import GridField
from dreamfusion.scene.mesh_scene import MeshScene
from dreamfusion.scene.splat_scene import SplatScene
from dreamfusion.settings.building import stage_configs
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import hues, orbit_view
from tests.fakes import GrayBallPrior
from tests.test_scene_mesh import mesh_scene

TINY: dict[str, Any] = {"steps": 2, "resolution": 12, "threads": 1, "export.resolution": 24}


class Joint(GrayBallPrior):
    """Answers views together as well, and remembers what was shown."""

    joint = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str, int]] = []

    def predict_noise(self, z_t: torch.Tensor, t: torch.Tensor, question: Question, about: Any) -> Any:
        self.asked.append((question.asks, question.view.shading, question.view.group))
        return super().predict_noise(z_t, t, question, about)


@pytest.mark.parametrize(
    ("preset", "kinds", "own"),
    [
        ("textmesh", (GridField, MeshScene), {"stages.1.scene.samples": 12}),
        (
            "fantasia3d",
            (GridField, MeshScene, MeshScene),
            {"stages.1.scene.samples": 12, "stages.2.scene.resolution": 8},
        ),
        (
            "prolificdreamer",
            (GridField, MeshScene, MeshScene),
            {"stages.1.scene.samples": 12, "stages.2.scene.resolution": 8},
        ),
        ("rewritten", (SplatScene, MeshScene), {"stages.1.scene.count": 300, "stages.2.scene.resolution": 8}),
    ],
)
def test_stages_follow_one_another(
    preset: str, kinds: tuple[type, ...], own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last stage of all but rewritten leaves the shape as it was; each shows what its page says."""
    monkeypatch.setattr(level_grid, "STEPS", 3)
    prior = Joint()
    trainer = Trainer(resolve(preset, TINY | own, "x"), prior)
    seen, shapes = [], []
    for progress in trainer.steps():
        seen.append(type(trainer.scene))
        assert progress.metrics["skipped"] == 0
        if isinstance(trainer.scene, MeshScene) and progress.stage == len(kinds):
            shapes.append(trainer.scene.body().vertices.detach().clone())
    assert seen == [kind for kind in kinds for _ in range(2)]
    if preset == "rewritten":
        assert {(asks, group) for asks, _, group in prior.asked} == {("views", 4)}
        assert not torch.equal(*shapes)
    else:
        assert torch.equal(*shapes)
    if preset == "prolificdreamer":
        assert [stage.distillation.kind for stage in stage_configs(trainer.config)] == ["vsd", "sds", "vsd"]
        assert {asks for asks, _, _ in prior.asked} == {"words"}
    if preset == "fantasia3d":
        shadings = [shading for _, shading, _ in prior.asked]
        assert set(shadings[2:4]) <= {"normals", "textureless"} and set(shadings[-2:]) == {"lambertian"}
        learned = [getattr(c.scene, "learns", "") for c in stage_configs(trainer.config)]
        assert learned == ["", "all", "texture"] and trainer.scene.texture.pbr


def test_prolificdreamers_second_stage_moves_the_shape_and_keeps_the_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_grid, "STEPS", 3)
    own = {"stages.1.scene.samples": 12, "stages.2.scene.resolution": 8}
    trainer = Trainer(resolve("prolificdreamer", TINY | own, "x"), GrayBallPrior())
    shapes, colours, shown = [], [], []
    for progress in trainer.steps():
        shown.append(float(progress.metrics["shading"]))
        if progress.stage == 2:
            assert isinstance(trainer.scene, MeshScene)
            shapes.append(trainer.scene.shape.grid.table.detach().clone())
            colours.append(trainer.scene.texture.grid.table.detach().clone())
    assert not torch.equal(*shapes) and torch.equal(*colours)
    assert set(shown[2:4]) <= {1.0, 2.0} and shown[4:] == [1.0, 1.0]  # lit colours or clay, then lit colours alone


def test_latent_paint_paints_the_mesh_that_is_given(tmp_path: Path) -> None:
    file = tmp_path / "torus.obj"
    trimesh.creation.torus(0.6, 0.25, major_sections=12, minor_sections=8).export(file)
    with pytest.raises(UserError, match="--mesh FILE"):
        Trainer(resolve("latent-paint", TINY, "x"), GrayBallPrior())
    trainer = Trainer(resolve("latent-paint", TINY | {"scene.file": str(file)}, "x"), GrayBallPrior())
    shape, colours = trainer.scene.body().vertices.clone(), trainer.scene.texture.grid.table.detach().clone()
    assert len(shape) == 96 and shape.norm(dim=-1).max().item() == pytest.approx(0.85, abs=0.01)  # it fits as it is
    assert {float(p.metrics["shading"]) for p in trainer.steps()} == {1.0}
    assert torch.equal(trainer.scene.body().vertices, shape)
    assert not torch.equal(trainer.scene.texture.grid.table, colours)


def test_normals_as_pictures_of_a_ball() -> None:
    """In the camera's axes: right is red, up is green, towards the camera is blue; from every side the same."""
    scene = mesh_scene(resolution=24, radius=0.6)
    view = orbit_view(orbit_cameras([0.0, 130.0], 25.0), 48, "normals")
    seen = scene.look(view)
    picture = seen.colour / seen.opacity.clamp_min(1e-6)
    reach = math.tan(math.radians(47 / 2)) * 2.5
    for row, column in ((24, 24), (24, 30), (16, 24), (28, 20)):
        right, up = (column + 0.5 - 24) / 24 * reach, (24 - row - 0.5) / 24 * reach
        along = torch.tensor([right, up, -2.5])
        along = along / along.norm()
        near = 2.5 * -along[2] - math.sqrt((2.5 * along[2]) ** 2 - 2.5**2 + 0.36)
        normal = (torch.tensor([0.0, 0.0, 2.5]) + near * along) / 0.6
        for k in range(2):
            torch.testing.assert_close(picture[k, :, row, column].detach(), (normal + 1) / 2, atol=0.04, rtol=0)
    seen.colour.sum().backward()
    assert scene.shape.grid.table.grad.abs().sum() > 0


def test_depths_as_pictures_of_a_ball() -> None:
    """The middle of a ball of radius 0.6 is 0.6 nearer than the origin, from every side; its edge is as near as a tangent says."""
    scene = mesh_scene(resolution=24, radius=0.6)
    seen = scene.look(orbit_view(orbit_cameras([0.0, 130.0], 25.0), 48, "depth"))
    picture = (seen.colour / seen.opacity.clamp_min(1e-6)).detach()
    reach = math.tan(math.radians(47 / 2)) * 2.5
    for row, column in ((24, 24), (24, 30), (16, 24), (28, 20)):
        along = torch.tensor([(column + 0.5 - 24) / 24 * reach, (24 - row - 0.5) / 24 * reach, -2.5])
        along = along / along.norm()
        near = 2.5 * -along[2] - math.sqrt((2.5 * along[2]) ** 2 - 2.5**2 + 0.36)
        for k in range(2):
            torch.testing.assert_close(picture[k, :, row, column], hues(2.5 - near), atol=0.03, rtol=0)
    seen.colour.sum().backward()
    assert scene.shape.grid.table.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["grid", "mlp", "mesh", "splats"])
def test_every_scene_shows_the_bundled_prior_depths(kind: str) -> None:
    given = {"steps": 2, "shading.textureless": 0, "shading.lambertian": 0, "shading.depth": 1, "scene.kind": kind,
             "resolution": 16, "views_per_step": 2, "threads": 1}  # fmt: skip
    given |= {"scene.resolution": 8, "scene.levels": "4"} if kind == "mesh" else {}
    trainer = Trainer(resolve("balanced", given, "a red armchair"), load_prior("bundled"))
    before = [x.detach().clone() for x in trainer.scene.parameters()]
    assert [float(p.metrics["shading"]) for p in trainer.steps()] == [5.0] * 2
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.scene.parameters(), strict=True))


def test_a_run_on_normals_moves_the_shape_and_asks_about_them() -> None:
    given = {"steps": 3, "shading.textureless": 0, "shading.lambertian": 0, "shading.normals": 1, "scene.kind": "mesh",
             "scene.resolution": 8, "scene.levels": "4", "resolution": 12, "threads": 1}  # fmt: skip
    prior = Joint()
    trainer = Trainer(resolve("balanced", given, "x"), prior)
    before = trainer.scene.shape.grid.table.detach().clone()
    assert [float(p.metrics["shading"]) for p in trainer.steps()] == [4.0] * 3
    assert not torch.equal(trainer.scene.shape.grid.table, before)
    assert {shading for _, shading, _ in prior.asked} == {"normals"}
