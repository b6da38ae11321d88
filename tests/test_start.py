"""``start``: a run that begins with the scene of another one."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamfusion import cli, generate
from dreamfusion.errors import UserError
from dreamfusion.generation import Stopped
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.recorded import load_scene, start_scene_of
from dreamfusion.run import Run
from dreamfusion.scene import transfer
from dreamfusion.scene.scene_settings import GridSettings, MeshSettings
from tests.fakes import SMALL, GrayBallPrior, options

STILL = {"scene.lr": 1e-9, "steps": 1}


def make(out: Path, **more: object) -> Path:
    generate("a ball", "fast", out=out, prior=GrayBallPrior(), **{**SMALL, **more})  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("start") / "first")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_scene(Run.open(folder))[0].state_dict()


def density(folder: Path) -> torch.Tensor:
    """At 500 points of the unit ball."""
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    points = points / points.norm(dim=1, keepdim=True).clamp_min(1) * 0.99
    with torch.no_grad():
        return load_scene(Run.open(folder))[0].density(points)  # type: ignore[operator]


def test_the_same_kind_begins_with_the_very_scene(first: Path, tmp_path: Path) -> None:
    found = tensors(make(tmp_path / "second", start=str(first), **STILL))
    for name, value in tensors(first).items():
        torch.testing.assert_close(
            found[name].float(), value.float(), atol=3e-3, rtol=0
        )  # one step of the head, whose rate is fixed
    fresh = tensors(make(tmp_path / "fresh", **STILL))
    assert any(not torch.allclose(fresh[name].float(), value.float(), atol=1e-2) for name, value in found.items())


def test_another_grid_is_fitted_to_it(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "STEPS", 150)  # a grid is quick to learn
    wanted = density(first)
    found = density(make(tmp_path / "finer", start=str(first), **STILL, **{"scene.levels": "8,14"}))
    fresh = density(make(tmp_path / "fresh", **STILL, **{"scene.levels": "8,14"}))
    opacity = [1 - torch.exp(-0.05 * d) for d in (wanted, found, fresh)]
    assert (opacity[1] - opacity[0]).abs().mean() < 0.3 * (opacity[2] - opacity[0]).abs().mean()


def test_a_mesh_begins_with_the_surface_as_it_is_and_not_as_it_was_when_soft(tmp_path: Path) -> None:
    ball = make(tmp_path / "ball", **{"scene.density_bias": 20.0, "scene.hardening": "[[0, 1], [1, 4]]"})
    field = load_scene(Run.open(ball))[0]
    hard = start_scene_of(str(ball), MeshSettings()).surface(ExportSettings())
    soft = start_scene_of(str(ball), GridSettings()).surface(ExportSettings())
    wanted = field.surface(ExportSettings())
    assert torch.equal(torch.as_tensor(hard.mesh.vertices), torch.as_tensor(wanted.mesh.vertices))
    assert np.ptp(soft.mesh.vertices) < 0.99 * np.ptp(wanted.mesh.vertices)


@pytest.mark.parametrize("particles", [1, 2])
def test_each_field_begins_as_soft_as_it_was(particles: int, tmp_path: Path) -> None:
    """A linear schedule from 1 to 2, at its end: the raw density is half of what the checkpoint holds, for each particle."""
    vsd = {"distillation.kind": "vsd", "distillation.width": 8, "scene.particles": particles}
    run = make(tmp_path / "hard", steps=2, **vsd, **{"scene.hardening": "[[0, 1], [1, 2]]"})
    hard, soft = tensors(run), start_scene_of(str(run), GridSettings()).state_dict()
    names = [name for name in hard if name.endswith("table")]
    assert len(names) == particles
    for name in names:
        learned = hard[name][..., 0]  # the first feature is the raw density
        assert learned.abs().max() > 0
        torch.testing.assert_close(soft[name][..., 0], learned / 2)


def test_it_is_resumed_without_the_run_that_it_began_with(first: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    straight = make(tmp_path / "straight", start=str(copy))
    stop = threading.Event()
    seen: list[int] = []

    def after_two(progress: object) -> None:
        seen.append(1)
        if len(seen) == 2:
            stop.set()

    with pytest.raises(Stopped):
        make(tmp_path / "stopped", start=str(copy), callbacks=[after_two], stop=stop)
    shutil.rmtree(copy)
    generate(resume=tmp_path / "stopped", prior=GrayBallPrior())
    for name, value in tensors(straight).items():
        assert torch.equal(value, tensors(tmp_path / "stopped")[name]), name


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for wrong in ("missing", "empty"):
        with pytest.raises(UserError):
            make(tmp_path / "new", start=wrong)
    assert cli.main(["generate", "a ball", "--start", "missing", *options(SMALL)]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if "error" in line]) == 1


def test_a_path_is_recorded_for_any_folder(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(first.parent)
    assert Run.open(make(tmp_path / "second", start="first", **STILL)).config.start == str(first)
