"""The baselines against closed forms and finite differences: a CLIP's loss, plain sampling, and what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamfusion import clip as clips
from dreamfusion import generate
from dreamfusion.clip import guide
from dreamfusion.clip.guide import Guide
from dreamfusion.distillation.ancestral import Ancestral
from dreamfusion.distillation.rule_settings import AncestralSettings, ClipSettings
from dreamfusion.distillation.rules import GUIDED, make_rule
from dreamfusion.errors import UserError
from dreamfusion.export.pictures import render_view
from dreamfusion.loading import load_prior
from dreamfusion.prior_report import describe_prior
from dreamfusion.priors.mixture import Mixture
from dreamfusion.priors.prior import Prior, Scorer
from dreamfusion.priors.question import Question, Words
from dreamfusion.priors.sampler import ddim
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL, GrayBallPrior, PixelPrior, ask, direction
from tests.resuming import resumes_bit_exactly


class ColourClip(clips.Clip):
    """Sees a curved function of three masked means of a picture; words are the directions of red, green and blue."""

    id, hash, role, size, device = "colours", "c" * 64, "guide", 12, torch.device("cpu")

    def pictures(self, x: Tensor) -> Tensor:
        mask = torch.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype)
        return torch.nn.functional.normalize((x * mask).mean((2, 3)).square() + 0.1, dim=-1)

    def captions(self, texts: list[str]) -> Tensor:
        words = torch.tensor([[w in text for w in ("red", "green", "blue")] for text in texts]).float()
        return torch.nn.functional.normalize(words + 1e-3, dim=-1)


def noise_of(prior: Prior, count: int) -> Tensor:
    return torch.randn(prior.noise_shape(count), generator=torch.Generator().manual_seed(1))


def about(prior: Prior | Scorer, count: int, words: str = "a red ball") -> Question:
    return ask(prior.embed([words] * count))


def test_the_clip_rule_is_the_finite_difference_of_the_mean_similarity() -> None:
    prior = Guide(ColourClip())
    picture = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    found = direction(picture, prior, about(prior, 2), torch.full((2,), 0.5), torch.zeros(2, 0), ClipSettings())

    def loss(x: Tensor) -> float:
        seen = prior.clip.pictures(x)
        assert torch.allclose(seen.norm(dim=-1), torch.ones(2, dtype=seen.dtype))
        return -float((seen * prior.clip.captions(["a red ball"] * 2)).sum(-1).mean())

    gradient = found.gradient / 2  # what the loop puts into the picture: the mean over pictures
    for place in [(0, 0, 0, 0), (0, 1, 2, 3), (1, 2, 4, 4), (1, 0, 3, 1)]:
        step = torch.zeros_like(picture)
        step[place] = 1e-5
        expected = (loss(picture + step) - loss(picture - step)) / 2e-5
        assert float(gradient[place]) == pytest.approx(expected, rel=1e-5, abs=1e-10)
    assert float(found.figures["similarity"]) == pytest.approx(-loss(picture), abs=1e-6)


@pytest.mark.parametrize("kind", [settings.model_fields["kind"].default for settings in GUIDED])
def test_rules_that_want_noise_refuse_a_clip(kind: str) -> None:
    with pytest.raises(UserError, match="needs distillation"):
        Trainer(resolve("fast", {"distillation.kind": kind}, "a red ball"), Guide(ColourClip()))


def test_the_clip_rule_refuses_a_diffusion_prior_and_a_mixture() -> None:
    config = resolve("fast", {"distillation.kind": "clip"}, "a red ball")
    for prior in (GrayBallPrior(), Mixture([(0.5, GrayBallPrior()), (0.5, GrayBallPrior())])):
        with pytest.raises(UserError, match="needs a prior that scores pictures"):
            Trainer(config, prior)


def test_a_guide_predicts_no_noise_and_mixes_with_nothing(loaded: list[tuple[str, ...]]) -> None:
    assert not isinstance(load_prior("guide"), Prior)
    for id in ("0.5*guide + 0.5*guide:x", "0.5*bundled + 0.5*guide"):
        with pytest.raises(UserError, match="predicts no noise"):
            load_prior(id)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """(name, device) of each CLIP that was asked for; all are the same."""
    asked: list[tuple[str, ...]] = []

    def load_guide(name: str = "its own", device: object = "cpu") -> ColourClip:
        asked.append((name, str(device)))
        return ColourClip()

    monkeypatch.setattr(guide, "load_guide", load_guide)
    return asked


def test_guides_are_loaded_by_name(loaded: list[tuple[str, ...]]) -> None:
    assert load_prior("guide").id == "guide" and load_prior("guide:hf:a/b").id == "guide:hf:a/b"
    assert loaded == [("its own", "cpu"), ("hf:a/b", "cpu")]
    assert describe_prior("guide")["sha256"] == "c" * 64


class Normal(PixelPrior):
    """Pictures normal around one colour with a spread: its best noise prediction has a closed form."""

    resolution = 4
    calls = 0

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        self.calls += 1
        alpha, sigma = (x.reshape(-1, 1, 1, 1) for x in self.alpha_sigma(t))
        return (sigma * (z_t - alpha * 0.3) / (alpha**2 * 0.2**2 + sigma**2),) * len(about)


def test_the_sampler_turns_noise_into_the_priors_own_pictures() -> None:
    """The flow of a normal distribution is linear: noise e ends at mean + spread e."""
    prior = Normal()
    noise, question = noise_of(prior, 3), about(prior, 3)

    def predict(z: Tensor, t: Tensor) -> Tensor:
        return prior.predict_noise(z, t, question, [question.words])[0]

    drawn = ddim(predict, prior.alpha_sigma, noise, 400)
    torch.testing.assert_close(drawn, 0.3 + 0.2 * noise, rtol=0.02, atol=0.01)
    bounded = ddim(predict, prior.alpha_sigma, noise, 50, limit=0.35)
    assert bounded.abs().max() <= 0.35 + 1e-6


def test_the_ancestral_gradient_is_picture_minus_sample() -> None:
    prior, settings = GrayBallPrior(), AncestralSettings(guidance_scale=0.0, sample_steps=3, threshold=0)
    picture = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = direction(picture, prior, about(prior, 2), torch.full((2,), 0.5), noise_of(prior, 2), settings)
    sample = prior.decode(prior.clean)  # it knows one picture, so that is what it draws
    # 1/2 |2 x - 1 - z|^2 has the gradient 4 (x - sample) where z = 2 sample - 1; a mean over 144 pixels.
    torch.testing.assert_close(144 * found.gradient, 4 * (picture - sample), rtol=1e-4, atol=1e-4)


def test_repeated_views_are_drawn_once_and_the_same() -> None:
    """The rule remembers by the noise, which comes again with the cameras and words it was drawn with."""
    prior, plain = Normal(), AncestralSettings(sample_steps=5)
    question, t, picture, noise = about(prior, 2), torch.full((2,), 0.5), torch.rand(2, 3, 4, 4), noise_of(prior, 2)
    rule = make_rule(plain.model_copy(update={"repeat_views": 2}), prior)
    first = rule.direction(picture, question, t, noise)
    again = rule.direction(picture, question, t, noise)
    assert prior.calls == 5 and torch.equal(first.gradient, again.gradient)
    forgetful = make_rule(plain, prior)
    for k in (1, 2):
        forgetful.direction(picture, question, t, noise)
        assert prior.calls == 5 + 5 * k  # nothing is remembered that does not come again
    other = rule.direction(picture, question, t, noise + 1)
    assert prior.calls == 20 and not torch.equal(first.gradient, other.gradient)
    make_rule(rule.settings, prior).direction(picture, question, t, noise)
    assert prior.calls == 25  # another run's rule has drawn nothing
    rule.direction(picture, question, t, noise + 2)
    rule.direction(picture, question, t, noise + 1)
    assert prior.calls == 30  # as many as come again are kept
    assert torch.equal(rule.direction(picture, question, t, noise).gradient, first.gradient) and prior.calls == 35


def test_views_come_again_after_so_many_steps() -> None:
    asked = 0

    def count() -> None:
        nonlocal asked
        asked += 1

    prior = GrayBallPrior(count)
    settings = SMALL | {
        "distillation.kind": "ancestral",
        "distillation.sample_steps": 2,
        "distillation.repeat_views": 2,
    }
    trainer = Trainer(resolve("fast", settings, "a ball"), prior)
    losses = [trainer.step()["residual_norm"] for _ in range(6)]
    assert asked == 2 * 2  # steps 3 to 6 show what steps 1 and 2 showed
    assert losses[4] < losses[0] and losses[5] < losses[1]


class Two(Normal):
    """Pictures of one colour if it is asked about words, and of another if it is not."""

    resolution = 12

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        means = (0.0 if words is None else 0.2 for words in about)
        return tuple(self.exact_noise(z_t, t, torch.tensor(mean)) for mean in means)


def test_repeated_views_of_a_guidance_that_grows_are_in_the_checkpoint() -> None:
    """Drawn again they would be others: by the flow of ``Two`` with the guidance w they are (1 + w) 0.2."""
    asked = {"kind": "ancestral", "sample_steps": 4, "threshold": 0, "repeat_views": 2, "guidance_scale": "0:0,1:4"}
    settings = SMALL | {f"distillation.{name}": value for name, value in asked.items()}
    config = resolve("fast", settings | {"shading.albedo_until": 0.6}, "a ball")
    resumes_bit_exactly(config, Two, 6, (1, 3, 5))
    trainer = Trainer(config, Two())
    trainer.step()
    ((name, first),) = [(k, x) for k, x in trainer.state()[0].items() if k.startswith("rule.")]
    torch.testing.assert_close(first, torch.full_like(first, 0.2), rtol=1e-3, atol=1e-3)
    for _ in range(2):
        trainer.step()
    assert trainer.state()[0][name] is first  # the third step shows what the first did


def test_what_is_remembered_of_repeated_views() -> None:
    """Each shading and camera has a sample of its own, and so has each guidance; the oldest goes first, also after a resume."""
    prior, noise = Two(), noise_of(Two(), 1)
    rule = Ancestral(prior, AncestralSettings(guidance_scale=1.0, sample_steps=4, threshold=0, repeat_views=3))
    lit = about(prior, 1)
    clay = replace(lit, view=replace(lit.view, shading="textureless"))
    above = ask(prior.embed(["a red ball"]), [[0.0, 60.0, 2.5]])
    for question in (lit, clay, above, lit, clay, above):
        rule.draw_once(question, noise)
    assert len(rule.drawn) == 3
    taken_up = Ancestral(prior, rule.settings.model_copy(update={"guidance_scale": 2.0}))
    taken_up.load_state_dict(dict(sorted(rule.state_dict().items(), reverse=True)))
    assert list(taken_up.drawn) == list(rule.drawn)
    drawn = taken_up.draw_once(lit, noise)
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.6), rtol=1e-3, atol=1e-3)  # (1 + 2) 0.2 - 2 * 0
    assert list(taken_up.drawn)[:2] == list(rule.drawn)[1:]


def test_draw_answers_to_guidance() -> None:
    prior = Two()
    rule = Ancestral(prior, AncestralSettings(guidance_scale=2.0, sample_steps=4, threshold=0))
    drawn = rule.draw(about(prior, 1), noise_of(prior, 1))
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.6), rtol=1e-3, atol=1e-3)  # (1 + 2) 0.2 - 2 * 0


def test_dream_fields_runs_from_prompt_to_file_and_climbs(tmp_path: Path) -> None:
    small = SMALL | {"steps": 45, "views_per_step": 2, "export.level": 1.0}
    small |= {"regularizers.transmittance_target": [[0, 0.3], [1, 0.5]]}
    seen: list[dict[str, float]] = []
    prior = Guide(ColourClip())
    asset = generate(
        "a red ball",
        "dream-fields",
        out=tmp_path / "run",
        prior=prior,
        callbacks=[lambda p: seen.append(p.metrics)],
        **small,
    )
    assert asset.geometry_report()["triangles"] > 0 and (tmp_path / "run" / "asset.glb").is_file()
    config = resolve("dream-fields", small, "a red ball")
    new, (old, _) = Trainer(config, prior).scene, load_scene(Run.open(tmp_path / "run"))
    view = orbit_view(orbit_cameras([0.0, 120.0, 240.0], 15.0, 2.5), 12)
    before, after = (prior.similarity(render_view(scene, view, "albedo"), about(prior, 3)) for scene in (new, old))
    assert (after > before + 0.02).all()
    assert all(-0.5 <= m["regularizer_transmittance"] < 0 for m in seen)
