"""Splats that grow: what is cloned, split, pruned and reset, Adam's state, and runs that are killed in the middle of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamfusion.generation import generate
from dreamfusion.optimiser import Optimiser
from dreamfusion.run import Run
from dreamfusion.scene import growth
from dreamfusion.scene.particles import shown_of
from dreamfusion.scene.splat_scene import PARTS, SplatScene
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL, GrayBallPrior
from tests.resuming import resumes_bit_exactly
from tests.test_scene_splats import SPLATS, splat_scene

GROWING = SPLATS | {
    "steps": 9, "scene.grow_every": 2, "scene.grow_from": 0, "scene.grow_until": 0.9, "scene.grow_above": 1.2,
    "scene.reset_every": 5, "views_per_step": 2,
}  # fmt: skip


def grown(scene: SplatScene, step: int = 20, steps: int = 100) -> tuple[SplatScene, Optimiser]:
    """The scene after a growth, with an optimiser that has moments: the number of each splat's row."""
    optimiser = Optimiser(scene.groups(), (0.9, 0.99), 1e-15)
    for p in scene.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step(1.0)
    for p in scene.parameters():
        rows = torch.arange(len(p), dtype=torch.float32).reshape(-1, *[1] * (p.ndim - 1))
        optimiser.adam.state[p]["exp_avg"] = rows.expand_as(p).clone()
    scene.after_step(step, steps, optimiser)
    return scene, optimiser


def pulled(scene: SplatScene, some: list[int]) -> SplatScene:
    """The scene, of which some splats were pulled about."""
    gradient = torch.full((2, len(scene), 2), 0.1)
    gradient[:, some] = 5
    scene.growth.observe(gradient, torch.ones(2, len(scene)))
    return scene


def test_small_splats_are_cloned_and_the_picture_stays() -> None:
    scene = splat_scene(opacity=0.6, split_above=0.5)
    view = orbit_view(orbit_cameras([10.0, 100.0]), 24, "albedo")
    with torch.no_grad():
        before = scene.render(view)
    scene, optimiser = grown(pulled(scene, [3, 7]))
    assert len(scene) == 202 and all(len(p) == 202 for p in scene.parts().values())
    assert torch.equal(scene.centres[-2:], scene.centres[[3, 7]])
    with torch.no_grad():
        after = scene.render(view)
    assert (before.colour - after.colour).abs().max() < 0.05
    assert (before.opacity - after.opacity).abs().mean() < 1e-3
    assert 1 - (1 - torch.sigmoid(scene.logits[3]).item()) ** 2 == pytest.approx(0.6, abs=1e-5)
    for name in PARTS:
        moment = optimiser.state_dict()[f"{name}.{name}.exp_avg"].reshape(202, -1)[:, 0]
        torch.testing.assert_close(moment, torch.cat([torch.arange(200.0), torch.zeros(2)]))
        assert optimiser.state_dict()[f"{name}.{name}.step"] == 1
    assert scene.growth.seen.sum() == 0


def test_large_splats_are_split_inside_themselves() -> None:
    scene = splat_scene(opacity=0.6, split_above=0.01)
    with torch.no_grad():
        scene.log_scales[5] = torch.tensor([0.02, 0.2, 0.02]).log()
    old = {name: p.detach().clone() for name, p in scene.parts().items()}
    scene, optimiser = grown(pulled(scene, [5]))
    assert len(scene) == 201
    torch.testing.assert_close(scene.log_scales[-2:], old["log_scales"][[5, 5]] - math.log(1.6))
    away = (scene.centres[-2:] - old["centres"][5]) / torch.tensor([0.02, 0.2, 0.02])
    assert away.abs().max() < 4 and away.abs().min() > 0
    kept = [k for k in range(200) if k != 5]
    assert torch.equal(scene.centres[:-2], old["centres"][kept])
    assert optimiser.state_dict()["logits.logits.exp_avg"].tolist() == [*kept, 0, 0]


def test_faint_huge_and_far_splats_are_pruned_but_never_all() -> None:
    scene = splat_scene(opacity=0.5)
    with torch.no_grad():
        scene.logits[0], scene.log_scales[1, 2], scene.centres[2, 0] = -6.0, math.log(0.5), 1.5
    keep = scene.centres.detach()[3:].clone()
    scene, _ = grown(scene, step=80)  # growth is over by then, pruning is not
    assert torch.equal(scene.centres, keep)
    with torch.no_grad():
        scene.logits.fill_(-9.0)
        scene.logits[8] = -8.0
    scene, _ = grown(scene, step=80)
    assert len(scene) == 1 and scene.logits.item() == -8.0


def test_growth_keeps_to_its_bounds() -> None:
    everyone = list(range(100))
    assert len(grown(pulled(splat_scene(most=230, grow_above=1.5), everyone))[0]) == 230
    assert (
        len(grown(pulled(splat_scene(), everyone))[0]) == 200 + 0
    )  # all alike in the half that is pulled: none above twice
    assert len(grown(pulled(splat_scene(grow_above=1.5), everyone))[0]) == 300
    for step, steps in ((20, 1000), (60, 100), (21, 100)):  # too early, too late, in between
        assert len(grown(pulled(splat_scene(grow_above=1.5), everyone), step, steps)[0]) == 200
    assert len(grown(pulled(splat_scene(grow_every=0), [1]))[0]) == 200


def test_a_reset_leaves_little_opacity_and_no_moments_of_it() -> None:
    scene = splat_scene(opacity=0.5, reset_every=7, grow_every=0)
    with torch.no_grad():
        scene.logits[:50] = -4.0
    scene, optimiser = grown(scene, step=14)
    opacity = torch.sigmoid(scene.logits)
    torch.testing.assert_close(opacity[50:], torch.full((150,), 0.1))
    torch.testing.assert_close(opacity[:50], torch.sigmoid(torch.full((50,), -4.0)))
    assert optimiser.state_dict()["logits.logits.exp_avg"].abs().sum() == 0
    assert optimiser.state_dict()["centres.centres.exp_avg"][:, 0].tolist() == list(range(200))


def test_the_pull_is_that_of_places_in_the_picture() -> None:
    """Against finite differences: a splat that is moved by a pixel to the side changes the loss by its pull."""
    scene = splat_scene(opacity=0.5, count=30)
    view = orbit_view(orbit_cameras([0.0], 0.0), 24, "albedo")
    weight = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))

    def loss() -> torch.Tensor:
        return (scene.render(view).colour * weight).sum()

    loss().backward()
    assert scene.growth.seen.tolist() == [1.0] * 30
    pixel = 2.5 * math.tan(math.radians(47 / 2)) / 12  # world units at the origin, where splat 4 is put
    with torch.no_grad():
        scene.centres[4] = 0
    scene.growth.forget(scene.centres)
    loss().backward()
    slope = []
    for axis in (0, 1):
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                scene.centres[4, axis] = sign * 0.05 * pixel
                found.append(loss().item())
                scene.centres[4] = 0
        slope.append((found[0] - found[1]) / 0.1)
    assert scene.growth.pull[4].item() == pytest.approx(math.hypot(*slope), rel=0.05)


def test_the_number_of_splats_grows_in_a_run() -> None:
    trainer = Trainer(resolve("balanced", GROWING, "x"), GrayBallPrior())
    counts = [len(trainer.scene.centres) for _ in trainer.steps() if isinstance(trainer.scene, SplatScene)]
    assert counts[0] == 60 and len(set(counts)) >= 4 and max(counts) > 70


def test_resume_in_the_middle_of_growth_is_bit_exact() -> None:
    resumes_bit_exactly(resolve("balanced", GROWING, "x"), GrayBallPrior, 9, (1, 2, 3, 6, 8))


class Killed(BaseException):
    """Ends a run as a signal does: with no chance to finish."""


@pytest.mark.parametrize("at", [3, 6])
def test_a_killed_run_ends_as_one_that_was_not(at: int, tmp_path: Path) -> None:
    def kill(progress: Any) -> None:
        if progress.step == at:
            raise Killed

    config = resolve("balanced", GROWING, "x")
    generate(config=config.model_copy(deep=True), out=tmp_path / "whole", prior=GrayBallPrior())
    with pytest.raises(Killed):
        generate(config=config.model_copy(deep=True), out=tmp_path / "killed", prior=GrayBallPrior(), callbacks=[kill])
    assert not (tmp_path / "killed" / "asset.glb").exists()
    generate(resume=tmp_path / "killed", prior=GrayBallPrior())
    one, other = (Run.open(tmp_path / name).load_checkpoint()[0] for name in ("whole", "killed"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert (tmp_path / "killed" / "asset.glb").exists()


def test_two_particles_grow_apart() -> None:
    given = GROWING | {"scene.particles": 2, "distillation.kind": "vsd"}
    trainer = Trainer(resolve("balanced", given, "x"), GrayBallPrior())
    for _ in trainer.steps():
        pass
    counts = {k: len(v) for k, v in trainer.scene.state_dict().items() if k.endswith("centres")}
    assert len(counts) == 2 and all(count != 60 for count in counts.values())
    first = trainer.scene.each[0]  # type: ignore[attr-defined]
    assert shown_of(trainer.scene) is first and shown_of(first) is first
    assert trainer.scene.as_volume() is first


def test_constants_are_the_papers() -> None:
    assert (growth.CHILDREN, growth.SHRINK) == (2, 1.6)
    assert "scene.samples" in SMALL and "scene.samples" not in SPLATS
