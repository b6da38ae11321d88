"""Questions that leave things open, answered by the posterior over them: words alone, views together, nothing.

Every question takes noisy pictures (``Noisy``) and answers the mean of the hypotheses (``Inferred``). ``Noisy.clean`` makes the
ideal denoiser's picture of that mean, and ``Noisy.noise`` the noise that this picture leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import posterior
from .hypotheses import POOLED, Hypotheses, Sphere, peak
from .layout import before
from .posterior import Pictures
from .subjects import Subject, Subjects

SIDES = ("front", "side", "back", "overhead")
SPREAD = 0.06
WORTH_DRAWING = 0.02
"""A camera is drawn anew, between the grid's, where a hypothesis has at least this share."""
POOL, ASKED_SHARE = 400, 0.1
"""Of nothing: how many random pictures stand for it, and the share of the asked thing among them."""


@dataclass(frozen=True)
class Noisy:
    """Noisy pictures and what is known of them."""

    z: Tensor
    alpha: Tensor
    sigma: Tensor
    background: Tensor
    spread: float = SPREAD

    @property
    def v(self) -> Tensor:
        """Variance (B,) around a hypothesis."""
        return posterior.variance(self.alpha, self.sigma, self.spread)

    def rows(self, index: Tensor) -> Noisy:
        """Some of them."""
        return Noisy(self.z[index], self.alpha[index], self.sigma[index], self.background[index], self.spread)

    def search(
        self, pictures: Pictures, pooled: Pictures, prior: Tensor, shown: Tensor,
        extra: Tensor | None = None, extra_prior: Tensor | None = None,
    ) -> posterior.Found:  # fmt: skip
        """``posterior.search`` for these pictures."""
        return posterior.search(
            self.z, self.alpha, self.v, pictures, pooled, self.background, prior, shown, extra, extra_prior
        )

    def clean(self, drawn: Tensor) -> Tensor:
        """E[x | z] of the hypotheses' mean (B, 4, S, S)."""
        return posterior.denoised(self.z, self.alpha, self.sigma, self.spread, before(drawn, self.background))

    def noise(self, clean: Tensor) -> Tensor:
        """What noise is left when the clean picture is taken away."""
        return posterior.noise_of(self.z, clean, self.alpha, self.sigma)


@dataclass(frozen=True)
class Inferred:
    """The hypotheses' mean (B, 4, S, S), the likeliest camera (B, 3) and the share (B,) of the likeliest hypothesis."""

    mean: Tensor
    camera: Tensor
    sure: Tensor


def side_prior(sphere: Sphere, sides: Tensor) -> Tensor:
    """log p(camera | words) (B, N), for sides (B, 4): how much each of ``SIDES`` is meant; all zero means any side."""
    turn = (sphere.cameras[:, 0] + math.pi) % (2 * math.pi) - math.pi
    turn = turn.abs().rad2deg()
    which = (turn > 45).long() + (turn >= 135).long()
    weight = sides[:, :3][:, which]
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, torch.ones_like(weight))
    return (weight / weight.sum(1, keepdim=True)).log()


class Inference:
    """The layout's pictures as a generative model, asked backwards."""

    def __init__(self, hypotheses: Hypotheses, spread: float = SPREAD, redraw: bool = True):
        self.hypotheses, self.spread, self.redraw = hypotheses, spread, redraw
        self.pool: Pictures | None = None
        self.joined: list[tuple[Sphere, Pictures, Pictures]] = []

    def words(self, seen: Noisy, words: Subjects) -> Inferred:
        """What the words show from a camera that is not told."""
        subjects, sides = [words[k] for k in range(len(words))], words.sides.cpu()
        keys = [(subject.key, above) for subject, above in zip(subjects, (sides[:, 3] > 0.5).tolist(), strict=True)]
        mean = torch.empty(len(seen.z), 4, *seen.z.shape[2:])
        camera, sure = torch.empty(len(seen.z), 3), torch.empty(len(seen.z))
        for key in dict.fromkeys(keys):
            rows = torch.tensor([k for k, other in enumerate(keys) if other == key])
            subject, above = subjects[rows[0]], key[1]
            sphere = self.hypotheses.sphere(subject, above)
            prior = side_prior(sphere, sides[rows] if not above else torch.zeros(len(rows), 4))
            found = self._one_by_one(seen.rows(rows), sphere, prior, subject)
            mean[rows], camera[rows], sure[rows] = found.mean, found.camera, found.sure
        return Inferred(mean, camera, sure)

    def _one_by_one(self, seen: Noisy, sphere: Sphere, prior: Tensor, subject: Subject) -> Inferred:
        count = len(sphere.pictures)
        shown = torch.arange(count).expand(len(seen.z), 1, count)
        coarse = posterior.coarse_log_share(seen.z, seen.alpha, seen.v, sphere.pooled, seen.background, prior, shown)
        camera, best = sphere.refined(coarse)
        sure = coarse.amax(1).exp()
        close = (sure > WORTH_DRAWING).nonzero()[:, 0]
        extra = extra_prior = None
        if self.redraw and len(close):
            extra = seen.z.new_zeros(len(seen.z), 1, 4, *seen.z.shape[2:])
            extra[close, 0] = self.hypotheses.draw(subject, camera[close])
            extra_prior = torch.full((len(seen.z), 1), float("-inf"))
            extra_prior[close, 0] = prior[close, best[close]]
        found = seen.search(sphere.pictures, sphere.pooled, prior, shown, extra, extra_prior)
        return Inferred(found.mean, camera, sure)

    def views(self, seen: Noisy, words: Subjects, cameras: Tensor, group: int) -> Inferred:
        """What the views of each group of ``group`` show together: one thing, from an azimuth that is not told.

        cameras (B, 3): the azimuths tell only how the views of a group stand to each other. Each group is read by the words of
        its first view; sides that they tell are not read.
        """
        parts = []
        for g in range(len(words) // group):
            rows = torch.arange(g * group, (g + 1) * group)
            parts.append(self._together(seen.rows(rows), words[g * group], cameras[rows].float(), group))
        mean, camera, sure = (torch.cat([getattr(p, name) for p in parts]) for name in ("mean", "camera", "sure"))
        return Inferred(mean, camera, sure)

    def _together(self, seen: Noisy, subject: Subject, cameras: Tensor, group: int) -> Inferred:
        sphere = self.hypotheses.sphere(subject)
        step = 2 * math.pi / sphere.azimuths
        turns = torch.arange(sphere.azimuths) * step
        asked = cameras[:, None].repeat(1, sphere.azimuths, 1)
        asked[:, :, 0] += turns - cameras[::group].repeat_interleave(group, 0)[:, :1]
        shown = sphere.nearest(asked).unflatten(0, (-1, group))  # (G, V, K)
        prior = torch.full((len(shown), sphere.azimuths), -math.log(sphere.azimuths))
        coarse = posterior.coarse_log_share(seen.z, seen.alpha, seen.v, sphere.pooled, seen.background, prior, shown)
        best = coarse.argmax(1)
        rows = torch.arange(len(best))
        offset = ring_peak(coarse, best)
        turn = (turns[best] + offset * step).repeat_interleave(group)
        camera = cameras.clone()
        camera[:, 0] += turn - cameras[::group].repeat_interleave(group, 0)[:, 0]
        sure = coarse[rows, best].exp().repeat_interleave(group)
        extra = extra_prior = None
        if self.redraw and bool((sure > WORTH_DRAWING).any()):
            extra = self.hypotheses.draw(subject, camera)[:, None]
            extra_prior = prior[rows, best][:, None]
        found = seen.search(sphere.pictures, sphere.pooled, prior, shown, extra, extra_prior)
        return Inferred(found.mean, camera, sure)

    def nothing(self, seen: Noisy, words: Subjects) -> Inferred:
        """What might be seen if no words are told: anything of the vocabulary, and the asked thing from all sides."""
        pictures, pooled = self._anything_or(self.hypotheses.sphere(words[0]))
        asked = len(pictures) - POOL
        prior = torch.cat(
            [
                torch.full((POOL,), math.log((1 - ASKED_SHARE) / POOL)),
                torch.full((asked,), math.log(ASKED_SHARE / asked)),
            ]
        )
        count = len(pictures)
        shown = torch.arange(count).expand(len(seen.z), 1, count)
        found = seen.search(pictures, pooled, prior.expand(len(seen.z), count), shown)
        return Inferred(found.mean, torch.zeros(len(seen.z), 3), found.log_share.amax(1).exp())

    def _anything_or(self, sphere: Sphere) -> tuple[Pictures, Pictures]:
        """The random pictures and then those of a sphere from its middle distance, and both pooled. The last few are kept: a run
        goes to and fro between a thing in colour and in clay."""
        for known, pictures, pooled in self.joined:
            if known is sphere:
                return pictures, pooled
        if self.pool is None:
            self.pool = random_pictures(self.hypotheses, POOL)
        middle = sphere.pictures.drawn.unflatten(0, sphere.shape)[:, :, 1].flatten(0, 1)
        pictures = Pictures(torch.cat([self.pool.drawn, middle]))
        pooled = pictures.pooled(POOLED)
        self.joined = [(sphere, pictures, pooled), *self.joined][: self.hypotheses.spheres]
        return pictures, pooled


def ring_peak(log_share: Tensor, best: Tensor) -> Tensor:
    """How far the peak of a ring's log shares (G, K) lies from its best, in steps."""
    rows, count = torch.arange(len(best)), log_share.shape[1]
    return peak(log_share[rows, (best - 1) % count], log_share[rows, best], log_share[rows, (best + 1) % count])


def random_pictures(hypotheses: Hypotheses, count: int, seed: int = 0) -> Pictures:
    """Pictures of random shapes in random looks from random cameras."""
    g = torch.Generator().manual_seed(seed)
    sizes, drawn = hypotheses.layout.sizes, []
    for k in torch.randint(sizes.shapes, (count,), generator=g).tolist():
        turn, height, distance = torch.rand(3, generator=g).tolist()
        main = int(torch.randint(sizes.looks[0], (1,), generator=g))
        look = torch.cat([torch.eye(n)[main if part == 0 else 0] for part, n in enumerate(sizes.looks)])
        camera = torch.tensor([[2 * math.pi * turn, math.radians(90 * height - 30), 2.3 + 0.4 * distance]])
        shape = torch.zeros(sizes.shapes)
        shape[k] = 1
        drawn.append(hypotheses.draw(Subject(shape, look, torch.ones(3)), camera))
    return Pictures(torch.cat(drawn))
