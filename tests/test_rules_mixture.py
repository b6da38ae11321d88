"""Two Gaussians in the plane: SDS moves all points to one mode, VSD gives them the mixture's weights and spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tools")
    import rules_plot

    return rules_plot


def shares_and_spreads(points: Tensor, means: Tensor) -> tuple[list[float], list[float]]:
    """Of each component: the share of points nearest to it, and their root mean square deviation for one coordinate."""
    nearest = (points[:, None] - means).norm(dim=-1).argmin(1)
    groups = [points[nearest == k] for k in range(len(means))]
    spreads = [float((g - g.mean(0)).square().mean().sqrt()) if len(g) > 2 else 0.0 for g in groups]
    return [len(g) / len(points) for g in groups], spreads


def test_sds_finds_a_mode(plane: Any) -> None:
    """The words are 0.7 N(m1, 0.12^2) + 0.3 N(m2, 0.12^2), guidance 0. SDS descends -log of the blurred density from every
    start, so each point ends in a mode, and here in the heavier one, as much noise leaves no other."""
    means, spread = plane.WANTED.means.flatten(1), plane.WANTED.spread
    sds, sds_spreads = shares_and_spreads(plane.settle("sds", 400, 128), means)
    assert max(sds) > 0.98 and max(sds_spreads) < 0.3 * spread


@pytest.mark.slow
def test_vsd_finds_the_mixture(plane: Any) -> None:
    """VSD descends the divergence of all points together, whose minimum is the mixture. Its learner is the small network."""
    means, weights, spread = plane.WANTED.means.flatten(1), plane.WANTED.weights, plane.WANTED.spread
    learning = {"learner": "network", "learner_lr": 5e-3, "width": 16, "t_max": [[0, 0.98], [0.6, 0.98], [1, 0.5]]}
    vsd, vsd_spreads = shares_and_spreads(plane.settle("vsd", 400, 160, **learning), means)
    assert vsd == pytest.approx(weights.tolist(), abs=0.12)
    assert all(0.5 * spread < s < 1.6 * spread for s in vsd_spreads), vsd_spreads


def test_the_planes_score_is_the_gradient_of_its_density(plane: Any) -> None:
    """e = -sigma grad log p_t (Tweedie), by automatic differentiation."""
    z = torch.randn(5, 2, 1, 1, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    alpha, sigma = torch.full((5, 1, 1, 1), 0.8).double(), torch.full((5, 1, 1, 1), 0.6).double()
    wanted = plane.WANTED
    variance = 0.64 * wanted.spread**2 + 0.36
    far = (z[:, None] - 0.8 * wanted.means.double()).square().flatten(2).sum(2)
    density = (wanted.weights.double().log() - 0.5 * far / variance).logsumexp(1)
    (score,) = torch.autograd.grad(density.sum(), z)
    torch.testing.assert_close(wanted.noise(z.detach(), alpha, sigma), -0.6 * score, rtol=1e-6, atol=1e-6)
