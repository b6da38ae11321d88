"""Rules on a prior that knows a known object from a few sides: a mixture of its renders, which the scene's picture lies between.

The words' pictures are sum_k p_k N(m_k, s^2), where m_k is the render from azimuth k. With v = alpha^2 s^2 + sigma^2 the prior
answers e(z_t) = sigma / v sum_k r_k(z_t) (z_t - alpha m_k), where r_k is the posterior of k. Let z_t = alpha z + sigma e. The r_k
add up to 1 and e has mean zero, so

    E e(z_t) = sigma alpha / v (z - sum_k R_k m_k),  R_k = E r_k(alpha z + sigma e).

log r_k - log r_0 = log p_k / p_0 + alpha / v z_t (m_k - m_0) - alpha^2 / 2v (|m_k|^2 - |m_0|^2). So r depends on e through its
components in the span of the m_k - m_0 alone. For K renders these are K - 1 normal numbers, and R_k is an integral over them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamfusion.distillation.rules import make_rule
from dreamfusion.distillation.sds import SDS
from dreamfusion.settings.building import build
from tests.fakes import ask
from tests.oracles import Exact, Normals, Oracle, agrees, parts, renders

COUNT, SIZE = 6000, 8
LEVELS = torch.linspace(0.25, 0.95, 15)
"""Noise levels: at smaller ones a single render explains the picture."""
WANTED = renders([0.0, 110.0, 200.0], SIZE, 0.3, [0.5, 0.3, 0.2])
NOTHING = Normals(WANTED.means.mean(0, keepdim=True), 0.7)
OWN = Normals(WANTED.means[:1], 0.4)
"""The pictures of a scene that shows the first render from everywhere."""
Z = (torch.tensor([0.3, 0.35, 0.35])[:, None, None, None] * WANTED.means).sum(0, keepdim=True) - 0.05


def expected_shares(mixture: Normals, z: Tensor, t: Tensor) -> Tensor:
    """R_k (levels, K) of a picture z (1, C, h, w), by the trapezoid rule over the normal numbers, 0.25 apart."""
    means, point = mixture.means.flatten(1).double(), z.flatten().double()
    apart = means[1:] - means[0]
    basis = torch.linalg.qr(apart.T).Q
    axis = torch.arange(-6, 6.01, 0.25, dtype=torch.float64)
    places = torch.cartesian_prod(*[axis] * len(apart))
    density = torch.exp(-places.square().sum(1) / 2)
    density = density / density.sum()
    assert mixture.weights is not None
    prior = mixture.weights.double().log()
    found = []
    for alpha, sigma, k in zip(*(x.flatten().double() for x in parts(t, mixture.spread)), strict=True):
        along = alpha * (apart @ point) + sigma * places @ (apart @ basis).T
        sizes = alpha / 2 * (means[1:].square().sum(1) - means[0].square().sum())
        logits = torch.nn.functional.pad(alpha * k / sigma * (along - sizes), (1, 0)) + prior
        found.append(density @ logits.softmax(1))
    return torch.stack(found).float()


def pull_of_mixture(mixture: Normals, t: Tensor) -> Tensor:
    """E e(z_t) of the mixture at Z: (levels, 3, SIZE, SIZE)."""
    alpha, _, k = parts(t, mixture.spread)
    return k * alpha * (Z - torch.einsum("lk,kchw->lchw", expected_shares(mixture, Z, t), mixture.means))


def pull(one: Normals, t: Tensor) -> Tensor:
    """The same of a single normal: k alpha (z - m)."""
    alpha, _, k = parts(t, one.spread)
    return k * alpha * (Z - one.means)


def rule_of(kind: str, **settings: Any) -> SDS:
    given = {"weight": "uniform", "threshold": 0, "kind": kind, **settings}
    config = build({f"distillation.{name}": value for name, value in given.items()})
    rule = make_rule(config.distillation, Oracle({"": NOTHING, "object": WANTED}))
    assert isinstance(rule, SDS)
    return rule


def draw(rule: SDS) -> tuple[Tensor, Tensor]:
    """The rule's directions by z (COUNT, 3, SIZE, SIZE), and the index of each one's level."""
    level = torch.arange(COUNT) % len(LEVELS)
    noise = torch.randn(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    question = ask(rule.prior.embed(["object"] * COUNT))
    found = rule.direction(((Z + 1) / 2).expand(COUNT, -1, -1, -1), question, LEVELS[level], noise).gradient
    return found * SIZE**2 / 2, level  # a mean over pixels, and d z / d picture = 2


@pytest.mark.parametrize("kind", ["sds", "vsd", "csd"])
def test_the_average_over_levels_and_noise(kind: str) -> None:
    """SDS: E = E e(z_t, y). VSD, whose learner knows that the scene's pictures are N(c, r^2): E e(z_t, y) - k_r alpha (z - c).
    CSD with w = 2: 2 (E e(z_t, y) - k_0 alpha (z - m_0))."""
    wanted = pull_of_mixture(WANTED, LEVELS)
    rule = rule_of(kind, guidance_scale=2.0 if kind == "csd" else 0.0, **({"width": 8} if kind == "vsd" else {}))
    if kind == "vsd":
        rule = replace(rule, learner=Exact(OWN))  # type: ignore[call-arg]
    expected = {"sds": wanted, "vsd": wanted - pull(OWN, LEVELS), "csd": 2 * (wanted - pull(NOTHING, LEVELS))}[kind]
    found, level = draw(rule)
    agrees(found, expected[level])


def test_no_single_render_explains_the_picture() -> None:
    """So the test above needs the posterior: at every level each render has a share."""
    shares = expected_shares(WANTED, Z, LEVELS)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(LEVELS)))
    assert shares.min() > 0.03 and shares.max() < 0.9
    assert (WANTED.means[:, None] - WANTED.means).abs().amax((2, 3, 4))[~torch.eye(3, dtype=torch.bool)].min() > 0.5


def test_vsd_rests_where_the_scene_shows_the_object_from_all_of_the_sides() -> None:
    """The learner knows the mixture itself: no direction is left, for any noise. SDS still has one."""
    rule = replace(rule_of("vsd", guidance_scale=0.0, width=8), learner=Exact(WANTED))  # type: ignore[call-arg]
    assert draw(rule)[0].abs().max() < 1e-5
    assert draw(rule_of("sds", guidance_scale=0.0))[0].abs().max() > 0.1
