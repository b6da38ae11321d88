"""Room for the family: the examples of docs/architecture.md, through the public shapes alone, killed and resumed."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dreamfusion.distillation.rules import make_rule
from dreamfusion.errors import UserError
from dreamfusion.loop import keep
from dreamfusion.priors.question import Question
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.scene.make import make_scene
from dreamfusion.settings.building import build, stage_configs
from dreamfusion.settings.names import flatten
from dreamfusion.settings.presets import resolve
from dreamfusion.stage import Makers
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL, GrayBallPrior
from tests.faults import forked

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
NAMES = ("GaussianVSD", "Balls", "LightOrDark")


@pytest.fixture(scope="module")
def family() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "family"}
    for block in BLOCKS[:3]:
        exec(block, space)
    return space


def settings(**more: Any) -> dict[str, Any]:
    return {**SMALL, "views_per_step": 4, "prior.asks": "views", "prior.views": 4, **more}


def test_examples_are_short() -> None:
    assert len(BLOCKS) == 4
    assert all(len(block.splitlines()) <= 40 for block in BLOCKS), [len(b.splitlines()) for b in BLOCKS]


def test_the_examples_run_as_they_stand(family: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(BLOCKS[3], dict(family))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list("123456")


def test_the_page_of_stages_is_a_preset() -> None:
    (page,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    first, second = stage_configs(build(flatten(yaml.safe_load(page))))
    assert (first.steps, first.scene.kind, second.steps, second.scene.kind) == (120, "grid", 60, "mlp")


@pytest.mark.parametrize(
    ("scene", "rule", "prior"), list(product((None, "Balls"), (None, "GaussianVSD"), (None, "LightOrDark")))
)
def test_any_prior_works_with_any_rule_on_any_scene(
    family: dict[str, Any], scene: str | None, rule: str | None, prior: str | None
) -> None:
    makers = Makers(family[scene] if scene else make_scene, family[rule] if rule else make_rule)
    asked = settings() if prior else settings(**{"prior.asks": "words"})
    trainer = Trainer(resolve("balanced", asked, "a thing"), family[prior]() if prior else GrayBallPrior(), makers)
    before = trainer.scene.render(orbit_view(orbit_cameras([0]), 12)).colour.detach().clone()
    metrics = [dict(progress.metrics) for progress in trainer.steps()]
    assert len(metrics) == 6 and all(m["skipped"] == 0 for m in metrics)
    assert not torch.equal(trainer.scene.render(orbit_view(orbit_cameras([0]), 12)).colour, before)


def test_the_joint_prior_agrees_over_all_views_of_a_group(family: dict[str, Any]) -> None:
    """Three views look light and one dark: asked jointly all are light; asked alone each is what it looks like."""
    prior = family["LightOrDark"]()
    shown = torch.tensor([0.6, 0.6, 0.6, -0.6])[:, None, None, None].expand(4, 3, 12, 12)
    t = torch.full((4,), 0.3)
    alpha, sigma = prior.alpha_sigma(t)
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    z_t = alpha[:, None, None, None] * shown + sigma[:, None, None, None] * noise
    view = orbit_view(orbit_cameras([0, 90, 180, 270]), 12)
    for asks, expected in (("views", [1, 1, 1, 1]), ("words", [1, 1, 1, -1])):
        words = prior.embed(["x"] * 4)
        question = Question(words, replace(view, group=4), asks)
        (answer,) = prior.predict_noise(z_t, t, question, [words])
        clean = (z_t - sigma[:, None, None, None] * answer) / alpha[:, None, None, None]
        assert clean.mean((1, 2, 3)).sign().tolist() == expected


def test_a_prior_that_answers_views_alone_is_not_asked_jointly() -> None:
    with pytest.raises(UserError, match="answers each view alone"):
        Trainer(resolve("balanced", settings(), "a thing"), GrayBallPrior())


def test_the_scene_grows_and_its_moments_follow(family: dict[str, Any]) -> None:
    trainer = Trainer(
        resolve("balanced", settings(), "a thing"),
        family["LightOrDark"](),
        Makers(family["Balls"], family["GaussianVSD"]),
    )
    for _ in trainer.steps():
        pass
    assert trainer.scene.balls.shape == (6, 7)
    state = trainer.stage.optimiser.state_dict()["balls.balls.exp_avg"]
    assert state.shape == (6, 7) and (state[-1] == 0).all() and (state[:4] != 0).any()


def run(folder: Path, family: dict[str, Any], kill_at: int = 0) -> None:
    """Begin a run in a folder, or resume the one that is there; SIGKILL after a step."""
    config = resolve("balanced", settings(**{"run.checkpoint_seconds": 1e-6}), "a thing")
    prior = family["LightOrDark"]()
    trainer = Trainer(config, prior, Makers(family["Balls"], family["GaussianVSD"]))
    if folder.exists():
        recorded = Run.open(folder)
        trainer.restore(*recorded.load_checkpoint(resumable=True))
    else:
        recorded = Run.create(folder, config)
        recorded.write_config(prior.id, prior.hash)
    for progress in keep(trainer, recorded):
        if progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def test_killed_and_resumed_it_ends_the_same(tmp_path: Path, family: dict[str, Any]) -> None:
    """SIGKILL after step 4: the rule has learned, the scene has grown, the optimiser has moments. The end is the same."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert forked(lambda: run(straight, family)) == 0
    assert forked(lambda: run(killed, family, kill_at=4)) == -signal.SIGKILL
    middle, meta = Run.open(killed).load_checkpoint()
    assert meta["step"] == 4 and middle["scene.balls"].shape == (5, 7) and (middle["rule.mean"] != 0).any()
    assert forked(lambda: run(killed, family)) == 0
    ends = [Run.open(place).load_checkpoint() for place in (straight, killed)]
    assert ends[0][1] == ends[1][1]
    assert ends[0][0].keys() == ends[1][0].keys()
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in ends[0][0])


def test_a_scene_of_another_program_is_not_read_as_ours(tmp_path: Path, family: dict[str, Any]) -> None:
    config = resolve("balanced", settings(), "a thing")
    trainer = Trainer(config, family["LightOrDark"](), Makers(family["Balls"], make_rule))
    run = Run.create(tmp_path / "run", config)
    run.write_config("x", "0" * 64)
    run.save_checkpoint(*trainer.state())
    with pytest.raises(UserError, match="does not fit this configuration"):
        load_scene(run)
