"""Runs of several stages: how a scene goes from one to the next, which settings hold where, and going on after a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dreamfusion import cli, generate, generation
from dreamfusion.errors import UserError
from dreamfusion.evaluation.geometry import floaters
from dreamfusion.run import Run
from dreamfusion.scene import transfer
from dreamfusion.scene.grid import GridField
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.mlp import MlpField
from dreamfusion.scene.rays import camera_rays
from dreamfusion.scene.scene_settings import MeshSettings
from dreamfusion.settings.building import stage_configs
from dreamfusion.settings.config import Config
from dreamfusion.settings.presets import resolve
from dreamfusion.stage import Makers, Stage, start_scene
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL, GrayBallPrior
from tests.faults import forked
from tests.scenes import BALLS, ball_picture, scene_settings

TWO = """
steps: 3
stages:
- {}
- scene: {kind: mlp, hidden: 8, depth: 2, frequencies: 3}
  steps: 4
  shading: {albedo: 1, lambertian: 0, textureless: 0}
"""


@pytest.fixture
def two(tmp_path: Path) -> str:
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    return str(path)


SMALLER = {k: v for k, v in SMALL.items() if k != "steps"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little fitting."""
    monkeypatch.setattr(transfer, "STEPS", 3)


def ball_grid() -> GridField:
    """A grid that holds the two balls of ``scenes``."""
    settings = scene_settings(levels=(40,), density_bias=0, samples=96)
    grid = make_scene(settings, torch.Generator().manual_seed(0))
    axis = torch.linspace(-1, 1, 40)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    depth = torch.stack([r - (points - torch.tensor(c)).norm(dim=-1) for c, r, _ in BALLS]).amax(0)
    with torch.no_grad():
        grid.table[:, 0] = (2 + 60 * depth).clamp(-3, 8)
        grid.table[:, 1:] *= 10
    return grid


@pytest.mark.parametrize("kind", ["mlp", "grid"])
def test_a_stage_of_another_field_begins_with_what_the_one_before_it_looked_like(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silhouettes against the closed form of two balls, and colours against the old scene's."""
    if kind == "grid":
        monkeypatch.setattr(transfer, "STEPS", 150)  # a grid is quick to learn
    else:
        monkeypatch.setattr(transfer, "STEPS", 200)
        monkeypatch.setattr(transfer, "POINTS", 1024)
    config = resolve("balanced", SMALL, "two balls")
    shape = {"hidden": 32, "depth": 2, "frequencies": 4} if kind == "mlp" else {"levels": (10, 32)}
    config.scene = scene_settings(kind, **{"density_bias": 0.0, "samples": 64, **shape})
    old = ball_grid()
    kept = {name: value.clone() for name, value in old.state_dict().items()}
    new = start_scene(config, GrayBallPrior(), 1, old, torch.device("cpu"), Makers())
    assert isinstance(new, MlpField if kind == "mlp" else GridField) and new is not old
    assert all(torch.equal(value, kept[name]) for name, value in old.state_dict().items())

    cameras = orbit_cameras([15, 135, 255], 25)
    view = orbit_view(cameras, 40, "albedo")
    truth = (ball_picture(camera_rays(cameras, 40)) != 0.5).any(-1).reshape(3, 1, 40, 40)
    with torch.no_grad():
        before, after = old.render(view), new.render(view)
    for seen, least in ((before, 0.93), (after, 0.9)):
        solid = seen.opacity > 0.5
        assert (solid & truth).sum() / (solid | truth).sum() > least
    assert (before.opacity - after.opacity).abs().mean() < 0.03
    both = (before.opacity > 0.9) & (after.opacity > 0.9)
    assert (before.colour - after.colour).abs()[both.expand(-1, 3, -1, -1)].mean() < 0.05


def test_two_stages_a_grid_and_then_an_mlp(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole run does it: the silhouette that the grid has learned is the one that the MLP begins with."""
    monkeypatch.setattr(transfer, "STEPS", 200)
    monkeypatch.setattr(transfer, "POINTS", 1024)
    # The MLP does not move: its rate is next to nothing, and it is not hardened.
    own = {"stages.1.steps": 30, "stages.2.scene.lr_head": 1e-30, "stages.2.scene.hardening": 1}
    trainer = Trainer(resolve(two, SMALLER | own, "x"), GrayBallPrior())
    assert (trainer.total, trainer.done, trainer.stage.number) == (34, 0, 0)
    seen = []
    for progress in trainer.steps():
        seen.append((progress.step, progress.steps, progress.stage, progress.stages))
        if progress.step == 30:
            grid = trainer.scene
            assert isinstance(grid, GridField)
        if progress.step == 31:
            assert isinstance(trainer.scene, MlpField)
            view = orbit_view(orbit_cameras([0, 90, 180, 270], 15), 24)
            with torch.no_grad():
                solid, again = (scene.render(view).opacity > 0.5 for scene in (grid, trainer.scene))
            assert solid.float().mean() > 0.05
            assert (solid & again).sum() / (solid | again).sum() > 0.8
    assert seen == [(k, 34, 1 if k <= 30 else 2, 2) for k in range(1, 35)]
    assert trainer.done == trainer.total == 34


@pytest.mark.parametrize(
    "change", ["shading: {albedo: 1, lambertian: 0, textureless: 0}", "scene: {lr: 0.5, samples: 20}"]
)
def test_the_same_field_is_carried_over_unchanged(tmp_path: Path, change: str) -> None:
    """Also where it is rendered or learned in another way; and the learned background with it."""
    path = tmp_path / "same.yaml"
    path.write_text(f"stages: [{{steps: 3}}, {{steps: 2, {change}}}]")
    settings = {**SMALLER, "view.background": "learned"}
    del settings["scene.samples"]
    trainer = Trainer(resolve(str(path), settings, "x"), GrayBallPrior())
    for _ in range(3):
        trainer.step()
    first = trainer.stage
    second = Stage(trainer.stages[1], GrayBallPrior(), 1, first)
    assert second.done == 0 and second.optimiser.state_dict() == {}
    for old, new in ((first.scene, second.scene), (first.backdrop, second.backdrop)):
        assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())
    assert (first.backdrop.logits != 0).all()
    assert trainer.step()["step"] == 4
    assert trainer.stage.number == 1 and trainer.done == 4


@pytest.mark.parametrize("particles", [1, 2])
def test_a_scene_that_is_no_volume_cannot_become_a_field(particles: int) -> None:
    mesh = make_scene(MeshSettings(resolution=6, particles=particles), torch.Generator())
    assert floaters(mesh, 10.0) == (0, 0)
    with pytest.raises(UserError, match=r"^a radiance field cannot start from MeshScene, which has no density$"):
        make_scene(scene_settings(levels=(4,)), torch.Generator()).begin_from(mesh, torch.Generator())


def test_overrides_hold_in_all_stages_or_in_the_one_they_name(two: str) -> None:
    def steps(**overrides: Any) -> list[int]:
        return [c.steps for c in stage_configs(resolve(two, overrides, "x"))]

    assert steps() == [3, 4]
    assert steps(steps=9) == [9, 9] and steps(steps="9") == [9, 9]
    assert steps(**{"stages.2.steps": 7}) == [3, 7] and steps(stages__2__steps="7") == [3, 7]
    assert steps(**{"stages.1.steps": 7}) == [7, 4]
    assert steps(**{"steps": 9, "stages.2.steps": 7}) == [9, 7]
    guided = stage_configs(resolve(two, {"stages.2.guidance_scale": 7}, "x"))
    assert [c.distillation.guidance_scale for c in guided] == [Config().distillation.guidance_scale, 7]
    first, second = stage_configs(resolve(two, {"view.fov_deg": 30}, "x"))
    assert first.view.fov_deg == second.view.fov_deg == 30
    assert (first.scene.kind, second.scene.kind) == ("grid", "mlp") and first.scene == Config().scene
    assert second.shading.albedo == 1 and first.shading == Config().shading
    assert not first.stages and not second.stages, "a stage has no stages"
    assert stage_configs(resolve("balanced", {}, "x")) == [resolve("balanced", {}, "x")]


def test_steps_of_the_command_line_hold_in_all_stages(
    two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    from tests.fakes import options

    monkeypatch.setattr(generation, "load_prior", lambda *_, **__: GrayBallPrior())
    out = tmp_path / "run"
    argv = ["generate", "x", "--preset", two, "--out", str(out), "--steps", "2", *options(SMALLER)]
    assert cli.main(argv) == 0
    log = Run.open(out).read_log()
    assert [(e["step"], e["stage"]) for e in log] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert (out / "preview-stage-1.png").is_file() and not (out / "preview-stage-2.png").exists()
    assert [c.steps for c in stage_configs(Run.open(out).config)] == [2, 2]
    assert Run.open(out).config == resolve(str(out / "run.yaml")), "a run's page repeats its stages"


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("stages: 3", "stages must be a list of pages of settings (name: value)"),
        ("stages:", "stages must be a list of pages of settings (name: value)"),
        ("stages: [3]", "stages must be a list of pages of settings (name: value)"),
        ("stages: [{}, [a]]", "stages must be a list of pages of settings (name: value)"),
        ("stages: [{stps: 3}]", "unknown setting 'stps' (did you mean 'steps'?)"),
        ("stages: [{steps: 0}]", "in stage 1: steps = 0 is not allowed: it must be a whole number, 1 to 1000000"),
        ("stages: [{}, {view: {fov_deg: 300}}]", "in stage 2: view.fov_deg = 300 is not allowed"),
        ("stages: [{}, {view: }]", "view is a group of settings"),
        ("stages: [{}, {seed: 3}]", "seed holds for the whole run; a stage cannot change it"),
        ("stages: [{}, {prompt: x}]", "prompt holds for the whole run; a stage cannot change it"),
        ("stages: [{export: {faces: 300}}]", "export.faces holds for the whole run; a stage cannot change it"),
        ("stages: [{run: {bad_steps: 3}}]", "run.bad_steps holds for the whole run; a stage cannot change it"),
        ("stages: [{scene: {depth: 3}}]", "in stage 1: scene.depth belongs to scene.kind=mlp; this run has grid"),
        ("stages: [{scene: {kind: nerf}}]", "in stage 1: scene.kind = 'nerf' is not allowed: it must be one of grid, mlp"),
        ("stages: [{optimizer: {lr: 0.1}}]", "optimizer.lr is now scene.lr"),
        ("stages: [{stages: [{}]}]", "unknown setting 'stages'"),
    ],
)  # fmt: skip
def test_wrong_stage_pages_end_in_one_line(
    page: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(page)
    assert cli.main(["generate", "x", "--preset", "mine.yaml"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"dreamfusion: error: in the preset mine.yaml: {line}"), said.err
    assert len(said.err.splitlines()) == 1 and [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"stages.3.steps": 5}, "stages.3.steps: the preset .* has 2 stages"),
        ({"stages.0.steps": 5}, "stages.0.steps: the preset .* has 2 stages"),
        ({"stages.2.seed": 5}, "seed holds for the whole run"),
        ({"stages.2.stps": 5}, r"unknown setting 'stps' \(did you mean 'steps'\?\)"),
        ({"stages.2.steps": 0}, "in stage 2: steps = 0 is not allowed"),
        ({"stages.two.steps": 5}, "unknown setting 'stages.two.steps'"),
        ({"stages.2": 5}, "unknown setting 'stages.2'"),
    ],
)
def test_wrong_names_of_stages_end_in_one_line(two: str, overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        resolve(two, overrides, "x")
    assert "\n" not in str(caught.value)


def test_a_run_without_stages_says_so() -> None:
    with pytest.raises(UserError, match=r"stages\.1\.steps: the preset balanced has no stages"):
        resolve("balanced", {"stages.1.steps": 5}, "x")


def test_each_stages_prior_is_loaded_when_it_begins_and_only_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    path = tmp_path / "three.yaml"
    path.write_text("stages: [{}, {view: {fit: true}}, {prior: {id: other.safetensors}}]")
    asked: list[tuple[str, int]] = []

    def load(name: str, *rest: Any) -> GrayBallPrior:
        asked.append((name, len(told)))
        return GrayBallPrior()

    told: list[int] = []
    monkeypatch.setattr(generation, "load_prior", load)
    generate("x", str(path), callbacks=[lambda p: told.append(p.step)], **SMALLER | {"steps": 2})
    assert asked == [("bundled", 0), ("other.safetensors", 4)] and told == [1, 2, 3, 4, 5, 6]


def tensors_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.state()[0].items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_any_step_goes_on_bit_exactly(two: str, tmp_path: Path, quick: None) -> None:
    """Inside both stages, between them and after the last: the rest of the run is the same."""
    config = resolve(two, SMALLER | {"view.background": "learned"}, "x")
    run = Run.create(tmp_path / "run", config)
    trainer = Trainer(config, GrayBallPrior())
    held = []
    for _ in range(8):
        run.save_checkpoint(*trainer.state())
        held.append((Run(run.path, config).load_checkpoint(resumable=True), tensors_of(trainer)))
        if trainer.done < trainer.total:
            trainer.step()
    assert [meta["stage"] for (_, meta), _ in held] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [meta["step"] for (_, meta), _ in held] == list(range(8))
    for start, (checkpoint, state) in enumerate(held):
        again = Trainer(config, GrayBallPrior())
        again.restore(*checkpoint)
        assert again.done == start and same(tensors_of(again), state)
        for progress in again.steps():
            assert same(tensors_of(again), held[progress.step][1]), f"from step {start}: step {progress.step}"


def run_killed(page: str, folder: Path, count: int) -> None:
    """Begin a run; SIGKILL when the prior is asked after so many steps."""
    asked: list[None] = []

    def kill() -> None:
        asked.append(None)
        if len(asked) > count:
            os.kill(os.getpid(), signal.SIGKILL)

    generate("x", page, out=folder, prior=GrayBallPrior(kill), run__checkpoint_seconds=1e-9, **SMALLER)


def test_a_killed_run_goes_on_bit_exactly(two: str, tmp_path: Path, quick: None) -> None:
    """SIGKILL inside the first stage, right at the beginning of the second, and inside it."""
    counts = (2, 3, 5)
    for count in counts:
        assert forked(partial(run_killed, two, tmp_path / f"killed-{count}", count)) == -signal.SIGKILL
    generate("x", two, out=tmp_path / "straight", prior=GrayBallPrior(), **SMALLER)
    (straight,) = (tmp_path / "straight/checkpoint").glob("*.safetensors")
    for count in counts:
        place = tmp_path / f"killed-{count}"
        run = Run.open(place)
        assert run.load_checkpoint()[1]["step"] == count and not (place / "asset.glb").exists()
        told: list[int] = []
        generate(resume=place, prior=GrayBallPrior(), callbacks=[lambda p, told=told: told.append(p.step)])
        assert told == list(range(count + 1, 8))
        assert [(e["step"], e["stage"]) for e in run.read_log()] == [(k, 1 if k < 4 else 2) for k in range(1, 8)]
        (mine,) = (place / "checkpoint").glob("*.safetensors")
        assert same(load_file(mine), load_file(straight))
        assert (place / "asset.glb").read_bytes() == (tmp_path / "straight/asset.glb").read_bytes()
