"""Priors whose noise prediction is known in closed form: normal pictures, and mixtures of them, one mixture for each caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor, nn

from dreamfusion.priors.prior import broadcast
from dreamfusion.priors.question import Question, Tokens, Words
from tests.fakes import PixelPrior


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
