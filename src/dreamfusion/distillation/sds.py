"""Score distillation sampling (Poole et al. 2022, eq. 3): w(t) (e_hat - e), with no gradient through the prior."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from ..priors.prior import Prior, broadcast, clean_from_noise, guide, levels
from ..priors.question import Question, Words
from ..schema import scheduled
from .clipping import clip_score
from .glimpse import Glimpse
from .rule import Direction, Figures, Rule, mean_over_pixels
from .rule_settings import GuidedSettings


def weight(kind: str, alpha: Tensor, sigma: Tensor) -> Tensor:
    """w(t) for alpha, sigma of any shape: sigma^2 as in the paper, 1, alpha sigma, or sigma / alpha."""
    if kind == "sigma_over_alpha":
        return sigma / alpha.clamp_min(1e-4)
    return {"sigma2": sigma**2, "uniform": torch.ones_like(sigma), "alpha_sigma": alpha * sigma}[kind]


def threshold_clean(clean: Tensor, quantile: float) -> Tensor:
    """Dynamic thresholding of clean pictures (B, C, H, W) in [-1, 1] (Saharia et al. 2022, section 2.3)."""
    limit = torch.quantile(clean.flatten(1).abs(), quantile, dim=1).clamp_min(1.0)
    limit = broadcast(limit, clean)
    return clean.clamp(-limit, limit) / limit


def rescale_guidance(guided: Tensor, conditional: Tensor, share: float, group: int = 1) -> Tensor:
    """Pull the spread of the guided clean picture back to the conditional one's (Lin et al. 2023, eqs. 15-16).

    The pictures of a group share one factor (Shi et al. 2023, MVDream, section 3.3), so that views stay alike.
    """
    wide, narrow = (x.unflatten(0, (-1, group)).flatten(1).std(1) for x in (guided, conditional))
    factor = (narrow / wide.clamp_min(1e-6)).repeat_interleave(group)
    return share * (guided * broadcast(factor, guided)) + (1 - share) * guided


def without_component(x: Tensor, along: Tensor) -> Tensor:
    """x (B, C, h, w) without its component along ``along``, row by row; x itself where ``along`` is zero."""
    dot, square = ((a * along).flatten(1).sum(1) for a in (x, along))
    return x - broadcast(dot / square.clamp_min(1e-12), x) * along


def repulsion(
    prior: Prior, z_t: Tensor, t: Tensor, question: Question, wanted: Tensor, unconditional: Tensor
) -> Tensor:
    """Sum of the weighted directions of ``question.repelled``, each only as far as it is perpendicular to ``wanted``.

    Armandpour et al. 2023 (Perp-Neg): its perpendicular gradient. All are (B, C, h, w). One call of the prior answers for
    two of them.
    """
    total = torch.zeros_like(z_t)
    for k in range(0, len(question.repelled), 2):
        pair = question.repelled[k : k + 2]
        answers = prior.predict_noise(z_t, t, question, [words for words, _ in pair])
        for answer, (_, factor) in zip(answers, pair, strict=True):
            total = total + broadcast(factor, z_t).to(z_t) * without_component(answer - unconditional, wanted)
    return total


def predict_apart(
    prior: Prior, z_t: Tensor, t: Tensor, question: Question, nothing: Words | None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """e(y), moved away from what is repelled, and e(``nothing``), each (B, C, h, w); for rules that weigh them apart."""
    conditional, unconditional = prior.predict_noise(z_t, t, question, [question.words, nothing])
    if question.repelled:
        conditional = conditional - repulsion(prior, z_t, t, question, conditional - unconditional, unconditional)
    return conditional, unconditional


def predict_guided(
    prior: Prior, z_t: Tensor, t: Tensor, question: Question, settings: GuidedSettings, progress: float = 0.0
) -> tuple[Tensor, Figures]:
    """The guided noise prediction (B, C, h, w), thresholded and rescaled as the settings ask, and its figures.

    Differentiable in z_t under the caller's grad mode.
    """
    guided, _, figures = predict_both(prior, z_t, t, question, settings, progress)
    return guided, figures


def predict_both(
    prior: Prior, z_t: Tensor, t: Tensor, question: Question, settings: GuidedSettings, progress: float = 0.0
) -> tuple[Tensor, Tensor, Figures]:
    """The guided prediction, e(y) as it was answered, and figures."""
    guidance_scale = scheduled(settings.guidance_scale, progress)
    if guidance_scale == 0 and not question.repelled:  # (1 + 0) e(y) - 0 e(nothing): one pass is enough
        (conditional,) = prior.predict_noise(z_t, t, question, [question.words])
        unconditional = conditional
    else:
        conditional, unconditional = prior.predict_noise(z_t, t, question, [question.words, question.nothing])
    plain = conditional
    figures = {"guidance_norm": (conditional - unconditional).detach().square().mean().sqrt()}
    if question.repelled:
        conditional = conditional - repulsion(prior, z_t, t, question, conditional - unconditional, unconditional)
    noise = guide(conditional, unconditional, guidance_scale)
    if settings.threshold > 0 or settings.rescale > 0:
        alpha, sigma = levels(prior, t, z_t)
        clean = clean_from_noise(z_t, noise, alpha, sigma)
        if settings.rescale > 0:
            narrow = clean_from_noise(z_t, conditional, alpha, sigma)
            clean = rescale_guidance(clean, narrow, settings.rescale, question.view.group)
        if settings.threshold > 0:
            clean = threshold_clean(clean, settings.threshold)
        noise = (z_t - alpha * clean) / sigma.clamp_min(1e-4)
    return noise, plain, figures


@dataclass(frozen=True)
class SDS(Rule):
    """The rule of the paper. It has no state. Its family says what ``residual`` is; all else is the same for all."""

    prior: Prior
    settings: GuidedSettings
    progress: float = 0.0
    asked: list[Glimpse] = field(default_factory=list, init=False, repr=False, compare=False)
    """The last question, for ``glimpse``. Each step's rule (``at``) begins without one."""

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return self.prior.noise_shape(count)

    def at(self, progress: float) -> Self:
        return replace(self, progress=progress)

    @property
    def guidance_scale(self) -> float:
        """w, now."""
        return scheduled(self.settings.guidance_scale, self.progress)

    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """z_t = alpha z + sigma e."""
        alpha, sigma = levels(self.prior, t, z)
        return alpha * z + sigma * noise

    def guided(self, z_t: Tensor, t: Tensor, question: Question) -> tuple[Tensor, Figures]:
        """``predict_guided`` of this rule's prior and settings, now."""
        guided, _, figures = self.both(z_t, t, question)
        return guided, figures

    def both(self, z_t: Tensor, t: Tensor, question: Question) -> tuple[Tensor, Tensor, Figures]:
        """``predict_both`` of this rule's prior and settings, now."""
        guided, plain, figures = predict_both(self.prior, z_t, t, question, self.settings, self.progress)
        self.note(z_t, t, plain)
        return guided, plain, figures

    def apart(self, z_t: Tensor, t: Tensor, question: Question, nothing: Words | None) -> tuple[Tensor, Tensor]:
        """``predict_apart`` of this rule's prior."""
        wanted, other = predict_apart(self.prior, z_t, t, question, nothing)
        self.note(z_t, t, wanted)
        return wanted, other

    def note(self, z_t: Tensor, t: Tensor, answer: Tensor) -> None:
        """Remember a question and its answer e(y) for ``glimpse``."""
        self.asked[:] = [Glimpse(self.prior, z_t.detach(), t, answer.detach())]

    def glimpse(self) -> Glimpse | None:
        return self.asked[0] if self.asked else None

    def residual(self, z: Tensor, question: Question, t: Tensor, noise: Tensor) -> tuple[Tensor, Figures]:
        """The gradient by z (B, C, h, w) before its weight w(t), and figures. Called without gradients."""
        predicted, figures = self.guided(self.noised(z, t, noise), t, question)
        return predicted - noise, figures

    def direction(self, picture: Tensor, question: Question, t: Tensor, noise: Tensor) -> Direction:
        """w(t) times the residual in the prior's space, carried back to the picture; a mean over pixels."""
        with torch.enable_grad():
            picture = picture.detach().requires_grad_()
            z = self.prior.encode(picture)
        with torch.no_grad():
            residual, figures = self.residual(z.detach(), question, t, noise)
            residual = weight(self.settings.weight, *levels(self.prior, t, z)) * residual
            residual = clip_score(residual, scheduled(self.settings.clip_score, self.progress))
        (gradient,) = torch.autograd.grad(z, picture, residual)
        figures |= {"residual_norm": residual.square().mean().sqrt(), "t": t.mean()}
        return Direction(mean_over_pixels(gradient), figures)
