"""Score distillation against closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from dreamfusion.distillation.rule_settings import SdsSettings
from dreamfusion.distillation.sds import rescale_guidance, threshold_clean, weight
from dreamfusion.errors import UserError
from dreamfusion.priors.prior import broadcast, clean_from_noise, cosine_schedule, guide
from dreamfusion.priors.question import Question, Words
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from tests.fakes import SMALL, PixelPrior, ask, direction


class GaussianPrior(PixelPrior):
    """Pictures are normal with known means: its best noise prediction has a closed form.

    With z ~ N(m, s^2): E[e | z_t] = sigma (z_t - alpha m) / (alpha^2 s^2 + sigma^2).
    """

    id, resolution = "gaussian", 8

    def __init__(self, mean: Tensor, spread: float):
        self.mean, self.spread = mean, spread
        self.scale = nn.Parameter(torch.ones(()))  # a trained weight that must never see a gradient
        self.calls = 0

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        assert not torch.is_grad_enabled()
        self.calls += 1
        alpha, sigma = (broadcast(x, z_t) for x in self.alpha_sigma(t))
        spread = alpha**2 * self.spread**2 + sigma**2
        means = (0 if words is None else self.mean for words in about)
        return tuple(self.scale * sigma * (z_t - alpha * mean) / spread for mean in means)


def question(prior: PixelPrior, count: int) -> Question:
    return ask(prior.embed(["a ball"] * count))


def test_direction_is_the_closed_form_and_leaves_the_prior_alone() -> None:
    g = torch.Generator().manual_seed(0)
    mean = torch.rand(1, 3, 8, 8, generator=g) * 2 - 1
    prior = GaussianPrior(mean, 0.3)
    picture, noise = torch.rand(4, 3, 8, 8, generator=g, requires_grad=True), torch.randn(4, 3, 8, 8, generator=g)
    t = torch.tensor([0.1, 0.4, 0.7, 0.95])
    settings = SdsSettings(guidance_scale=2.0, weight="sigma2", threshold=0)
    got = direction(picture, prior, question(prior, 4), t, noise, settings)
    alpha, sigma = (x.double() for x in cosine_schedule(t.double()))
    for i in range(4):
        a, s = alpha[i], sigma[i]
        z_t = a * (2 * picture[i].detach().double() - 1) + s * noise[i].double()
        k = s / (a**2 * 0.09 + s**2)
        predicted = 3 * k * (z_t - a * mean[0].double()) - 2 * k * z_t
        expected = 2 * s**2 * (predicted - noise[i].double())  # the 2 is d z / d picture
        # A mean over the 64 pixels.
        torch.testing.assert_close(64 * got.gradient[i].double(), expected, rtol=2e-4, atol=2e-5)
    assert prior.calls == 1
    assert prior.scale.grad is None and picture.grad is None and not got.gradient.requires_grad


def test_following_the_direction_arrives_at_the_mean() -> None:
    g = torch.Generator().manual_seed(1)
    mean = torch.rand(1, 3, 8, 8, generator=g) * 1.6 - 0.8
    prior = GaussianPrior(mean, 0.05)
    picture, settings = torch.full((1, 3, 8, 8), 0.5), SdsSettings(guidance_scale=0.0, threshold=0)
    for _ in range(800):
        t = 0.02 + 0.96 * torch.rand(1, generator=g)
        noise = torch.randn(1, 3, 8, 8, generator=g)
        found = direction(picture, prior, question(prior, 1), t, noise, settings)
        picture = picture - 0.02 * 64 * found.gradient  # 64 pixels
    assert (picture * 2 - 1 - mean).abs().mean() < 0.05


def test_guidance_sign_and_offset() -> None:
    yes, no = torch.tensor([1.0]), torch.tensor([0.25])
    assert guide(yes, no, 0.0).item() == 1.0
    assert guide(yes, no, 7.5).item() == pytest.approx(0.25 + 8.5 * 0.75)


def test_clean_picture_inverts_the_noising() -> None:
    g = torch.Generator().manual_seed(2)
    z, e, t = torch.randn(3, 3, 4, 4, generator=g), torch.randn(3, 3, 4, 4, generator=g), torch.tensor([0.1, 0.5, 0.9])
    alpha, sigma = cosine_schedule(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3))
    z_t = broadcast(alpha, z) * z + broadcast(sigma, z) * e
    torch.testing.assert_close(clean_from_noise(z_t, e, alpha, sigma), z, rtol=1e-4, atol=1e-5)


def test_threshold_bounds_and_leaves_tame_pictures_alone() -> None:
    tame = torch.linspace(-0.9, 0.9, 48).reshape(1, 3, 4, 4)
    torch.testing.assert_close(threshold_clean(tame, 0.99), tame)
    wild = threshold_clean(tame * 10, 0.9)
    assert wild.abs().max() <= 1 and wild.std() < tame.std() * 10


def test_rescaling_restores_the_conditional_spread() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(rescale_guidance(5 * x, x, 1.0), x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rescale_guidance(5 * x, x, 0.0), 5 * x)


@pytest.mark.parametrize(("kind", "expected"), [("sigma2", 0.64), ("uniform", 1.0), ("alpha_sigma", 0.48)])
def test_weights(kind: str, expected: float) -> None:
    assert weight(kind, torch.tensor(0.6), torch.tensor(0.8)).item() == pytest.approx(expected)


def test_unknown_rule_names_the_known() -> None:
    with pytest.raises(UserError, match=r"distillation\.kind = 'sdz' is not allowed: it must be one of sds, recon"):
        resolve("fast", {"distillation.kind": "sdz"}, "a ball")


@pytest.mark.parametrize(("background", "told"), [("random", True), ("white", True), ("augmented", False)])
def test_the_prior_is_told_the_plain_colour_that_stands_behind(background: str, told: bool) -> None:
    """A scene that has been emptied shows nothing else."""
    asked: list[tuple[Tensor, Tensor | None]] = []

    class Listener(PixelPrior):
        def encode(self, picture: Tensor) -> Tensor:
            self.picture = picture.detach()
            return super().encode(picture)

        def predict_noise(
            self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
        ) -> tuple[Tensor, ...]:
            asked.append((self.picture, question.view.plain_background))
            return (z_t,) * len(about)

    settings = SMALL | {"views_per_step": 3, "view.background": background, "scene.density_bias": -50.0}
    trainer = Trainer(resolve("fast", settings, "a ball"), Listener())
    trainer.step()
    ((picture, behind),) = asked
    assert (behind is not None) == told
    if behind is not None:
        torch.testing.assert_close(picture, behind[:, :, None, None].expand_as(picture), rtol=0, atol=1e-3)


def test_without_guidance_the_prior_is_asked_alone() -> None:
    asked: list[list[Words | None]] = []

    class Listening(GaussianPrior):
        def predict_noise(
            self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
        ) -> tuple[Tensor, ...]:
            asked.append(list(about))
            return super().predict_noise(z_t, t, question, about)

    picture, noise = torch.rand(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    prior = Listening(torch.zeros(1), 0.3)
    of_one = question(prior, 1)
    for scale in (0.0, 0.5):
        direction(picture, prior, of_one, torch.tensor([0.5]), noise, SdsSettings(guidance_scale=scale))
    assert [[words is of_one.words for words in about] for about in asked] == [[True], [True, False]]
    assert asked[1][1] is None
