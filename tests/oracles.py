"""Priors whose noise prediction is known in closed form: normal pictures, mixtures of them, and of a known object's renders, one
mixture for each caption; and how a rule's average is compared with its expectation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor, nn

from dreamfusion.priors.prior import broadcast, cosine_schedule
from dreamfusion.priors.question import Question, Tokens, Words
from tests.fakes import PixelPrior
from tests.known_object import cameras_of, photograph


@dataclass(frozen=True)
class Normals:
    """Clean pictures z ~ sum_k weights[k] N(means[k], spread^2); means (K, C, h, w)."""

    means: Tensor
    spread: float
    weights: Tensor | None = None

    def noise(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[e | z_t], of z_t (B, C, h, w) and alpha, sigma (B, 1, 1, 1).

        Given component k, z_t ~ N(alpha m_k, v) with v = alpha^2 s^2 + sigma^2, and Cov(e, z_t) = sigma. So E[e | z_t, k] =
        sigma (z_t - alpha m_k) / v, and the components are weighted by their likelihoods (Bayes).
        """
        v = alpha**2 * self.spread**2 + sigma**2
        far = z_t[:, None] - alpha[:, None] * self.means
        evidence = -0.5 * (far.square() / v[:, None]).flatten(2).sum(2)
        if self.weights is not None:
            evidence = evidence + self.weights.log()
        share = evidence.softmax(1)[..., None, None, None]
        return sigma / v * (share * far).sum(1)


def renders(azimuths_deg: Sequence[float], size: int, spread: float, weights: Sequence[float]) -> Normals:
    """The known object in front of mid-gray, seen from one of these azimuths, with this spread around each picture."""
    angles = torch.tensor([[math.radians(a), math.radians(15.0), 2.5] for a in azimuths_deg])
    pictures = photograph(cameras_of(angles), size, torch.full((len(angles), 3), 0.5))
    return Normals(pictures * 2 - 1, spread, torch.tensor(weights))


class Oracle(PixelPrior):
    """A caption is the mixture under its first word in ``known``; None is the one under ''. ``calls`` counts questions and
    ``asked`` all of their answers."""

    id, resolution = "oracle", 2

    def __init__(self, known: Mapping[str, Normals]):
        self.known, self.prompts = dict(known), list(known)
        self.resolution = next(iter(known.values())).means.shape[-1]
        self.scale = nn.Parameter(torch.ones(()))  # a trained weight that must never see a gradient
        self.calls = self.asked = 0

    def embed(self, captions: Sequence[str], images: Sequence[Image] = ()) -> Tokens:
        rows = [next((k for k, name in enumerate(self.prompts) if name and name in caption), 0) for caption in captions]
        return Tokens(
            torch.tensor(rows, dtype=torch.float32)[:, None, None], torch.ones(len(rows), 1, dtype=torch.bool)
        )

    def of(self, words: Words | None) -> Normals:
        if words is None:
            return self.known[""]
        assert isinstance(words, Tokens)
        return self.known[self.prompts[int(words.tokens[0, 0, 0])]]

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        self.calls, self.asked = self.calls + 1, self.asked + len(about)
        alpha, sigma = (broadcast(x, z_t) for x in self.alpha_sigma(t))
        return tuple(self.scale * self.of(words).noise(z_t, alpha, sigma) for words in about)


class FlowOracle(Oracle):
    """The same as a rectified flow: alpha = 1 - t, sigma = t."""

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t


class Exact(torch.nn.Module):
    """A learner that has learned: it knows that the scene's pictures are normal."""

    def __init__(self, own: Normals):
        super().__init__()
        self.own = own

    def predict(self, z_t: Tensor, t: Tensor, question: Question, known: Tensor | None = None) -> Tensor:
        return self.own.noise(z_t, *parts(t, 1.0)[:2])


def parts(t: Tensor, s: float, flow: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, sigma and k of N(., s^2), each (B, 1, 1, 1)."""
    t = t[:, None, None, None]
    alpha, sigma = (1 - t, t) if flow else cosine_schedule(t)
    return alpha, sigma, sigma / (alpha**2 * s**2 + sigma**2)


def agrees(found: Tensor, expected: Tensor, sigmas: float = 4.5) -> None:
    """The mean difference is zero, within so many of its standard errors, everywhere; and that says something."""
    away = (found - expected).double()
    error = away.std(0) / len(away) ** 0.5
    assert (away.mean(0).abs() < sigmas * error + 1e-5).all(), (away.mean(0) / error, error)
    assert expected.double().mean(0).abs().mean() > 2 * error.mean()  # the mean itself is seen
