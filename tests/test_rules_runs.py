"""Every rule in whole runs: on every prior and scene, killed and resumed with its own state, with LoRA that is gone afterwards."""

from __future__ import annotations

import math
import os
import signal
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from dreamfusion import regularizers
from dreamfusion.distillation.learner import LowRankLearner, SmallNetwork
from dreamfusion.distillation.rule_settings import VsdSettings
from dreamfusion.distillation.rules import GUIDED, make_rule
from dreamfusion.errors import UserError
from dreamfusion.loading import load_prior
from dreamfusion.loop import keep
from dreamfusion.priors.mixture import Mixture
from dreamfusion.priors.prior import Prior
from dreamfusion.run import Run
from dreamfusion.scene.particles import Particles
from dreamfusion.scene.scene import Rendering
from dreamfusion.settings.building import build
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.elsewhere import DEVICE, Elsewhere
from tests.fakes import SMALL, GrayBallPrior, ask
from tests.faults import forked

KINDS = [settings.model_fields["kind"].default for settings in GUIDED]
ALL = ("oracle", "bundled camera", "bundled words", "bundled views", "bundled image", "if", "sd", "sdxl", "sd3")
SCENES: dict[str, dict[str, Any]] = {
    "grid": {},
    "mlp": {"scene.kind": "mlp", "scene.hidden": 8, "scene.depth": 1, "scene.importance": 0},
    "mesh": {"scene.kind": "mesh", "scene.resolution": 6, "scene.shape_levels": "3", "scene.levels": "4"},
    "splats": {"scene.kind": "splats", "scene.count": 40, "scene.grow_every": 2, "scene.most": 60},
}


class FlowBall(GrayBallPrior):
    def alpha_sigma(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 - t, t


def settings(kind: str, scene: str = "grid", **more: Any) -> dict[str, Any]:
    fields = {"mlp": ("scene.levels",), "grid": ()}.get(scene, ("scene.levels", "scene.samples", "scene.fast"))
    small = {k: v for k, v in SMALL.items() if k not in fields}
    cheap = {"sdi": {"inversion_steps": 2}, "hifa": {"sample_steps": 2}, "ancestral": {"sample_steps": 2}, "vsd": {"width": 8},
             "dds": {"reference_views": 2}}.get(kind, {})  # fmt: skip
    given = {"kind": kind, "negative_prompt": "a ball", "guidance_scale": 1.0, **cheap}
    return {
        **small,
        **SCENES[scene],
        **{f"distillation.{k}": v for k, v in given.items()},
        "prior.asks": "words",
        **more,
    }


def finish(trainer: Trainer) -> list[dict[str, float]]:
    return [dict(progress.metrics) for progress in trainer.steps()]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Loads a tiny pipeline by its name, once."""
    pytest.importorskip("diffusers")
    from tests.tiny_pipelines import save

    folder, loaded = tmp_path_factory.mktemp("tiny"), {}

    def load(name: str) -> Any:
        if name not in loaded:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("DREAMFUSION_CACHE", str(folder / "cache"))
                loaded[name] = load_prior(str(save(name, folder)), "cpu", "float32")
                loaded[name].embed(["a ball"])
        return loaded[name]

    return load


def prior_of(name: str, kind: str, tiny: Any) -> Prior:
    if name == "oracle":
        return FlowBall() if kind == "rfds" else GrayBallPrior()
    return load_prior("bundled") if name.startswith("bundled") else tiny(name)


def picture_of_a_ball(folder: Path) -> str:
    """The path of a small PNG: a red disc, and nothing behind it."""
    picture = Image.new("RGBA", (48, 48))
    ImageDraw.Draw(picture).ellipse((8, 8, 40, 40), fill=(200, 40, 30, 255))
    picture.save(folder / "ball.png")
    return str(folder / "ball.png")


def bundled_question(asks: str, folder: Path) -> dict[str, Any]:
    """The settings that ask the bundled prior so."""
    more: dict[str, Any] = {}
    if asks == "views":
        more = {"prior.views": 2, "views_per_step": 2}
    if asks == "image":
        more = {"prior.image": picture_of_a_ball(folder)}
    return {"prior.asks": asks, **more}


def runs(kind: str, prior: str, scene: str, steps: int, tiny: Any, patch: pytest.MonkeyPatch, folder: Path) -> None:
    """So many steps; the scene moves, no step is skipped, the prior's weights are the same bits."""
    patch.setenv("DREAMFUSION_CACHE", str(folder))
    if kind == "rfds" and prior not in ("oracle", "sd3"):
        pytest.skip("a rule for flows")
    asked: dict[str, Any] = {"steps": steps}
    if prior.startswith("bundled"):
        asked |= bundled_question(prior.split()[1], folder)
    loaded = prior_of(prior, kind, tiny)
    network = loaded.adaptable() if not prior.startswith("bundled") else loaded.layout  # type: ignore[attr-defined]
    before = {n: p.clone() for n, p in network.state_dict().items()} if network is not None else {}
    trainer = Trainer(resolve("balanced", settings(kind, scene, **asked), "a red ball"), loaded)
    start = {n: p.detach().clone() for n, p in trainer.scene.named_parameters()}
    metrics = finish(trainer)
    assert len(metrics) == steps and all(m["skipped"] == 0 for m in metrics)
    assert any(not torch.equal(p, start[n]) for n, p in trainer.scene.named_parameters())
    if network is not None:
        after = network.state_dict()
        assert after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)
        assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("kind", "scene"), list(product(KINDS, SCENES)))
def test_rules_on_scenes(
    kind: str, scene: str, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    runs(kind, "oracle", scene, 4, tiny, monkeypatch, tmp_path)


@pytest.mark.parametrize(("kind", "prior"), [*zip(KINDS, [*("if", "sd", "sdxl", "sd3") * 4], strict=True)])
def test_rules_on_a_large_prior_each(
    kind: str, prior: str, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    runs(kind, "sd3" if kind == "rfds" else prior, "grid", 2, tiny, monkeypatch, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "prior", "scene"), list(product(KINDS, ALL, SCENES)))
def test_all_rules_on_all_priors_and_scenes(
    kind: str, prior: str, scene: str, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    runs(kind, prior, scene, 10, tiny, monkeypatch, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_taken_up_ends_the_same(kind: str) -> None:
    """To the bit, with the rule's own state: what VSD has learned, DDS has seen, and the one noise of Consistent3D."""
    prior = FlowBall() if kind == "rfds" else GrayBallPrior()
    config = resolve("balanced", settings(kind), "a red ball")
    straight, half, rest = (Trainer(config, prior) for _ in range(3))
    finish(straight)
    for _ in range(3):
        half.step()
    tensors, meta = half.state()
    rest.restore({name: x.clone() for name, x in tensors.items()}, meta)
    assert {n for n in tensors if n.startswith("rule.")} or kind not in ("vsd", "dds", "consistent3d")
    finish(rest)
    ends = [t.state()[0] for t in (straight, rest)]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def keep_run(folder: Path, kill_at: int = 0) -> None:
    """Begin a run of VSD in a folder, or resume the one that is there; SIGKILL after a step."""
    config = resolve("balanced", settings("vsd", **{"run.checkpoint_seconds": 1e-6}), "a red ball")
    trainer = Trainer(config, GrayBallPrior())
    if folder.exists():
        run = Run.open(folder)
        trainer.restore(*run.load_checkpoint(resumable=True))
    else:
        run = Run.create(folder, config)
        run.write_config("gray-ball", "0" * 64)
    for progress in keep(trainer, run):
        if progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def test_vsd_killed_and_resumed_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL after step 4, when the learner has weights and moments of its own."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert forked(lambda: keep_run(straight)) == 0
    assert forked(lambda: keep_run(killed, kill_at=4)) == -signal.SIGKILL
    assert Run.open(killed).load_checkpoint()[1]["step"] == 4
    assert forked(lambda: keep_run(killed)) == 0
    ends = [Run.open(place).load_checkpoint() for place in (straight, killed)]
    assert ends[0][1] == ends[1][1] and ends[0][0].keys() == ends[1][0].keys()
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in ends[0][0])


def test_vsd_learns_nothing_from_an_answer_that_is_not_a_number() -> None:
    """Its weights, moments and count stay in that step, as the scene's do, and it goes on learning."""
    config = resolve("balanced", settings("vsd", **{"steps": 6, "run.bad_steps": 3}), "a ball")
    prior = GrayBallPrior()
    trainer, clean, found = Trainer(config, prior), prior.clean, []
    for progress in trainer.steps():
        learned = {k: v.clone() for k, v in trainer.stage.rule.state_dict().items()}
        found.append((progress.metrics["learner_loss"], learned))
        prior.clean = clean * float("nan") if progress.step == 2 else clean
    losses = [loss for loss, _ in found]
    assert [math.isfinite(loss) for loss in losses] == [True, True, False, True, True, True]
    kept = [
        all(torch.equal(after[name], before[name]) for name in after) for (_, before), (_, after) in pairwise(found)
    ]
    assert kept == [False, True, False, False, False]


def test_what_vsd_has_learned_is_restored_to_where_its_weights_are() -> None:
    """The count of steps too: on a GPU the fused step refuses one on the CPU."""
    learner = SmallNetwork(GrayBallPrior(), VsdSettings(width=8))
    question, t = ask(learner.prior.embed(["a ball"]), [[0.5, 0.2, 2.5]]), torch.full((1,), 0.4)
    z_t, noise = torch.randn(2, 1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    learner.learn(z_t, t, question, noise, torch.ones(1))
    saved = {name: value.clone() for name, value in learner.state().items()}
    with Elsewhere():
        learner.to(DEVICE)
        learner.restore(saved)
        found = learner.state()
        assert {value.device for value in found.values()} == {DEVICE}
        assert found.keys() == saved.keys() and all(torch.equal(found[k].cpu(), v) for k, v in saved.items())


@pytest.mark.parametrize("name", ["if", "sd", "sdxl", "sd3", "flux"])
def test_low_rank_updates_are_there_only_while_the_rule_asks(name: str, tiny: Any) -> None:
    """They start as nothing, learn, and leave the prior's own answer as it was; the loss on one noise falls."""
    prior = tiny(name)
    rule = make_rule(build({"distillation.kind": "vsd", "distillation.learner_lr": 0.01}).distillation, prior)
    learner = rule.learner  # type: ignore[attr-defined]
    assert isinstance(learner, LowRankLearner) and len(learner.updates.names) >= 4
    g = torch.Generator().manual_seed(0)
    z_t, noise = torch.randn(prior.noise_shape(2), generator=g), torch.randn(prior.noise_shape(2), generator=g)
    t, told = torch.full((2,), 0.4), torch.ones(2)
    question = ask(prior.embed(["a ball"] * 2), [[0.5, 0.2, 2.5]] * 2)
    with torch.no_grad():
        (before,) = prior.predict_noise(z_t, t, question, [question.words])
    torch.testing.assert_close(learner.predict(z_t, t, question), before)
    losses = [float(learner.learn(z_t, t, question, noise, told)) for _ in range(8)]
    assert losses[-1] < losses[0]
    away = learner.predict(z_t, t, question) - before
    other = learner.predict(z_t, t, ask(question.words, [[2.5, 0.2, 2.5]] * 2)) - before  # another camera
    assert away.abs().max() > 1e-4 and not torch.equal(away, other)
    with torch.no_grad():
        assert torch.equal(prior.predict_noise(z_t, t, question, [question.words])[0], before)


def test_low_rank_updates_are_pefts(tiny: Any) -> None:
    """The same A and B in peft's LoRA give the same answer."""
    peft = pytest.importorskip("peft")
    import copy

    from dreamfusion.distillation.low_rank import ADAPTED, LowRank

    prior = tiny("sd")
    updates = LowRank(prior.network, 4, 5)
    for up in updates.up:
        torch.nn.init.normal_(up, std=0.05)
    z_t, t = torch.randn(prior.noise_shape(2), generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.4)
    question = ask(prior.embed(["a ball"] * 2))
    with torch.no_grad(), updates.within(prior.network, torch.zeros(2, 5)):
        (found,) = prior.predict_noise(z_t, t, question, [question.words])
    other = copy.copy(prior)
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=list(ADAPTED))
    other.network = peft.inject_adapter_in_model(config, copy.deepcopy(prior.network))
    theirs = dict(other.network.named_parameters())
    with torch.no_grad():
        for name, down, up in zip(updates.names, updates.down, updates.up, strict=True):
            theirs[f"{name}.lora_A.default.weight"].copy_(down)
            theirs[f"{name}.lora_B.default.weight"].copy_(up)
        (expected,) = other.predict_noise(z_t, t, question, [question.words])
        (plain,) = prior.predict_noise(z_t, t, question, [question.words])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - plain).abs().max() > 1e-3


def test_which_learner_suits_which_prior() -> None:
    def make(prior: Prior, learner: str) -> Any:
        return make_rule(build({"distillation.kind": "vsd", "distillation.learner": learner}).distillation, prior)

    assert isinstance(make(GrayBallPrior(), "auto").learner, SmallNetwork)
    with pytest.raises(UserError, match="has no network to adapt"):
        make(GrayBallPrior(), "low_rank")
    with pytest.raises(UserError, match="give it one prior"):
        make(Mixture([(0.5, GrayBallPrior()), (0.5, GrayBallPrior())]), "auto")


@pytest.mark.parametrize("name", ["emptiness", "depth_variance"])
def test_penalties_of_samples_need_the_plain_renderer(name: str) -> None:
    more = {f"regularizers.{name}": 0.1, "steps": 2}
    config = resolve("balanced", settings("sds", **more), "a red ball")
    assert all(m[f"regularizer_{name}"] > 0 for m in finish(Trainer(config, GrayBallPrior())))
    x = torch.zeros(1, 3, 2, 2)
    fused = Rendering(x, x[:, :1], x[:, :1], x, {"orientation": torch.zeros(())})
    with pytest.raises(UserError, match=rf"regularizers\.{name} looks at the samples .* scene\.fast"):
        regularizers.total(config.regularizers, fused, 0.5)


def test_particles_learn_side_by_side_and_resume() -> None:
    """Each is moved in its own steps, from a start of its own; the asset is the first; a run that is taken up ends the same."""
    more = {"scene.particles": 3, "steps": 12}
    config = resolve("balanced", settings("vsd", **more), "a red ball")
    straight, half, rest = (Trainer(config, GrayBallPrior()) for _ in range(3))
    scene = straight.scene
    assert isinstance(scene, Particles) and len(scene.each) == 3
    start = {n: p.detach().clone() for n, p in scene.named_parameters()}
    assert not torch.equal(start["scenes.0.table"], start["scenes.1.table"])
    finish(straight)
    assert all(not torch.equal(p, start[n]) for n, p in scene.named_parameters() if n.endswith("table"))
    view = orbit_view(orbit_cameras([0.0]), 12)
    assert torch.equal(scene.render(view).colour, scene.each[0].render(view).colour)
    for _ in range(2):
        half.step()
    rest.restore(*half.state())
    finish(rest)
    ends = [t.state()[0] for t in (straight, rest)]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_particles_go_on_in_the_next_stage() -> None:
    """Each of them as it was. A single field starts from the first, which a scene of particles shows as its own."""
    page = settings("vsd", steps=3) | {"stages": [{"scene.particles": 2}, {"scene.particles": 2}]}
    trainer = Trainer(build({**page, "prompt": "a red ball"}), GrayBallPrior())
    for _ in range(3):
        trainer.step()
    before = {n: p.detach().clone() for n, p in trainer.scene.named_parameters()}
    trainer.stage = trainer._begin(1, trainer.stage)
    assert all(torch.equal(p, before[n]) for n, p in trainer.scene.named_parameters())
    scene = trainer.scene
    assert isinstance(scene, Particles) and scene.as_volume() is scene.each[0]
