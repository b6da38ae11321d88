"""The exact posterior over what a question leaves open, given the noisy picture. Pure functions on tensors.

The model: a clean picture is x = x_n(b) + s e, one of N hypothesis pictures in front of a plain background b, and Gaussian scatter s.
With z = alpha x + sigma e the noisy picture is Gaussian around alpha x_n(b), of variance v = sigma^2 + alpha^2 s^2, so that

    p(n | z) ~ p(n) exp(-|z - alpha x_n(b)|^2 / (2 v))
    E[x | z] = sum_n p(n | z) (x_n(b) + k (z - alpha x_n(b))),   k = alpha s^2 / v

and the noise that an ideal denoiser predicts is (z - alpha E[x | z]) / sigma, which is -sigma grad log p(z).

Names: B noisy pictures z (B, 3, S, S) in G groups of V; N hypothesis pictures; K hypotheses, each of which says what all V views of
a group show: ``shown`` (G, V, K) are picture numbers. A single view has V = 1 and shown = 0 … N - 1. alpha, sigma are (B,).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import before
from .prior import broadcast


@dataclass(frozen=True)
class Pictures:
    """N hypothesis pictures over mid-gray (which is 0) and their coverage, (N, 4, S, S), as ``Layout.draw`` has them.

    In front of a background b in [-1, 1] they are x(b) = d + u b, with d the colour over gray and u = 1 - coverage.
    """

    drawn: Tensor

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, rows: Tensor) -> Pictures:
        return Pictures(self.drawn[rows])

    def pooled(self, side: int) -> Pictures:
        """The same, ``side`` pixels a side: means over blocks."""
        return Pictures(F.adaptive_avg_pool2d(self.drawn, side))

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """<d, d> (N,), <d_c, u> (N, 3) and <u, u> (N,)."""
        colour, gap = self.drawn[:, :3].flatten(2), 1 - self.drawn[:, 3:].flatten(2)
        return colour.square().sum((1, 2)), (colour * gap).sum(2), gap.square().sum((1, 2))


def variance(alpha: Tensor, sigma: Tensor, spread: float) -> Tensor:
    """v = sigma^2 + alpha^2 s^2, the variance of a noisy picture around its hypothesis, (B,)."""
    return sigma.square() + alpha.square() * spread**2


def squared_distances(z: Tensor, alpha: Tensor, pictures: Pictures, background: Tensor) -> Tensor:
    """|z - alpha x_n(b)|^2, (B, N), background (B, 3) in [-1, 1].

    |z|^2 - 2 alpha (<z, d> + sum_c b_c <z_c, u>) + alpha^2 (<d, d> + 2 sum_c b_c <d_c, u> + |b|^2 <u, u>): one matrix
    product, whatever the backgrounds.
    """
    dd, du, uu = pictures.moments
    b = background.to(z)
    # sum_c b_c z_c is one picture; <., u> is its sum without <., coverage>. So both products are one, with all four channels.
    behind = (z * b[:, :, None, None]).sum(1, keepdim=True)
    product = torch.cat([z, -behind], 1).flatten(1) @ pictures.drawn.flatten(1).T + behind.sum((1, 2, 3))[:, None]
    square = dd + 2 * b @ du.T + b.square().sum(1, keepdim=True) * uu
    a = alpha[:, None]
    return z.square().sum((1, 2, 3))[:, None] - 2 * a * product + a.square() * square


def squared_residuals(z: Tensor, alpha: Tensor, drawn: Tensor, background: Tensor) -> Tensor:
    """The same for few pictures, (B, E): drawn (B, E, 4, S, S), or (1, E, …) for all alike. Subtracts first, so nothing cancels."""
    gap = 1 - drawn[:, :, 3:]
    away = z[:, None] - alpha[:, None, None, None, None] * (
        drawn[:, :, :3] + gap * background.to(z)[:, None, :, None, None]
    )
    return away.square().sum((2, 3, 4))


def log_likelihoods(
    z: Tensor, alpha: Tensor, v: Tensor, pictures: Pictures, background: Tensor, few: int = 64
) -> Tensor:
    """log p(z | n), (B, N), up to a constant of each row, for variances v (B,)."""
    if len(pictures) <= few:
        square = squared_residuals(z, alpha, pictures.drawn[None], background)
    else:
        square = squared_distances(z, alpha, pictures, background)
    return -square / (2 * v[:, None])


def together(log_likelihood: Tensor, shown: Tensor) -> Tensor:
    """Log-likelihoods (G, K) of hypotheses about groups: the sum over views of (B, N)'s entries ``shown`` (G, V, K)."""
    return log_likelihood.unflatten(0, shown.shape[:2]).gather(2, shown).sum(1)


def per_picture(share: Tensor, shown: Tensor, count: int) -> Tensor:
    """Weights (B, N) of N = ``count`` pictures in each view, of hypotheses' weights (G, K)."""
    weight = share.new_zeros(*shown.shape[:2], count)
    return weight.scatter_add(2, shown, share[:, None].expand_as(shown)).flatten(0, 1)


def mean_drawn(weight: Tensor, pictures: Pictures) -> Tensor:
    """Weighted means (B, 4, S, S) of pictures, weight (B, N)."""
    return (weight @ pictures.drawn.flatten(1)).unflatten(1, pictures.drawn.shape[1:])


def denoised(z: Tensor, alpha: Tensor, sigma: Tensor, spread: float, mean: Tensor) -> Tensor:
    """E[x | z] = m + k (z - alpha m), of the hypotheses' posterior mean m = sum_n p(n | z) x_n(b)."""
    k = alpha * spread**2 / variance(alpha, sigma, spread)
    return mean + broadcast(k, z) * (z - broadcast(alpha, z) * mean)


def noise_of(z: Tensor, clean: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """(z - alpha x) / sigma."""
    return (z - broadcast(alpha, z) * clean) / broadcast(sigma, z).clamp_min(1e-4)


@dataclass(frozen=True)
class Found:
    """What a search found: ``log_share`` (G, K), the normalised log p(hypothesis | z), and their ``mean`` (B, 4, S, S)."""

    log_share: Tensor
    mean: Tensor


def search(
    z: Tensor,
    alpha: Tensor,
    v: Tensor,
    pictures: Pictures,
    pooled: Pictures,
    background: Tensor,
    log_prior: Tensor,
    shown: Tensor,
    extra: Tensor | None = None,
    extra_prior: Tensor | None = None,
    margin: float = 20.0,
) -> Found:
    """The posterior of hypotheses with priors ``log_prior`` (G, K), coarse to fine.

    Means over blocks of n pixels leave Gaussian noise Gaussian, of variance v / n: so the ``pooled`` pictures have an exact
    posterior of their own. Hypotheses that are e^margin less likely there than the best are left out, the others are compared
    at full size. ``extra`` (B, E, 4, S, S) are more hypotheses, of prior ``extra_prior`` (G, E), drawn for these very views.
    """
    coarse = coarse_log_share(z, alpha, v, pooled, background, log_prior, shown)
    alive = (coarse > coarse.amax(1, keepdim=True) - margin).any(0).nonzero()[:, 0]
    rows, renamed = shown[:, :, alive].unique(return_inverse=True)
    if 2 * len(rows) > len(pictures):  # copying costs more than it saves
        rows, renamed, some = torch.arange(len(pictures)), shown[:, :, alive], pictures
    else:
        some = pictures[rows]
    log = together(log_likelihoods(z, alpha, v, some, background), renamed) + log_prior[:, alive]
    if extra is not None and extra_prior is not None:
        square = squared_residuals(z, alpha, extra, background) / (2 * v[:, None])
        log = torch.cat([log, extra_prior - square.unflatten(0, shown.shape[:2]).sum(1)], 1)
    log = log.log_softmax(1)
    share = log.exp()
    mean = mean_drawn(per_picture(share[:, : len(alive)], renamed, len(rows)), some)
    if extra is not None:
        more = share[:, None, len(alive) :].expand(-1, shown.shape[1], -1).flatten(0, 1)
        mean = mean + (more[:, :, None, None, None] * extra).sum(1)
    whole = torch.full_like(log_prior, float("-inf")).index_copy(1, alive, log[:, : len(alive)])
    return Found(whole, mean)


def coarse_log_share(
    z: Tensor, alpha: Tensor, v: Tensor, pooled: Pictures, background: Tensor, log_prior: Tensor, shown: Tensor
) -> Tensor:
    """log p(hypothesis | pooled z), (G, K), normalised."""
    side = pooled.drawn.shape[-1]
    block = (z.shape[-1] // side) ** 2
    log = log_likelihoods(F.adaptive_avg_pool2d(z, side), alpha, v / block, pooled, background)
    return (together(log, shown) + log_prior).log_softmax(1)


def answer(z: Tensor, alpha: Tensor, sigma: Tensor, spread: float, found: Found, background: Tensor) -> Tensor:
    """The noise (B, 3, S, S) that the ideal denoiser predicts."""
    clean = denoised(z, alpha, sigma, spread, before(found.mean, background))
    return noise_of(z, clean, alpha, sigma)
