"""Every rule against its closed form: on normal pictures the expected direction is known for each t and is compared with the
rule's average over the noise.

Notation of the docstrings: the words' pictures are N(m, s^2), those of nothing N(m0, s0^2), of the negative words N(mn, sn^2);
k = sigma / (alpha^2 s^2 + sigma^2), so that e(z_t) = k (z_t - alpha m), and over the noise E e(z_t) = k alpha (z - m). The
weight is 1. ``expected`` is E[direction | t] by z; the rule's draws minus it have mean zero, in units of their own standard error.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamfusion.distillation.clipping import clip_pixels, clip_score
from dreamfusion.distillation.inversion import invert
from dreamfusion.distillation.rule import Direction
from dreamfusion.distillation.rule_settings import RuleSettings, SdsSettings
from dreamfusion.distillation.rules import GUIDED, make_rule
from dreamfusion.distillation.sds import SDS, rescale_guidance
from dreamfusion.distillation.times import draw_times, dreamtime, uniform_of
from dreamfusion.errors import UserError
from dreamfusion.priors.prior import cosine_schedule
from dreamfusion.priors.question import Question
from dreamfusion.settings.building import build
from tests.fakes import ask
from tests.oracles import Exact, FlowOracle, Normals, Oracle, agrees, parts

SHAPE = (3, 2, 2)
COUNT = 6000
G = torch.Generator().manual_seed(0)
Z, M, M0, MN = (0.4 * torch.rand(1, *SHAPE, generator=G) - 0.2 for _ in range(4))
S, S0, SN = 0.5, 0.6, 0.4
KNOWN = {"": Normals(M0, S0), "wanted": Normals(M, S), "negative": Normals(MN, SN)}


def rule_of(kind: str, prior: Oracle | None = None, **settings: Any) -> SDS:
    given = {"weight": "uniform", "threshold": 0, "negative_prompt": "negative", **settings}
    config = build({"distillation.kind": kind} | {f"distillation.{k}": v for k, v in given.items()})
    rule = make_rule(config.distillation, prior or Oracle(KNOWN))
    assert isinstance(rule, SDS)
    return rule


def question_of(rule: SDS, count: int = COUNT) -> Question:
    return ask(rule.prior.embed(["wanted"] * count), nothing=rule.prior.embed(["negative"] * count))


def draw(
    rule: SDS, low: float = 0.02, high: float = 0.98, seed: int = 1, z: Tensor = Z
) -> tuple[Tensor, Tensor, Tensor]:
    """The rule's directions by z (COUNT, 3, 2, 2), the levels and the noise of each."""
    g = torch.Generator().manual_seed(seed)
    t = low + (high - low) * torch.rand(COUNT, generator=g)
    noise = torch.randn(COUNT, *SHAPE, generator=g)
    picture = ((z + 1) / 2).expand(COUNT, *SHAPE)
    found = rule.direction(picture, question_of(rule), t, noise).gradient
    return found * 4 / 2, t, noise  # a mean over 4 pixels, and d z / d picture = 2


def pull(t: Tensor, mean: Tensor, s: float, z: Tensor = Z) -> Tensor:
    """E e(z_t) = k alpha (z - m)."""
    alpha, _, k = parts(t, s)
    return k * alpha * (z - mean)


def test_sds() -> None:
    """E[(1 + w) e(y) - w e(0) - e] = (1 + w) k alpha (z - m) - w k0 alpha (z - mn): negative words replace nothing."""
    found, t, _ = draw(rule_of("sds", guidance_scale=2.0))
    agrees(found, 3 * pull(t, M, S) - 2 * pull(t, MN, SN))


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_csd_and_its_negative_annealing(progress: float) -> None:
    """w (k alpha (z - m) - (1 - n) k0 alpha (z - m0) - n kn alpha (z - mn)), with n from 0 to 1 at half time."""
    rule = rule_of("csd", guidance_scale=2.0, negative_share=[[0, 0], [0.5, 1]]).at(progress)
    found, t, _ = draw(rule)
    n = min(1.0, 2 * progress)
    agrees(found, 2 * (pull(t, M, S) - (1 - n) * pull(t, M0, S0) - n * pull(t, MN, SN)))
    assert rule.prior.asked == (3 if 0 < n < 1 else 2)  # type: ignore[attr-defined]


def test_nfsd() -> None:
    """d + w (e(y) - e(0)), where d = k0 alpha (z - m0) below t = 0.2, and k0 alpha (z - m0) - kn alpha (z - mn) above."""
    found, t, _ = draw(rule_of("nfsd", guidance_scale=1.5))
    nothing, low = pull(t, M0, S0), (t < 0.2)[:, None, None, None]
    domain = torch.where(low, nothing, nothing - pull(t, MN, SN))
    agrees(found, domain + 1.5 * (pull(t, M, S) - nothing))


def test_ssd_where_there_is_much_noise() -> None:
    """w (e(y) - e(n)) above t = 0.3, as in CSD."""
    found, t, _ = draw(rule_of("ssd", guidance_scale=2.0), low=0.31)
    agrees(found, 2 * (pull(t, M, S) - pull(t, MN, SN)))


def test_ssd_where_there_is_little_noise() -> None:
    """Let both normals have the spread s and means m, mn. Then h = w k alpha (mn - m), without noise. And e(y) = k (alpha d +
    sigma e) with d = z - m: without its component along e, k alpha P d, where P projects onto what is perpendicular to e. So
    the direction is |h| P d / |P d|. Its mean lies along d by symmetry, and the component of a unit P d / |P d| along d / |d| is
    |P d| / |d| = sin(angle of d and e). The mean of sin over directions in n dimensions is G(n/2)^2 / (G((n-1)/2) G((n+1)/2)),
    from the density sin^(n-2).
    """
    prior = Oracle(KNOWN | {"negative": Normals(MN, S)})
    found, t, _ = draw(rule_of("ssd", prior, guidance_scale=2.0), low=0.02, high=0.3)
    alpha, _, k = parts(t, S)
    n = math.prod(SHAPE)
    mean_sine = math.exp(2 * math.lgamma(n / 2) - math.lgamma((n - 1) / 2) - math.lgamma((n + 1) / 2))
    size = 2 * k * alpha * (MN - M).norm()
    agrees(found, size * mean_sine * (Z - M) / (Z - M).norm())
    sizes = found.flatten(1).norm(dim=1)
    torch.testing.assert_close(sizes, size.flatten(), rtol=1e-4, atol=1e-5)  # of each picture, not of the batch


def test_sjc_with_and_without_variance_reduction() -> None:
    """E e_hat = E (e_hat - e), as E e = 0; and with k sigma near 1 the variance of e_hat - e = k alpha d + (k sigma - 1) e is far
    less than that of e_hat."""
    spreads = []
    for reduce in (True, False):
        found, t, _ = draw(rule_of("sjc", guidance_scale=0.0, reduce_variance=reduce))
        agrees(found, pull(t, M, S)) if reduce else None
        away = found - pull(t, M, S)
        assert (away.mean(0).abs() < 4.5 * away.std(0) / COUNT**0.5).all()
        spreads.append(float(away.std()))
    assert spreads[0] < 0.7 * spreads[1]


def test_bridge() -> None:
    """w (k alpha (z - m) - kn alpha (z - mn)): the negative words are the source."""
    found, t, _ = draw(rule_of("bridge", guidance_scale=3.0))
    agrees(found, 3 * (pull(t, M, S) - pull(t, MN, SN)))


def test_dds_starts_from_what_it_saw_first() -> None:
    """The first round answers zero. Then, with the reference z' of that round and the same noise: (1 + w) (k alpha (z - m) - kn
    alpha (z' - mn)) - w k0 alpha (z - z'), whose noise has mean zero. At z = z' and y' = y it is zero for every noise."""
    rule = rule_of("dds", guidance_scale=2.0, reference_views=1)
    reference = -Z
    first, _, _ = draw(rule, z=reference)
    assert (first == 0).all()
    found, t, _ = draw(rule)
    expected = 3 * (pull(t, M, S) - pull(t, MN, SN, reference)) - 2 * (pull(t, M0, S0) - pull(t, M0, S0, reference))
    agrees(found, expected)
    same = rule_of("dds", Oracle(KNOWN | {"negative": KNOWN["wanted"]}), guidance_scale=2.0)
    draw(same)
    assert draw(same)[0].abs().max() < 1e-5
    with pytest.raises(UserError, match="negative_prompt"):
        rule_of("dds", negative_prompt="")


def test_asd() -> None:
    """E = (1 + w) k alpha (z - m) - w kn alpha (z - mn) - k' alpha' (z - m), the last at t' = t + 0.5 u (t - 0.02), the same e."""
    rule = rule_of("asd", guidance_scale=1.0, shift=0.5, t_min=0.02)
    found, t, _ = draw(rule)
    later = torch.clamp(t + 0.5 * uniform_of(t) * (t - 0.02), max=0.999)
    agrees(found, 2 * pull(t, M, S) - pull(t, MN, SN) - pull(later, M, S))


def test_consistent3d_follows_one_noise() -> None:
    """Nothing is random but t and the gap. With d = alpha (z - m) + sigma e0: e_t = k d; one DDIM step down multiplies the
    distance from alpha m by alpha_s / alpha (1 - sigma k) + sigma_s k; so e_t - e_s = (k - k_s times that) d."""
    rule = rule_of("consistent3d", guidance_scale=0.0)
    found, t, noise = draw(rule, low=0.4)
    s = (t - 0.1 - 0.2 * uniform_of(t)).clamp_min(0.02)
    (alpha, sigma, k), (alpha_s, sigma_s, k_s) = parts(t, S), parts(s, S)
    d = alpha * (Z - M) + sigma * noise[:1]
    torch.testing.assert_close(
        found, (k - k_s * (alpha_s / alpha * (1 - sigma * k) + sigma_s * k)) * d, rtol=1e-3, atol=1e-4
    )
    again = rule.state_dict()
    other = rule_of("consistent3d", guidance_scale=0.0)
    other.load_state_dict(again)
    torch.testing.assert_close(draw(other, low=0.4, seed=2)[0].mean(0), draw(rule, low=0.4, seed=2)[0].mean(0))


@pytest.mark.parametrize("steps", [1, 3])
def test_hifa(steps: int) -> None:
    """A DDIM step from t to s multiplies the distance from alpha m by alpha_s / alpha (1 - sigma k) + sigma_s k, so K steps to 0
    give z' - m = p (alpha (z - m) + sigma e), and E (z - z') = (1 - p alpha) (z - m), weighted by alpha / sigma. The picture
    is (z + 1) / 2: its term is l / 2 times the same by x, l / 4 by z."""
    found, t, _ = draw(rule_of("hifa", guidance_scale=0.0, sample_steps=steps, image_weight=0.4), low=0.3)
    p = torch.ones(COUNT, 1, 1, 1)
    for i in range(steps):
        alpha, sigma, k = parts(t * (1 - i / steps), S)
        alpha_s, sigma_s, _ = parts(t * (1 - (i + 1) / steps), S)
        p = p * (alpha_s / alpha * (1 - sigma * k) + sigma_s * k)
    alpha, sigma, _ = parts(t, S)
    # A picture is shown within [0, 1], so its spread is kept small against that; what is cut off is some thousandths.
    agrees(found, (1 + 0.1) * alpha / sigma * (1 - p * alpha) * (Z - M), sigmas=6)


def test_one_step_of_hifa_is_sds() -> None:
    hifa, sds = rule_of("hifa", guidance_scale=2.0, sample_steps=1, image_weight=0), rule_of("sds", guidance_scale=2.0)
    torch.testing.assert_close(draw(hifa)[0], draw(sds)[0], rtol=1e-3, atol=1e-4)


def flow_of(t: Tensor, mean: Tensor, s: float, z: Tensor = Z) -> Tensor:
    """The exact inversion of z for N(m, s^2): z_t - alpha m = (z - m) sqrt(alpha^2 s^2 + sigma^2) / s (the flow keeps quantiles)."""
    alpha, sigma, _ = parts(t, s)
    return alpha * mean + (z - mean) * (alpha**2 * s**2 + sigma**2).sqrt() / s


def test_inversion_is_the_flow_of_the_normal() -> None:
    rule = rule_of("sds")
    t = torch.linspace(0.1, 0.9, 9)
    question = question_of(rule, 9)
    z_t = invert(rule.prior, Z.expand(9, *SHAPE), t, 200, question)
    torch.testing.assert_close(z_t, flow_of(t, M0, S0), rtol=0, atol=3e-3)
    far = invert(rule.prior, Z.expand(9, *SHAPE), t, 2, question) - flow_of(t, M0, S0)
    assert far.abs().max() > 5e-3  # few steps are an approximation, which the method's cost is chosen against


def test_ism() -> None:
    """z_s is the flow of nothing; e0 = k0 (z_s - alpha_s m0) there; z_t is one step on with e0; e_hat = k (z_t - alpha m)."""
    found, t, _ = draw(rule_of("ism", guidance_scale=0.0, interval=0.1, inversion_stride=0.01), low=0.2)
    s = t - 0.1
    (alpha_s, sigma_s, k_s), (alpha, sigma, k) = parts(s, S0), parts(t, S)
    z_s = flow_of(s, M0, S0)
    plain = k_s * (z_s - alpha_s * M0)
    z_t = alpha * (z_s - sigma_s * plain) / alpha_s + sigma * plain
    expected = k * (z_t - alpha * M) - plain
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_sdi() -> None:
    """Let both spreads be s. Guided by v, e = k (z_t - alpha g) with g = (1 + v) m - v mn, so k' is the flow's noise
    (z_t - alpha z) / sigma for N(g, s^2). With f of fresh noise, E = e_hat(alpha z + sigma c k') - c k', c = sqrt(1 - f^2)."""
    prior = Oracle(KNOWN | {"negative": Normals(MN, S)})
    rule = rule_of("sdi", prior, guidance_scale=1.0, inversion_guidance=-2.0, inversion_steps=100, fresh_noise=0.3)
    found, t, _ = draw(rule, low=0.2)
    alpha, sigma, k = parts(t, S)
    own = (1 - 0.3**2) ** 0.5 * (flow_of(t, 3 * 0 + (-1) * M + 2 * MN, S) - alpha * Z) / sigma
    expected = k * (alpha * Z + sigma * own - alpha * (2 * M - MN)) - own
    away = (found - expected).mean(0).abs().max()
    assert away < 0.02 * expected.mean(0).abs().max() + 4.5 * float(found.std()) / COUNT**0.5


@pytest.mark.parametrize("revised", [False, True])
def test_rfds(revised: bool) -> None:
    """v_hat - (e - z) = (e_hat - e) / alpha, so E = 1/2 k (z - m), as the mean of sigmoid(N(0, 1)) is 1/2. Revised: e' = e + (e_hat
    - e) / alpha has the mean k (z - m), and E = (k (alpha + sigma k) - k) (z - m) / alpha."""
    found, t, _ = draw(rule_of("rfds", FlowOracle(KNOWN), guidance_scale=0.0, revised=revised), high=0.8)
    alpha, sigma, k = parts(t, S, flow=True)
    agrees(found, (k * (alpha + sigma * k) - k) / alpha * (Z - M) if revised else 0.5 * k * (Z - M))


def test_rfds_is_for_flows() -> None:
    with pytest.raises(UserError, match="needs a rectified flow"):
        rule_of("rfds")


def test_vsd_with_a_learner_that_has_learned() -> None:
    """Pictures of the scene ~ N(c, r^2): k alpha (z - m) - k_r alpha (z - c), which is zero where c = m and r = s: the scene's
    pictures are then the prior's, and no noise is left."""
    rule = rule_of("vsd", guidance_scale=0.0)
    found, t, _ = draw(replace(rule, learner=Exact(Normals(MN, 0.3))))
    agrees(found, pull(t, M, S) - pull(t, MN, 0.3))
    assert draw(replace(rule, learner=Exact(Normals(M, S))))[0].abs().max() < 1e-5


def test_vsd_at_its_start_is_sds_without_the_variance_of_the_noise() -> None:
    """The learner starts as e(y), and with a rate of 0 stays it: (1 + w) e(y) - w e(n) - e(y) = w (e(y) - e(n)) for each noise.
    SDS has e in its place. For a scene whose pictures are the prior's the two have the same mean, since E[e | z_t] = e(y)."""
    rule = rule_of("vsd", guidance_scale=2.0, learner_lr=0.0)
    before = draw(rule)[0]
    torch.testing.assert_close(
        before, draw(rule_of("csd", guidance_scale=2.0, negative_share=1.0))[0], rtol=1e-4, atol=1e-5
    )
    rule.learn(((Z + 1) / 2).expand(8, *SHAPE), question_of(rule, 8), torch.Generator().manual_seed(0))
    assert torch.equal(draw(rule)[0], before)
    scenes = M + S * torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(3))
    vsd, sds = draw(rule, z=scenes)[0], draw(rule_of("sds", guidance_scale=2.0), z=scenes)[0]
    away = vsd - sds
    assert (away.mean(0).abs() < 4.5 * away.std(0) / COUNT**0.5).all()
    assert vsd.std() < 0.7 * sds.std()


def test_the_learner_of_vsd_learns() -> None:
    """Its loss falls towards that of the exact learner, E |e_own - e|^2 = E (1 - k_r sigma) for pictures ~ N(c, r^2)."""
    rule = rule_of("vsd", learner_lr=5e-3, width=16)
    g = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(120):
        z = 0.5 + 0.1 * torch.randn(64, *SHAPE, generator=g)
        losses.append(float(rule.learn((z + 1) / 2, question_of(rule, 64), g)["learner_loss"]))
    first, last = sum(losses[:5]) / 5, sum(losses[-20:]) / 20
    t = torch.linspace(0.02, 0.98, 500)
    _, sigma, k = parts(t, 0.1)
    best = float((1 - k * sigma).mean())
    assert last - best < 0.4 * (first - best), (first, last, best)


@pytest.mark.parametrize("kind", [settings.model_fields["kind"].default for settings in GUIDED])
def test_the_prior_is_left_as_it_is_and_gets_no_gradient(kind: str) -> None:
    prior = (FlowOracle if kind == "rfds" else Oracle)(KNOWN)
    rule = rule_of(kind, prior)
    picture = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t, noise = torch.full((4,), 0.5), torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = rule.direction(picture, question_of(rule, 4), t, noise)
    rule.learn(picture.detach(), question_of(rule, 4), torch.Generator().manual_seed(2))
    assert not found.gradient.requires_grad and found.gradient.shape == picture.shape
    assert prior.scale.grad is None and prior.scale == 1 and picture.grad is None
    assert all(x.ndim == 0 and not x.requires_grad for x in found.figures.values())
    again = make_rule(rule.settings, prior).direction(picture, question_of(rule, 4), t, noise)
    assert torch.equal(again.gradient, found.gradient)


def test_guidance_is_a_schedule() -> None:
    rule = rule_of("sds", guidance_scale=[[0, 4], [1, 0]])
    answers = [draw(rule.at(p))[0] for p in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(answers[1], (answers[0] + answers[2]) / 2, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answers[1], draw(rule_of("sds", guidance_scale=2.0))[0])


def test_clipping_of_pixels_keeps_their_hue() -> None:
    """PGC: min(1, c / largest channel), for the gradient of the sum over the 4 pixels."""
    gradient = torch.tensor([[0.4, -0.8, 0.2], [0.04, 0.02, 0.01], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]).T.reshape(
        1, 3, 2, 2
    )
    clipped = clip_pixels(Direction(gradient / 4), 0.1)
    expected = torch.tensor([[0.05, -0.1, 0.025], [0.04, 0.02, 0.01], [0, 0, 0], [0.1, 0.1, 0.1]]).T.reshape(1, 3, 2, 2)
    torch.testing.assert_close(clipped.gradient * 4, expected)
    assert float(clipped.figures["clipped"]) == 0.5
    assert clip_pixels(Direction(gradient), 0).gradient is gradient


def test_clipping_of_scores_is_by_element_and_grows() -> None:
    assert clip_score(torch.tensor([-3.0, 0.2, 1.0]), 0.5).tolist() == [-0.5, pytest.approx(0.2), 0.5]
    rule = rule_of("sds", clip_score=[[0, 0.1], [1, 0.4]])
    assert [float(draw(rule.at(p))[0].abs().max()) for p in (0.0, 1.0)] == [pytest.approx(0.1), pytest.approx(0.4)]


def test_rescaling_has_one_factor_for_a_group() -> None:
    g = torch.Generator().manual_seed(4)
    plain, guided = torch.randn(4, 3, 8, 8, generator=g), torch.randn(4, 3, 8, 8, generator=g)
    guided[1] *= 5
    found = rescale_guidance(guided, plain, 1.0, group=2)
    for k in (0, 2):
        factor = plain[k : k + 2].std() / guided[k : k + 2].std()
        torch.testing.assert_close(found[k : k + 2], guided[k : k + 2] * factor, rtol=1e-4, atol=1e-6)


def test_dreamtime_is_its_definition() -> None:
    """t(i): the share of the weights above t is i / N, here by the trapezoid rule on another grid."""
    x = torch.linspace(0.02, 0.98, 20001, dtype=torch.float64)
    alpha, sigma = cosine_schedule(x)
    w = (
        sigma
        / alpha
        * torch.exp(-((x - 0.8).clamp_min(0) ** 2) / (2 * 0.3**2) - (0.5 - x).clamp_min(0) ** 2 / (2 * 0.1**2))
    )
    below = torch.cumulative_trapezoid(w, x)
    for progress in (0.1, 0.5, 0.9):
        t = dreamtime(progress, 0.02, 0.98, cosine_schedule)
        share = 1 - float(below[int((x[1:] - t).abs().argmin())] / below[-1])
        assert share == pytest.approx(progress, abs=0.02)
    times = [dreamtime(p / 10, 0.02, 0.98, cosine_schedule) for p in range(11)]
    assert times == sorted(times, reverse=True)


def test_orders_of_levels() -> None:
    def levels(order: str, progress: float) -> list[float]:
        settings = SdsSettings(t_min=0.2, t_max=0.8, t_order=order)
        return draw_times(settings, progress, 2, torch.Generator().manual_seed(0), cosine_schedule).tolist()

    assert levels("sqrt", 0.25) == [pytest.approx(0.5)] * 2
    low, high = levels("random", 0.25)
    assert 0.2 <= low <= 0.5 <= high <= 0.8
    assert 0.2 <= levels("dreamtime", 0.5)[0] <= 0.8
    assert RuleSettings().t_order == "random"


def test_uniform_numbers_out_of_levels() -> None:
    t = 0.3 + 0.4 * torch.rand(20000, generator=torch.Generator().manual_seed(0))
    u = uniform_of(t)
    assert 0 <= u.min() and u.max() < 1 and abs(float(u.mean()) - 0.5) < 0.01 and abs(float(u.var()) - 1 / 12) < 0.003
    assert abs(float(torch.corrcoef(torch.stack([t, u]))[0, 1])) < 0.03


def test_the_page_says_what_each_rule_costs() -> None:
    """Answers of the prior for each picture and step, without and with guidance, in a step after the first."""
    page = (Path(__file__).parents[1] / "docs" / "rules.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+ / \d+) \|", page, re.M))
    for settings in GUIDED:
        kind, costs = settings.model_fields["kind"].default, []
        for w in (0.0, 1.0):
            prior = (FlowOracle if kind == "rfds" else Oracle)(KNOWN)
            rule = rule_of(kind, prior, guidance_scale=w)
            question, t, noise = question_of(rule, 2), torch.full((2,), 0.5), torch.zeros(2, *SHAPE)
            for _ in range(2):
                prior.asked = 0
                rule.direction(torch.full((2, *SHAPE), 0.5), question, t, noise)
                rule.learn(torch.full((2, *SHAPE), 0.5), question, torch.Generator().manual_seed(0))
            costs.append(str(prior.asked))
        assert told[kind] == " / ".join(costs), kind
