"""More steps for a run that has ended or was stopped: the same, bit by bit, as if it had had them from the beginning."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dreamfusion import cli, generate
from dreamfusion.errors import UserError
from dreamfusion.generation import Stopped
from dreamfusion.more_steps import with_more_steps
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from tests.fakes import SMALL, GrayBallPrior

pytestmark = pytest.mark.usefixtures("no_previews")
TWO = "stages:\n- steps: 4\n- steps: 4\n"


def stopped_after(count: int, prior: Any = None, **where: Any) -> None:
    """Do steps until ``count`` of the run are done, and stop."""
    stop = threading.Event()

    def look(progress: Any) -> None:
        if progress.step == count:
            stop.set()

    with pytest.raises(Stopped):
        generate(prior=prior or GrayBallPrior(), callbacks=[look], stop=stop, **where)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return Run.open(folder).load_checkpoint(resumable=True)[0]


def same(one: Path, two: Path) -> bool:
    a, b = tensors(one), tensors(two)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 10 steps whose schedules run over the first 6."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    generate("x", "fast", out=folder, prior=GrayBallPrior(), **{**SMALL, "steps": 10, "schedule_steps": 6})
    return folder


def test_a_finished_run_goes_on_as_if_it_had_not_finished(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    generate("x", "fast", out=out, prior=GrayBallPrior(), **SMALL)
    first = (out / "asset.glb").read_bytes()
    asset = generate(resume=out, steps=10, prior=GrayBallPrior())
    assert same(out, straight) and (out / "asset.glb").read_bytes() != first
    assert asset.geometry_report()["triangles"] > 0
    page = yaml.safe_load((out / "run.yaml").read_text())
    assert (page["config"]["steps"], page["config"]["schedule_steps"]) == (10, 6)
    assert page["config"] == yaml.safe_load((straight / "run.yaml").read_text())["config"]
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 11))


@pytest.mark.parametrize(("before", "after"), [(3, None), (3, 4), (3, 8), (6, 7)])
def test_it_does_not_matter_when_the_steps_are_added_or_the_run_is_stopped(
    before: int, after: int | None, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    if before < 6:
        stopped_after(before, prompt="x", preset="fast", out=out, **SMALL)
    else:
        generate("x", "fast", out=out, prior=GrayBallPrior(), **SMALL)
    more: dict[str, Any] = {"steps": 10}
    if after is not None:
        stopped_after(after, resume=out, **more)
        more = {}  # they are recorded
    generate(resume=out, prior=GrayBallPrior(), **more)
    assert same(out, straight)


def test_steps_may_be_added_again_and_again(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    generate("x", "fast", out=out, prior=GrayBallPrior(), **SMALL)
    for steps in (7, "8", 10, 10):
        generate(resume=out, steps=steps, prior=GrayBallPrior())
    assert same(out, straight) and Run.open(out).config.schedule_steps == 6


def test_added_steps_keep_the_last_values_of_the_schedules(tmp_path: Path) -> None:
    settings = {
        **SMALL, "steps": 3, "distillation.t_min": "0:0.9,1:0.2", "distillation.t_max": "0:0.9,1:0.2",
        "shading.albedo_until": 1, "optimizer.lr_factor": "0:1,1:0.5",
    }  # fmt: skip
    trainer = Trainer(with_more_steps(resolve("fast", settings, "x"), {"steps": 6}, 0), GrayBallPrior())
    seen = [(p.metrics["t"], p.metrics["shading"]) for p in trainer.steps()]
    assert [t for t, _ in seen] == pytest.approx([0.9, 0.9 - 0.7 / 3, 0.9 - 1.4 / 3, 0.2, 0.2, 0.2])
    assert [shading for _, shading in seen] == [0.0] * 6
    assert trainer.stage.optimiser.adam.param_groups[0]["lr"] == pytest.approx(0.5 * 0.015)


def test_the_surface_does_not_soften_again(tmp_path: Path) -> None:
    settings = {**SMALL, "steps": 3, "scene.hardening": "0:1,1:8", "scene.lr": 1e-9, "scene.lr_head": 1e-9}
    short = Trainer(resolve("fast", settings, "x"), GrayBallPrior())
    long = Trainer(with_more_steps(resolve("fast", settings, "x"), {"steps": 9}, 0), GrayBallPrior())
    for trainer in (short, long):
        list(trainer.steps())
    points = torch.rand(50, 3) - 0.5
    torch.testing.assert_close(short.scene.density(points), long.scene.density(points), rtol=1e-4, atol=1e-4)


def test_a_repeated_run_is_the_run_that_was_given_more(tmp_path: Path) -> None:
    out = tmp_path / "run"
    generate("x", "fast", out=out, prior=GrayBallPrior(), **SMALL)
    generate(resume=out, steps=8, prior=GrayBallPrior())
    generate(preset=str(out / "run.yaml"), out=tmp_path / "again", prior=GrayBallPrior())
    assert same(out, tmp_path / "again")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"steps": 5}, "the run has 6 steps; --steps 5 is fewer"),
        ({"steps": 0}, "steps = 0 is not allowed"),
        ({"steps": "many"}, "steps = 'many' is not allowed"),
        ({"steps": 2_000_000}, "steps = 2000000 is not allowed"),
        ({"steps": 9, "seed": 3}, "leave out seed"),
        ({"schedule_steps": 9}, "leave out schedule_steps"),
        ({"stages.2.steps": 9}, "the run has no stages"),
        ({"stages.0.steps": 9}, "the run has no stages"),
        ({"stepz": 9}, "did you mean 'steps'?"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(
    settings: dict[str, Any], line: str, straight: Path, tmp_path: Path
) -> None:
    config = resolve("fast", SMALL, "x")
    with pytest.raises(UserError) as caught:
        with_more_steps(config, settings, 0)
    assert line in str(caught.value)
    before = (straight / "run.yaml").read_bytes()
    with pytest.raises(UserError):
        generate(resume=straight, prior=GrayBallPrior(), **settings)
    assert (straight / "run.yaml").read_bytes() == before


def test_the_steps_of_stages(tmp_path: Path) -> None:
    page, out = tmp_path / "two.yaml", tmp_path / "run"
    page.write_text(TWO)
    small = {k: v for k, v in SMALL.items() if k != "steps"}
    stopped_after(2, prompt="x", preset=str(page), out=out, **small)
    stopped_after(5, resume=out, steps=5)  # the first stage, which the checkpoint is in
    assert Run.open(out).config.stages == ({"steps": 5, "schedule_steps": 4}, {"steps": 4})
    generate(resume=out, prior=GrayBallPrior(), **{"stages.2.steps": 6})
    run = Run.open(out)
    assert run.config.stages == ({"steps": 5, "schedule_steps": 4}, {"steps": 6, "schedule_steps": 4})
    assert run.load_checkpoint()[1]["step"] == 11
    generate(resume=out, prior=GrayBallPrior(), steps=7)  # of a finished run: the last stage
    assert Run.open(out).load_checkpoint()[1]["step"] == 12
    with pytest.raises(UserError, match="stage 1 of the run is over"):
        generate(resume=out, prior=GrayBallPrior(), **{"stages.1.steps": 9})
    with pytest.raises(UserError, match="the run has 2 stages"):
        generate(resume=out, prior=GrayBallPrior(), **{"stages.3.steps": 9})
    with pytest.raises(UserError, match="stage 2 has 7 steps; --steps 6 is fewer"):
        generate(resume=out, prior=GrayBallPrior(), steps=6)


def test_a_finished_run_of_an_earlier_version_goes_on_without_its_moments(tmp_path: Path) -> None:
    out = tmp_path / "run"
    generate("x", "fast", out=out, prior=GrayBallPrior(), **SMALL)
    run = Run.open(out)
    kept, meta = run.load_checkpoint()
    run.save_checkpoint({k: v for k, v in kept.items() if k.startswith("scene.")}, meta)
    generate(resume=out, steps=8, prior=GrayBallPrior())
    assert Run.open(out).load_checkpoint()[1]["step"] == 8
    assert load_scene(run)[0].density(torch.zeros(1, 3)).isfinite().all()


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], straight: Path
) -> None:
    monkeypatch.setattr("dreamfusion.generation.load_prior", lambda *_, **__: GrayBallPrior())
    out = tmp_path / "run"
    generate("x", "fast", out=out, prior=GrayBallPrior(), **SMALL)
    assert cli.main(["generate", "--resume", str(out), "--steps", "10"]) == 0
    assert "step 10/10" in capsys.readouterr().err and same(out, straight)
    assert cli.main(["generate", "--resume", str(out), "--steps", "9"]) == 2
    assert "the run has 10 steps; --steps 9 is fewer" in capsys.readouterr().err
    assert cli.main(["generate", "--resume", str(out), "--steps", "11", "--seed", "3"]) == 2
    assert "leave out seed" in capsys.readouterr().err and Run.open(out).config.steps == 10
