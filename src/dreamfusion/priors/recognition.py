"""Which thing, in which look, from where: the posterior over the layout's latents, given one clean picture.

The picture's outline is compared with stored outlines of all shapes from all round; for the best, pictures in every paint; for the
best of those, cameras in between. The picture's own scale and place are free: both sides are compared in the frame of what is
compared. The model is that of ``posterior``, x = draw(shape, look, camera) + scatter, at noise level zero. Its scatter is not
independent from pixel to pixel, so a picture counts as ``INDEPENDENT`` pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import COVER, Layout, Thing
from .subjects import CLAY_PAINT, Subject

AZIMUTHS, ELEVATIONS_DEG = 16, (0.0, 20.0, 45.0)
SIDE = 16
"""Pixels a side of an outline, which fills its frame."""
SHAPES, SIDES, PAINTED, REFINED = 32, 5, 20, 4
"""How many shapes are drawn, and from how many of their stored cameras; how many of these drawings are painted in every paint; how
many of the painted ones are looked at from cameras in between. An outline looks nearly the same from behind, so several sides
have to be painted."""
STEPS_DEG = ((11.0, 9.0), (5.0, 4.0))
SPREAD, INDEPENDENT = 0.12, 60
COVER_WEIGHT = 3.0
DISTANCE = 2.5


@dataclass(frozen=True)
class Recognised:
    """What a picture shows: the likeliest hypotheses with their shares, best first, and the camera (3,) of the best."""

    shapes: tuple[int, ...]
    mains: tuple[int, ...]
    shares: tuple[float, ...]
    camera: Tensor

    def subject(self, layout: Layout) -> Subject:
        """The hypotheses as shares of shapes and looks."""
        sizes = layout.sizes
        shape, look = torch.zeros(sizes.shapes), torch.zeros(sum(sizes.looks))
        for k, main, share in zip(self.shapes, self.mains, self.shares, strict=True):
            shape[k] += share
            look[main] += share
        for first in torch.tensor(sizes.looks).cumsum(0)[:-1].tolist():
            look[first] = 1.0  # no second colour, no pattern
        return Subject(shape, look, torch.ones(3))


def outline_cameras() -> Tensor:
    """The cameras (C, 3) of the stored outlines, elevation by elevation."""
    turn = torch.arange(AZIMUTHS) * (2 * math.pi / AZIMUTHS)
    e, a = torch.meshgrid(torch.tensor(ELEVATIONS_DEG).deg2rad(), turn, indexing="ij")
    return torch.stack([a, e, torch.full_like(a, DISTANCE)], -1).flatten(0, 1)


def boxes(cover: Tensor) -> Tensor:
    """Middle x, middle y and half of the longer side (N, 3) of what is covered in (N, H, W), in [-1, 1] of the picture."""
    inside = cover > 0.5
    inside = inside | ((cover >= cover.amax((1, 2), keepdim=True)) & ~inside.any(2, keepdim=True).any(1, keepdim=True))
    out = []
    for along in (1, 2):  # columns, rows
        hit = inside.any(along).float()
        size = hit.shape[1]
        first = hit.argmax(1)
        last = size - 1 - hit.flip(1).argmax(1)
        out.append(((first + last + 1) / size - 1, (last - first + 1) / size))
    (x, w), (y, h) = out
    return torch.stack([x, y, torch.maximum(w, h)], 1)


def framed(pictures: Tensor, box: Tensor, side: int, fill: float = 1.0) -> Tensor:
    """Pictures (N, C, H, W) cut to boxes (N, 3), which fill so much of the new frame; empty beyond the edges."""
    theta = torch.zeros(len(pictures), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = box[:, 2] / fill
    theta[:, :, 2] = box[:, :2]
    grid = F.affine_grid(theta.to(pictures), [len(pictures), pictures.shape[1], side, side], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def shape_of(layout: Layout, number: int) -> Thing:
    """One shape, whatever names it."""
    return layout.thing(F.one_hot(torch.tensor(number), layout.sizes.shapes).float())


@torch.no_grad()
def outlines(layout: Layout, shapes: Tensor) -> Tensor:
    """Outlines of shapes (S,) by number from ``outline_cameras``, (S, C, 32): one bit a pixel."""
    cameras, out = outline_cameras(), []
    for k in shapes.tolist():
        found = layout.meet(shape_of(layout, k), cameras, 2 * SIDE)[:, COVER]
        cut = framed(found[:, None], boxes(found), SIDE)[:, 0] > 0.5
        out.append(np.packbits(cut.flatten(1).numpy(), axis=1))
    return torch.from_numpy(np.stack(out))


class Recogniser:
    """Recognises pictures, given a layout and the stored ``outlines`` of its shapes."""

    def __init__(self, layout: Layout, stored: Tensor):
        self.layout, self.stored = layout, stored.numpy()

    @torch.no_grad()
    def __call__(self, picture: Tensor, allowed: Tensor | None = None) -> Recognised:
        """What a picture shows: (4, S, S), colours over mid-gray in [-1, 1] and the coverage in [0, 1]. ``allowed`` (I,): shares
        of shapes that are known already, from words."""
        box = boxes(picture[None, 3])
        found = self._by_outline(framed(picture[None, 3:], box, SIDE)[0, 0], allowed)
        painted = self._painted(picture, box, found)
        for step in STEPS_DEG:
            painted = self._refined(picture, box, painted, step)
        log = torch.tensor([-p.error * INDEPENDENT / (2 * SPREAD**2) for p in painted])
        if allowed is not None:
            log = log + torch.tensor([float(allowed[p.shape]) for p in painted]).clamp_min(1e-6).log()
        share = log.softmax(0)
        order = share.argsort(descending=True).tolist()
        kept = [k for k in order if share[k] > 0.01]
        total = sum(float(share[k]) for k in kept)
        return Recognised(
            tuple(painted[k].shape for k in kept), tuple(painted[k].main for k in kept),
            tuple(float(share[k]) / total for k in kept), painted[order[0]].camera,
        )  # fmt: skip

    def _by_outline(self, outline: Tensor, allowed: Tensor | None) -> list[Guess]:
        """The shapes with the best outlines, each from its best two cameras."""
        wanted = outline.flatten().numpy()
        bits = np.unpackbits(self.stored, axis=2).astype(np.float32)
        away = (bits.sum(2) + wanted.sum() - 2 * bits @ wanted) / SIDE**2  # (I, C)
        if allowed is not None:
            away = away + 1e3 * (allowed.numpy() < 0.01)[:, None]
        best = away.min(1).argsort()[:SHAPES]
        cameras = outline_cameras()
        return [
            Guess(int(k), 0, cameras[c], float(away[k, c]))
            for k in best
            for c in away[k].argsort()[:SIDES]
            if away[k, c] < 1e3
        ]

    def _painted(self, picture: Tensor, box: Tensor, guesses: list[Guess]) -> list[Guess]:
        """The guesses in every paint, of the shapes whose full outlines fit best."""
        layout, met = self.layout, []
        for guess in guesses:
            found = layout.meet(shape_of(layout, guess.shape), guess.camera[None])
            cover = found[:, COVER]
            ours = framed(picture[None, 3:], box, 32)[0, 0]
            met.append((float((framed(cover[:, None], boxes(cover), 32)[0, 0] - ours).square().mean()), guess, found))
        met.sort(key=lambda item: item[0])
        out: list[Guess] = []
        mains = [m for m in range(layout.sizes.looks[0]) if m != CLAY_PAINT]
        for _, guess, found in met[:PAINTED]:
            looks = torch.cat([self._look(main) for main in mains])
            drawn = layout.colour(found, looks, layout.paint[guess.shape])
            errors = self._errors(picture, box, drawn)
            out += [replace(guess, main=main, error=float(e)) for main, e in zip(mains, errors, strict=True)]
        out.sort(key=lambda guess: guess.error)
        return out[: 8 * REFINED]

    def _refined(self, picture: Tensor, box: Tensor, guesses: list[Guess], step: tuple[float, float]) -> list[Guess]:
        """The best guesses from cameras around theirs; the others as they are."""
        out = list(guesses)
        for place in range(min(REFINED, len(guesses))):
            guess = guesses[place]
            around = torch.tensor(
                [[a, e, 0.0] for a in (-step[0], 0, step[0]) for e in (-step[1], 0, step[1])]
            ).deg2rad()
            cameras = guess.camera + around
            thing = shape_of(self.layout, guess.shape)
            errors = self._errors(picture, box, self.layout.draw(thing, self._look(guess.main), cameras))
            best = int(errors.argmin())
            out[place] = replace(guess, camera=cameras[best], error=float(errors[best]))
        return sorted(out, key=lambda guess: guess.error)

    def _look(self, main: int) -> Tensor:
        """The look (1, K) of a main paint alone."""
        sizes = self.layout.sizes.looks
        parts = [F.one_hot(torch.tensor([k]), size) for k, size in zip((main, 0, 0), sizes, strict=True)]
        return torch.cat(parts, 1).float()

    def _errors(self, picture: Tensor, box: Tensor, drawn: Tensor) -> Tensor:
        """Mean squared errors (N,) of drawn pictures (N, 4, 64, 64) in the frame of what they show; the coverage counts more."""
        drawn = drawn.float()
        theirs = framed(drawn, boxes(drawn[:, 3]), 32, 0.9)
        ours = framed(picture[None], box, 32, 0.9)
        weight = torch.tensor([1.0, 1.0, 1.0, COVER_WEIGHT])[None, :, None, None]
        return ((theirs - ours).square() * weight).mean((1, 2, 3))


@dataclass(frozen=True)
class Guess:
    """A shape in a paint from a camera, and how far it is from the picture."""

    shape: int
    main: int
    camera: Tensor
    error: float
