"""Settings that change while a run is stopped: they hold from the checkpoint's step on, whatever happens afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dreamfusion import cli, generate
from dreamfusion.errors import UserError
from dreamfusion.mid_run import with_changes
from dreamfusion.run import Run
from dreamfusion.settings.building import build, stage_configs
from dreamfusion.settings.presets import resolve
from dreamfusion.stage import Stage
from dreamfusion.trainer import Trainer
from tests.fakes import SMALL, GrayBallPrior, options
from tests.test_more_steps import same, stopped_after, tensors

NEW = {
    "distillation.guidance_scale": 5.0, "distillation.weight": "uniform", "distillation.t_max": 0.7, "scene.lr": 0.05,
    "regularizers.opacity": 0.3, "view.elevation_deg": [20.0, 40.0], "shading.albedo": 0.5, "optimizer.betas": [0.8, 0.9],
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("no_previews")
START: dict[str, Any] = {"prompt": "x", "preset": "fast", **SMALL}


class Bad(Exception):
    """What a callback raises to end a process."""


def killed_after(count: int, **where: Any) -> None:
    """Do steps until ``count`` of the run are done, and lose all but the last checkpoint, as a killed process does."""
    folder = Path(where["resume"])
    kept = folder.with_name("kept")
    shutil.copytree(folder / "checkpoint", kept)

    def look(progress: Any) -> None:
        if progress.step == count:
            raise Bad

    with pytest.raises(Bad):
        generate(prior=GrayBallPrior(), callbacks=[look], **where)
    shutil.rmtree(folder / "checkpoint")
    kept.rename(folder / "checkpoint")


@pytest.fixture(scope="module")
def changed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after 3 of 6 steps, and went on with other settings."""
    folder = tmp_path_factory.mktemp("changed") / "run"
    stopped_after(3, out=folder, **START)
    generate(resume=folder, prior=GrayBallPrior(), **NEW)
    return folder


def test_it_is_two_runs_the_second_of_which_begins_where_the_first_was_stopped(changed_run: Path) -> None:
    """By hand: three steps of a trainer of the old settings, and three of one of the new settings with the state of the first."""
    one = Trainer(resolve("fast", SMALL, "x"), GrayBallPrior())
    for _ in range(3):
        one.step()
    two = Trainer(resolve("fast", {**SMALL, **NEW}, "x"), GrayBallPrior())
    two.restore(*one.state())
    for _ in range(3):
        two.step()
    expected, found = two.state()[0], tensors(changed_run)
    assert expected.keys() == found.keys() and all(torch.equal(expected[k], found[k]) for k in found)
    for _ in range(3):
        one.step()
    assert not torch.equal(one.state()[0]["scene.table"], found["scene.table"])


def test_the_record_says_what_changed_and_when(changed_run: Path) -> None:
    page = yaml.safe_load((changed_run / "run.yaml").read_text())["config"]
    assert page["changes"] == [{"step": 3, "settings": NEW}]
    assert page["distillation"]["guidance_scale"] == 0.0 and page["scene"]["lr"] != 0.05  # as it began


@pytest.mark.parametrize("kills", [(4,), (5, 4), (3,)])
def test_a_kill_after_the_change_loses_nothing(kills: tuple[int, ...], changed_run: Path, tmp_path: Path) -> None:
    """Its checkpoint is from before the change's first step, or from just before the change."""
    out = tmp_path / "run"
    stopped_after(3, out=out, **START)
    more = NEW
    for step in kills:
        if step > 3:
            killed_after(step, resume=out, **more)
        more = {}  # they are recorded
    generate(resume=out, prior=GrayBallPrior(), **(NEW if kills == (3,) else {}))
    assert same(out, changed_run)


def test_a_checkpoint_of_before_the_change_comes_to_it_again(changed_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped_after(2, out=out, **START)
    shutil.copytree(out / "checkpoint", tmp_path / "older")
    stopped_after(3, resume=out)
    stopped_after(5, resume=out, **NEW)
    shutil.rmtree(out / "checkpoint")
    shutil.copytree(tmp_path / "older", out / "checkpoint")
    generate(resume=out, prior=GrayBallPrior())
    assert same(out, changed_run)


def test_the_recorded_run_can_be_repeated(changed_run: Path, tmp_path: Path) -> None:
    generate(preset=str(changed_run / "run.yaml"), out=tmp_path / "again", prior=GrayBallPrior())
    assert same(tmp_path / "again", changed_run)
    stopped_after(4, preset=str(changed_run / "run.yaml"), out=tmp_path / "cut")
    generate(resume=tmp_path / "cut", prior=GrayBallPrior())
    assert same(tmp_path / "cut", changed_run)
    other = resolve(
        str(changed_run / "run.yaml"), {"scene.lr": 0.02}
    )  # an option holds from the first step to the last
    assert [c.scene.lr for step in (0, 3) for c in stage_configs(other, step)] == [0.02, 0.02]  # type: ignore[union-attr]


def test_a_resumed_run_makes_its_stage_once(changed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of its checkpoint, with the settings that hold there: neither the first stage nor the settings of the beginning."""
    made: list[tuple[int, float]] = []

    class Counted(Stage):
        def __init__(self, config: Any, prior: Any, number: int = 0, *rest: Any) -> None:
            made.append((number, config.scene.lr))
            super().__init__(config, prior, number, *rest)

    out, page = tmp_path / "run", tmp_path / "two.yaml"
    page.write_text("stages:\n- steps: 2\n- {steps: 4, scene.lr: 0.02}\n")
    stopped_after(4, prompt="x", preset=str(page), out=out, **{k: v for k, v in SMALL.items() if k != "steps"})
    monkeypatch.setattr("dreamfusion.trainer.Stage", Counted)
    generate(resume=out, prior=GrayBallPrior(), **{"scene.lr": 0.05})
    assert made == [(1, 0.05)]
    made.clear()
    generate(resume=changed_run, prior=GrayBallPrior())
    assert made == [(0, 0.05)]


def test_changes_add_up_and_what_is_the_same_is_none(tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped_after(2, out=out, **START)
    stopped_after(4, resume=out, guidance_scale="5", **{"export.faces": 100})
    stopped_after(5, resume=out, distillation__guidance_scale=5, steps=7, **{"shading.albedo": 0.3})
    generate(resume=out, prior=GrayBallPrior(), guidance_scale=2)
    config = Run.open(out).config
    assert config.changes == (
        {"step": 2, "settings": {"distillation.guidance_scale": 5.0, "export.faces": 100}},
        {"step": 4, "settings": {"shading.albedo": 0.3}},
        {"step": 5, "settings": {"distillation.guidance_scale": 2.0}},
    )
    assert (config.steps, config.export.faces) == (7, 100) and tensors(out)["scene.table"].isfinite().all()
    values = [stage_configs(config, step)[0].distillation.guidance_scale for step in (0, 2, 4, 5)]  # type: ignore[union-attr]
    assert values == [0.0, 5.0, 5.0, 2.0]
    before = (out / "asset.glb").read_bytes()
    asset = generate(resume=out, prior=GrayBallPrior(), **{"export.faces": 200})  # nothing but the export is left
    assert 150 < asset.geometry_report()["triangles"] < 250 and (out / "asset.glb").read_bytes() != before


def test_stages_that_follow_have_the_change_where_their_kinds_have_it(tmp_path: Path) -> None:
    page, out = tmp_path / "two.yaml", tmp_path / "run"
    page.write_text("distillation: {kind: csd}\nstages:\n- steps: 3\n- {steps: 3, distillation.kind: sds}\n")
    small = {k: v for k, v in SMALL.items() if k != "steps"}
    stopped_after(2, prompt="x", preset=str(page), out=out, **small)
    new = {"distillation.negative_share": 0.5, "distillation.weight": "uniform"}
    killed_after(5, resume=out, **new)
    stopped_after(4, resume=out)
    with pytest.raises(UserError, match=r"distillation\.negative_share belongs to"):
        generate(resume=out, prior=GrayBallPrior(), **{"distillation.negative_share": 0.7})
    generate(resume=out, prior=GrayBallPrior())
    first, second = stage_configs(Run.open(out).config, 6)
    assert first.distillation.negative_share == 0.5  # type: ignore[union-attr]
    assert [c.distillation.weight for c in (first, second)] == ["uniform"] * 2  # type: ignore[union-attr]
    generate("", str(out / "run.yaml"), out=tmp_path / "again", prior=GrayBallPrior())
    assert same(out, tmp_path / "again")


@pytest.mark.parametrize("kind", ["vsd", "dds"])
def test_what_a_rule_has_learned_stays(kind: str, tmp_path: Path) -> None:
    out, again = tmp_path / "run", tmp_path / "again"
    extra = {"distillation.kind": kind, "distillation.negative_prompt": "a cube"}
    extra |= {"distillation.reference_views": 2} if kind == "dds" else {"distillation.width": 4}
    stopped_after(4, out=out, **START, **extra)
    learned = {k: v for k, v in tensors(out).items() if k.startswith("rule.")}
    new = {"distillation.guidance_scale": 3.0} | ({"distillation.learner_lr": 0.0} if kind == "vsd" else {})
    generate(resume=out, prior=GrayBallPrior(), **new)
    found = tensors(out)
    names = [k for k in learned if not k.endswith(("step", "exp_avg", "exp_avg_sq"))]
    assert names and all(
        torch.equal(learned[k], found[k]) for k in names
    )  # dds has seen both views, vsd learns no more
    generate("", str(out / "run.yaml"), out=again, prior=GrayBallPrior())
    assert same(out, again)


REFUSED = {
    "seed": 3, "resolution": 16, "views_per_step": 2, "threads": 2, "device": "cpu", "start": "x", "schedule_steps": 9,
    "prior.id": "guide", "prior.asks": "words", "prior.image": "x.png", "scene.levels": "8,16", "scene.samples": 9,
    "scene.kind": "mlp", "distillation.kind": "csd", "distillation.learner": "network", "run.bad_steps": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_run_keeps(name: str) -> None:
    with pytest.raises(UserError, match=f"a resumed run keeps its {name}; leave out {name}"):
        with_changes(resolve("fast", SMALL, "x"), {name: REFUSED[name]}, {"step": 3, "stage": 0})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"distillation.guidance_scale": "much"}, "distillation.guidance_scale = 'much' is not allowed"),
        ({"distillation.guidance": 3}, "did you mean 'distillation.guidance_scale'?"),
        ({"distillation.rank": 3}, "keeps its distillation.rank"),
        ({"distillation.interval": 0.1}, "distillation.interval belongs to distillation.kind=ism; this run has sds"),
        ({"view.background": "learned"}, "keeps its view.background"),
        ({"prompt": "y"}, "keeps its prompt"),
        ({"stages.1.view.fov_deg": 30}, "keeps its stages.1.view.fov_deg"),
        ({"view.elevation_deg": "40,20"}, "must not exceed"),
    ],
)
def test_mistakes_are_one_line_and_record_nothing(settings: dict[str, Any], line: str, tmp_path: Path) -> None:
    config = resolve("fast", SMALL, "x")
    with pytest.raises(UserError) as caught:
        with_changes(config, settings, {"step": 3, "stage": 0})
    assert line in str(caught.value) and "\n" not in str(caught.value) and config == resolve("fast", SMALL, "x")


def test_a_run_without_steps_left(changed_run: Path) -> None:
    before = (changed_run / "run.yaml").read_bytes()
    with pytest.raises(UserError, match=r"has no steps left, so shading\.albedo would change nothing"):
        generate(resume=changed_run, prior=GrayBallPrior(), **{"shading.albedo": 0.9})
    assert (changed_run / "run.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        3,
        [3],
        [{"step": 3}],
        [{"step": -1, "settings": {}}],
        [{"step": True, "settings": {}}],
        [{"step": 1, "settings": 3}],
    ],
)
def test_a_damaged_record(changes: Any) -> None:
    with pytest.raises(UserError, match="changes must be a list of"):
        build({"changes": changes})
    with pytest.raises(UserError, match="keeps its seed"):
        build({"changes": [{"step": 1, "settings": {"seed": 3}}]})


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changed_run: Path
) -> None:
    monkeypatch.setattr("dreamfusion.generation.load_prior", lambda *_, **__: GrayBallPrior())
    out = tmp_path / "run"
    stopped_after(3, out=out, **START)
    before = (out / "run.yaml").read_bytes()
    for words, line in (
        (["--seed", "3"], "keeps its seed"),
        (["a cat"], "leave out a prompt"),
        (["--scene.kind", "mlp"], "keeps its scene.kind"),
        (["--distillation.weight", "heavy"], "distillation.weight = 'heavy' is not allowed"),
    ):
        assert cli.main(["generate", "--resume", str(out), *words]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert line in said and (out / "run.yaml").read_bytes() == before
    assert cli.main(["generate", "--resume", str(out), *options(NEW), "--scene.lr-head", "0.001"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "changes nothing" in line]
    assert warned == ["dreamfusion: warning: scene.lr_head = 0.001 changes nothing: the run has that value already"]
    assert same(out, changed_run) and Run.open(out).config.changes == Run.open(changed_run).config.changes
