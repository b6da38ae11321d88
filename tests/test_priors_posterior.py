"""The posterior over what is not told, against sums of Gaussians in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dreamfusion.priors.bundled_prior import sides_of
from dreamfusion.priors.hypotheses import Sphere, peak, resized
from dreamfusion.priors.inference import side_prior
from dreamfusion.priors.posterior import (
    Found,
    Pictures,
    answer,
    log_likelihoods,
    search,
    squared_distances,
    squared_residuals,
    variance,
)
from dreamfusion.priors.prior import broadcast, cosine_schedule

COUNT, SIDE, SPREAD = 40, 16, 0.06


def vocabulary(count: int = COUNT, seed: int = 0) -> Tensor:
    """Smooth colours over gray and coverages (count, 4, 16, 16), as a layout draws them."""
    g = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, 4, 4, 4, generator=g)
    smooth = torch.nn.functional.interpolate(rough, (SIDE, SIDE), mode="bicubic")
    return torch.cat([(2 * smooth[:, :3] - 1) * smooth[:, 3:], smooth[:, 3:]], 1)


def exact(
    z: Tensor, t: Tensor, drawn: Tensor, background: Tensor, log_prior: Tensor, shown: Tensor
) -> tuple[Tensor, Tensor]:
    """The closed form, hypothesis by hypothesis in double precision: shares (G, K) and noise (B, 3, S, S)."""
    z, drawn, background = z.double(), drawn.double(), background.double()
    alpha, sigma = cosine_schedule(t.double())
    v = sigma**2 + alpha**2 * SPREAD**2
    groups, views, hypotheses = shown.shape
    log, clean = (
        torch.zeros(groups, hypotheses).double() + log_prior.double(),
        torch.zeros(groups, views, hypotheses, *z.shape[1:]).double(),
    )
    for g in range(groups):
        for i in range(views):
            b = g * views + i
            for k in range(hypotheses):
                picture = drawn[shown[g, i, k]]
                x = picture[:3] + (1 - picture[3:]) * background[b][:, None, None]
                away = z[b] - alpha[b] * x
                log[g, k] -= away.square().sum() / (2 * v[b])
                clean[g, i, k] = x + alpha[b] * SPREAD**2 / v[b] * away
    share = log.softmax(1)
    mean = (share[:, None, :, None, None, None] * clean).sum(2).flatten(0, 1)
    return share, (z - broadcast(alpha, z) * mean) / broadcast(sigma, z)


def question(views: int, hypotheses: int, t: Tensor, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy pictures of a true hypothesis, their backgrounds, a prior and what hypotheses show: z, b, log p, shown."""
    g = torch.Generator().manual_seed(seed)
    drawn, count = vocabulary(), len(t)
    groups = count // views
    shown = torch.randint(COUNT, (groups, views, hypotheses), generator=g)
    if views == 1:
        shown = torch.arange(hypotheses).expand(groups, 1, -1)
    background = 2 * torch.rand(count, 3, generator=g) - 1
    picture = drawn[shown[:, :, 3].flatten()]
    x = picture[:, :3] + (1 - picture[:, 3:]) * background[:, :, None, None]
    x = x + SPREAD * torch.randn(x.shape, generator=g)
    alpha, sigma = cosine_schedule(t)
    z = broadcast(alpha, x) * x + broadcast(sigma, x) * torch.randn(x.shape, generator=g)
    return z, background, torch.randn(groups, hypotheses, generator=g).log_softmax(1), shown


def ask(
    z: Tensor, t: Tensor, drawn: Tensor, background: Tensor, log_prior: Tensor, shown: Tensor, pooled: int = 8
) -> tuple[Found, Tensor]:
    alpha, sigma = cosine_schedule(t)
    pictures = Pictures(drawn)
    v = variance(alpha, sigma, SPREAD)
    found = search(z, alpha, v, pictures, pictures.pooled(pooled), background, log_prior, shown)
    return found, answer(z, alpha, sigma, SPREAD, found, background)


@pytest.mark.parametrize("t", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.999])
@pytest.mark.parametrize("views", [1, 4])
def test_the_answer_is_the_closed_form(t: float, views: int) -> None:
    times = torch.full((4,), t) if views == 1 else torch.linspace(t / 2, t, 4).clamp_min(0.02)
    z, background, log_prior, shown = question(views, COUNT if views == 1 else 12, times)
    found, noise = ask(z, times, vocabulary(), background, log_prior, shown)
    share, expected = exact(z, times, vocabulary(), background, log_prior, shown)
    torch.testing.assert_close(found.log_share.exp().double(), share, rtol=0, atol=2e-5)
    sigma = broadcast(cosine_schedule(times)[1], z)
    torch.testing.assert_close((sigma * noise).double(), sigma * expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.6, 0.8, 0.95])
def test_the_pooled_search_finds_the_modes_of_the_full_one(t: float) -> None:
    times = torch.full((16,), t)
    z, background, log_prior, shown = question(1, COUNT, times, seed=5)
    pooled, _ = ask(z, times, vocabulary(), background, log_prior, shown, pooled=4)
    full, _ = ask(z, times, vocabulary(), background, log_prior, shown, pooled=SIDE)
    assert torch.equal(pooled.log_share.argmax(1), full.log_share.argmax(1))
    torch.testing.assert_close(pooled.log_share.exp(), full.log_share.exp(), rtol=0, atol=1e-4)
    if t < 0.5:
        assert (pooled.log_share.argmax(1) == 3).all() and pooled.log_share.isinf().any()


@pytest.mark.parametrize("views", [1, 2])
def test_noise_is_the_gradient_of_log_p(views: int) -> None:
    """-noise / sigma = grad log p(z), against central differences in random directions."""
    times = torch.full((4,), 0.85).double()
    z, background, log_prior, shown = (
        x.double() if x.is_floating_point() else x for x in question(views, 12, times.float())
    )
    alpha, sigma = cosine_schedule(times)
    v, drawn = variance(alpha, sigma, SPREAD), vocabulary().double()

    def log_p(z: Tensor) -> Tensor:
        square = squared_distances(z, alpha, Pictures(drawn), background).unflatten(0, shown.shape[:2])
        return (
            (log_prior - (square.gather(2, shown) / (2 * v.unflatten(0, (-1, views))[:, :, None])).sum(1))
            .logsumexp(1)
            .sum()
        )

    _, noise = ask(z, times, drawn, background, log_prior, shown)
    g = torch.Generator().manual_seed(2)
    for _ in range(3):
        along = torch.randn(z.shape, generator=g).double()
        slope = (log_p(z + 1e-4 * along) - log_p(z - 1e-4 * along)) / 2e-4
        assert float(slope) == pytest.approx(float(-(noise / broadcast(sigma, z) * along).sum()), rel=1e-5)


def test_distances_hold_before_any_background() -> None:
    z, background, _, _ = question(1, COUNT, torch.full((6,), 0.4))
    alpha, _ = cosine_schedule(torch.full((6,), 0.4))
    drawn = vocabulary()
    quick = squared_distances(z, alpha, Pictures(drawn), background)
    torch.testing.assert_close(quick, squared_residuals(z, alpha, drawn[None], background), rtol=1e-4, atol=1e-3)
    v = torch.full((6,), 0.1)
    few = log_likelihoods(z, alpha, v, Pictures(drawn), background)
    torch.testing.assert_close(
        few, log_likelihoods(z, alpha, v, Pictures(drawn), background, few=0), rtol=1e-4, atol=1e-2
    )


def test_a_hypothesis_drawn_for_the_view_counts_as_one_more() -> None:
    times = torch.full((4,), 0.6)
    z, background, log_prior, shown = question(1, COUNT, times)
    alpha, sigma = cosine_schedule(times)
    drawn, v = vocabulary(), variance(alpha, sigma, SPREAD)
    less, last = Pictures(drawn[:-1]), drawn[-1:].expand(4, 1, -1, -1, -1)
    found = search(
        z, alpha, v, less, less.pooled(8), background, log_prior[:, :-1], shown[:, :, :-1], last, log_prior[:, -1:]
    )  # fmt: skip
    whole, _ = ask(z, times, drawn, background, log_prior, shown)
    torch.testing.assert_close(found.mean, whole.mean, rtol=0, atol=1e-5)


def ring(azimuths: int = 36) -> Sphere:
    count = 3 * azimuths * 3
    return Sphere(
        Pictures(torch.zeros(count, 4, 2, 2)), torch.tensor([0.0, 0.3, 0.6]), azimuths, torch.tensor([2.4, 2.5, 2.6])
    )


def test_a_sphere_finds_its_own_cameras() -> None:
    sphere = ring()
    assert torch.equal(sphere.nearest(sphere.cameras), torch.arange(len(sphere.pictures)))
    turned = sphere.cameras + torch.tensor([2 * math.pi, 0.0, 0.0])
    assert torch.equal(sphere.nearest(turned), torch.arange(len(sphere.pictures)))


def test_cameras_are_refined_between_the_grids() -> None:
    """Of log-likelihoods that are parabolas of the camera the peak is found exactly; ends stay."""
    sphere = ring()
    wanted = torch.tensor([[1.0, 0.36, 2.47], [0.02, 0.25, 2.53]])
    away = sphere.cameras[None] - wanted[:, None]
    away[..., 0] = (away[..., 0] + math.pi) % (2 * math.pi) - math.pi
    camera, best = sphere.refined(-(away.square() * torch.tensor([30.0, 40.0, 500.0])).sum(-1))
    torch.testing.assert_close(camera, wanted, rtol=0, atol=1e-4)
    assert torch.equal(best, sphere.nearest(wanted))
    assert peak(torch.tensor([float("-inf")]), torch.tensor([0.0]), torch.tensor([-1.0])).item() == 0


def test_words_choose_the_side() -> None:
    captions = [
        "a front view of a cat",
        "A back view of a cat",
        "an overhead view of a cat",
        "a cat with a view of a side",
    ]
    sides = sides_of(captions)
    assert sides.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    sphere = ring()
    prior = side_prior(sphere, sides[[0, 1, 3]]).exp()
    turn = ((sphere.cameras[:, 0] + math.pi) % (2 * math.pi) - math.pi).abs().rad2deg()
    assert torch.equal(prior[0] > 0, turn <= 45) and torch.equal(prior[1] > 0, turn >= 135) and (prior[2] > 0).all()
    torch.testing.assert_close(prior.sum(1), torch.ones(3))


def test_resized_pictures_grow_about_their_middle() -> None:
    drawn = torch.zeros(1, 4, 32, 32)
    drawn[:, :, 8:24, 8:24] = 1
    assert resized(drawn, 1.0).sub(drawn).abs().max() < 1e-4
    assert float(resized(drawn, 1.25).sum() / drawn.sum()) == pytest.approx(1.25**2, rel=0.02)
