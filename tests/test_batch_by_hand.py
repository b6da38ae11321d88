"""Runs of a batch that somebody changed while they were stopped: they are kept, and the summary says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamfusion import cli, generate
from dreamfusion.batch.by_hand import lines_by_hand
from dreamfusion.batch.jobs import Job
from dreamfusion.errors import UserError
from dreamfusion.run import Run
from tests.fakes import SMALL, GrayBallPrior
from tests.test_batch import command, here, times  # noqa: F401
from tests.test_more_steps import stopped_after

pytestmark = pytest.mark.usefixtures("no_previews")
BALL, RED = Path("set/a-ball-0"), Path("set/a-red-ball-0")


def said(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capfd.readouterr().out.splitlines()[-1]))


def test_a_changed_run_is_kept_and_a_stopped_one_goes_on_with_its_changes(
    here: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    start: dict[str, Any] = {"preset": "fast", **SMALL}
    stopped_after(3, prompt="a ball", out=BALL, **start)
    generate(resume=BALL, prior=GrayBallPrior(), guidance_scale=5, steps=8, **{"export.faces": 100})
    stopped_after(2, prompt="a red ball", out=RED, **start)
    stopped_after(4, resume=RED, **{"scene.lr": 0.05})
    before = times()
    assert cli.main([*command(), "--workers", "1"]) == 0  # each takes seconds to start
    found = capfd.readouterr()
    assert "3 runs, 1 of them finished" in found.err and "3 of 3 assets, 0 failed" in found.out
    changed = "distillation.guidance_scale = 5 from step 3 on, export.faces = 100 from step 3 on, 8 steps"
    assert f"{BALL} is as somebody changed it while it was stopped: {changed}" in found.out
    assert f"{RED} is as somebody changed it while it was stopped: scene.lr = 0.05 from step 2 on" in found.out
    assert "a-blue-ball-0 is as" not in found.out
    after = times()
    assert all(after[name] == at for name, at in before.items() if name.startswith(str(BALL)))
    assert Run.open(RED).read_meta()["step"] == 6 and Run.open(RED).config.changes[0]["step"] == 2

    assert cli.main([*command(), "--json"]) == 0
    assert said(capfd)["changed"][str(RED)] == ["scene.lr = 0.05 from step 2 on"] and times() == after


def test_a_changed_run_of_other_settings_is_refused(
    here: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    stopped_after(2, prompt="a ball", preset="fast", out=BALL, **SMALL)
    stopped_after(4, resume=BALL, guidance_scale=5)
    assert cli.main([*command(), "--view.words", "false"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{BALL} was made with view.words = true, now false; move it away" in line


def test_more_steps_of_a_stage(tmp_path: Path) -> None:
    page = tmp_path / "two.yaml"
    page.write_text("stages:\n- steps: 3\n- {steps: 3, scene.lr: 0.02}\n")
    small = {k: v for k, v in SMALL.items() if k != "steps"}
    job = Job(tmp_path / "run", "x", str(page), small)
    stopped_after(2, prompt="x", preset=str(page), out=job.folder, **small)
    assert job.changed_by_hand() == [] and job.steps() == 6
    generate(resume=job.folder, prior=GrayBallPrior(), **{"stages.2.steps": 5})
    assert job.changed_by_hand() == ["8 steps"] and (job.steps(), job.steps_done()) == (8, 8)
    assert job.state() == ("finished", "") and job.ask() is None
    other = Job(job.folder, "x", str(page), small | {"stages.2.scene.lr": 0.03})
    with pytest.raises(UserError, match=r"was made with stages = "):
        other.state()


def test_fewer_steps_and_steps_with_other_schedules_are_other_settings(tmp_path: Path) -> None:
    job = Job(tmp_path / "run", "x", "fast", SMALL)
    Run.create(job.folder, Job(job.folder, "x", "fast", SMALL | {"steps": 9}).config).write_config("x", "0" * 64)
    with pytest.raises(UserError, match="was made with steps = 9, now 6"):
        job.state()


def test_what_the_list_itself_asks_for_is_no_change(tmp_path: Path) -> None:
    """A line may name the run.yaml of a run that was changed."""
    out = tmp_path / "run"
    stopped_after(2, prompt="x", preset="fast", out=out, **SMALL)
    stopped_after(4, resume=out, guidance_scale=5)
    own, config = Job(out, "x", str(out / "run.yaml")), Run.open(out).config
    assert own.changed_by_hand() == [] and own.state() == ("stopped", "")
    assert lines_by_hand(config, Job(out, "x", "fast", SMALL).config)
    plain = Job(tmp_path / "plain", "x", "fast", SMALL)
    Run.create(plain.folder, plain.config).write_config("x", "0" * 64)
    with pytest.raises(UserError, match="was made with changes = "):
        Job(plain.folder, "x", str(out / "run.yaml")).state()
