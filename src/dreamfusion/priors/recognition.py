"""Which thing, in which look, from where: the posterior over the layout's latents, given one clean picture.

The picture's outline is compared with stored outlines of all shapes from all round. The likeliest are drawn small, and compared
whatever their colours; the best of these are drawn from cameras around, nearer and farther; the best of those in every paint. The
picture's own scale, place, light and exposure are free: both sides are compared in the frame of what is compared. The model is that of
``posterior``, x = draw(shape, look, camera) + scatter, at noise level zero. Its scatter is not independent from pixel to
pixel, so a picture counts as ``INDEPENDENT`` pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..view.cameras import Cameras
from .layout import COVER, Layout, Light
from .outlines import SIDE, boxes, differences, framed, outline_cameras, shape_of
from .paint import luminance
from .subjects import CLAY_PAINT, Subject, plain_look

SHAPES, SIDES = 160, 3
"""How many shapes are drawn, and from how many of their stored cameras: an outline looks nearly the same from behind."""
TURNED, SCANNED, SURE = 40, 12, 8
"""How many of these shapes are drawn from cameras around; how many of the best then from all round, for the outline of what is round
says nothing of its side, and in every paint; and how many of the painted ones are drawn in full at the end."""
SMALL, PAINTED_SIDE, FULL_SIDE = 24, 32, 64
"""Pixels a side of drawings."""
ROUNDS = ((11.0, 9.0, 1.3), (5.5, 4.5, 1.14), (2.5, 2.0, 1.07))
"""Steps of the cameras around: degrees of azimuth and elevation, and a factor of the distance."""
LIGHTS_DEG = ((30.0, 0.0), (5.0, 0.0), (10.0, 60.0), (10.0, -60.0), (70.0, 0.0))
"""Key lights that a picture may have been taken in: degrees above the camera and around it. The first is that of the data."""
EXPOSURES = 0.6, 1.6
"""How much darker or brighter than a drawing the picture may be."""
NEAREST, FARTHEST = 2.1, 5.0
SPREAD, INDEPENDENT = 0.12, 60
COVER_WEIGHT = 3.0


@dataclass(frozen=True)
class Recognised:
    """What a picture shows: the likeliest hypotheses with their shares, best first, and the camera (3,) of the best."""

    shapes: tuple[int, ...]
    mains: tuple[int, ...]
    shares: tuple[float, ...]
    camera: Tensor

    def subject(self, layout: Layout) -> Subject:
        """The best shape, in the shares of the looks that it may have: of two colours the mean is one, of two shapes it is none."""
        shape = F.one_hot(torch.tensor(self.shapes[0]), layout.sizes.shapes).float()
        best = [(m, s) for k, m, s in zip(self.shapes, self.mains, self.shares, strict=True) if k == self.shapes[0]]
        looks = torch.stack([share * plain_look(layout.sizes.looks, main) for main, share in best])
        return Subject(shape, looks.sum(0) / sum(share for _, share in best), torch.ones(3))


@dataclass(frozen=True)
class Guess:
    """A shape in a paint from a camera (3,) in one of ``LIGHTS_DEG``, and how far it is from the picture."""

    shape: int
    main: int
    camera: Tensor
    error: float
    light: int = 0


def best_of(guesses: Sequence[Guess], count: int) -> list[Guess]:
    """The best guess of each of the best shapes."""
    best: dict[int, Guess] = {}
    for guess in sorted(guesses, key=lambda guess: guess.error):
        best.setdefault(guess.shape, guess)
    return list(best.values())[:count]


class Recogniser:
    """Recognises pictures, given a layout and the stored ``outlines`` of its shapes."""

    def __init__(self, layout: Layout, stored: Tensor):
        self.layout, self.stored = layout, stored.numpy()

    @torch.no_grad()
    def __call__(self, picture: Tensor, allowed: Tensor | None = None) -> Recognised:
        """What a picture shows: (4, S, S), colours over mid-gray in [-1, 1] and the coverage in [0, 1]. ``allowed`` (I,): shares
        of shapes that are known already, from words."""
        wanted = Wanted(picture)
        found = best_of(self._drawn(wanted, self._by_outline(wanted, allowed)), TURNED)
        found = best_of([self._turned(wanted, guess, ROUNDS[0]) for guess in found], SCANNED)
        found = [self._scanned(wanted, guess) for guess in found]
        for step in ROUNDS[1:]:
            found = [self._turned(wanted, guess, step) for guess in found]
        found = self._in_full(wanted, self._painted(wanted, found))
        log = torch.tensor([-guess.error * INDEPENDENT / (2 * SPREAD**2) for guess in found])
        if allowed is not None:
            log = log + torch.tensor([float(allowed[guess.shape]) for guess in found]).clamp_min(1e-6).log()
        share = log.softmax(0)
        order = share.argsort(descending=True).tolist()
        kept = [k for k in order if share[k] > 0.01]
        total = sum(float(share[k]) for k in kept)
        return Recognised(
            tuple(found[k].shape for k in kept), tuple(found[k].main for k in kept),
            tuple(float(share[k]) / total for k in kept), found[order[0]].camera,
        )  # fmt: skip

    def _by_outline(self, wanted: Wanted, allowed: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """The shapes with the best outlines, each with its best cameras (SIDES, 3)."""
        away = differences(self.stored, wanted.framed(SIDE, 1.0)[COVER].numpy())
        if allowed is not None:
            away[allowed.numpy() < 0.01] = 2.0  # 1 is farthest
        cameras = outline_cameras()
        for k in away.min(1).argsort()[:SHAPES].tolist():
            if away[k].min() <= 1:
                yield k, cameras[away[k].argsort()[:SIDES].tolist()]

    def _drawn(self, wanted: Wanted, likely: Iterator[tuple[int, Tensor]]) -> list[Guess]:
        """Shapes from their likely cameras."""
        out = []
        for shape, cameras in likely:
            errors = self._colourless(wanted, shape, cameras)
            out += [Guess(shape, 0, c, e) for c, e in zip(cameras, errors.tolist(), strict=True)]
        return out

    def _scanned(self, wanted: Wanted, guess: Guess) -> Guess:
        """The best of a guess and its shape from all round."""
        cameras = torch.cat([guess.camera[None], outline_cameras()])
        return self._best(wanted, guess, cameras)

    def _turned(self, wanted: Wanted, guess: Guess, step: tuple[float, float, float]) -> Guess:
        """The best of a guess and those from cameras around it."""
        around = torch.tensor([[a, e, 0.0] for a in (-step[0], 0, step[0]) for e in (-step[1], 0, step[1])]).deg2rad()
        guess = self._best(wanted, guess, guess.camera + around)
        moved = guess.camera.repeat(3, 1)
        moved[:, 2] = (moved[:, 2] * torch.tensor([1.0, step[2], 1 / step[2]])).clamp(NEAREST, FARTHEST)
        return self._best(wanted, guess, moved)

    def _best(self, wanted: Wanted, guess: Guess, cameras: Tensor) -> Guess:
        """The best of cameras (V, 3) for a guess's shape."""
        errors = self._colourless(wanted, guess.shape, cameras)
        best = int(errors.argmin())
        return replace(guess, camera=cameras[best], error=float(errors[best]))

    def _colourless(self, wanted: Wanted, shape: int, cameras: Tensor) -> Tensor:
        """Errors (V,) of a shape from cameras (V, 3): in its own colours, or in these with another tint, whichever is less."""
        thing = shape_of(self.layout, shape)
        drawn = self.layout.draw(thing, self._look(0), cameras, SMALL).float()
        return torch.minimum(wanted.errors(drawn), wanted.errors(wanted.tinted(drawn)))

    def _painted(self, wanted: Wanted, guesses: list[Guess]) -> list[Guess]:
        """The best of the guesses in every paint, each in the light that suits its shape."""
        mains = [m for m in range(self.layout.sizes.looks[0]) if m != CLAY_PAINT]
        looks = torch.cat([self._look(main) for main in mains])
        out: list[Guess] = []
        for guess in guesses:
            thing = shape_of(self.layout, guess.shape)
            cameras = guess.camera.expand(len(LIGHTS_DEG), 3)
            met = self.layout.meet(thing, cameras, PAINTED_SIDE, light=Light(lights_of(cameras)))
            lit = self.layout.colour(met, self._look(0), thing.paint).float()
            light = int(wanted.errors(wanted.tinted(lit)).argmin())
            drawn = self.layout.colour(met[light : light + 1], looks, thing.paint).float()
            errors = wanted.errors(wanted.exposed(drawn)).tolist()
            out += [
                replace(guess, main=main, error=error, light=light) for main, error in zip(mains, errors, strict=True)
            ]
        return sorted(out, key=lambda guess: guess.error)[:SURE]

    def _in_full(self, wanted: Wanted, guesses: list[Guess]) -> list[Guess]:
        """The guesses with the errors of full drawings."""
        out = []
        for guess in guesses:
            thing, look = shape_of(self.layout, guess.shape), self._look(guess.main)
            light = Light(lights_of(guess.camera.expand(len(LIGHTS_DEG), 3))[guess.light : guess.light + 1])
            drawn = self.layout.draw(thing, look, guess.camera[None], FULL_SIDE, light=light).float()
            out.append(replace(guess, error=float(wanted.errors(wanted.exposed(drawn)))))
        return out

    def _look(self, main: int) -> Tensor:
        """The look (1, K) of a main paint alone."""
        return plain_look(self.layout.sizes.looks, main)[None]


class Wanted:
    """A picture (4, S, S) that drawings are compared with, each in the frame of what it shows."""

    def __init__(self, picture: Tensor):
        self.picture, self.box = picture[None], boxes(picture[None, 3])
        self.mean = _colours(self.picture)[2]
        """The mean colour (1, 3) of what it shows."""
        self.weight = torch.tensor([1.0, 1.0, 1.0, COVER_WEIGHT])[None, :, None, None]

    def framed(self, side: int, fill: float = 0.9) -> Tensor:
        """The picture in its frame, (4, side, side)."""
        return framed(self.picture, self.box, side, fill)[0]

    def errors(self, drawn: Tensor) -> Tensor:
        """Mean squared errors (N,) of drawn pictures (N, 4, R, R); the coverage counts more."""
        side = min(drawn.shape[-1], PAINTED_SIDE)
        theirs = framed(drawn, boxes(drawn[:, 3]), side, 0.9)
        return ((theirs - self.framed(side)).square() * self.weight).mean((1, 2, 3))

    def tinted(self, drawn: Tensor) -> Tensor:
        """Drawn pictures (N, 4, R, R) in one tint, with their own light and dark and the mean colour of the picture."""
        colours, cover, mean = _colours(drawn)
        light = luminance(colours)
        gain = self.mean / luminance(mean[:, :, None, None])[:, :, 0, 0].clamp_min(0.02)
        return _over_gray(light * gain[:, :, None, None], cover)

    def exposed(self, drawn: Tensor) -> Tensor:
        """Drawn pictures (N, 4, R, R) with their mean brightness made that of the picture, within ``EXPOSURES``."""
        colours, cover, mean = _colours(drawn)
        gain = (self.mean / mean.clamp_min(0.02)).mean(1).clamp(*EXPOSURES)
        return _over_gray(colours * gain[:, None, None, None], cover)


def _colours(drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colours over black (N, 3, R, R), coverage (N, 1, R, R) and mean colours (N, 3) of what is covered, of (N, 4, R, R)."""
    cover = drawn[:, 3:]
    colours = (drawn[:, :3] + cover) / 2  # times the coverage
    return colours, cover, colours.sum((2, 3)) / cover.sum((2, 3)).clamp_min(1e-3)


def _over_gray(colours: Tensor, cover: Tensor) -> Tensor:
    """Colours over black, which are not brighter than white, in front of mid-gray, (N, 4, R, R)."""
    return torch.cat([2 * torch.minimum(colours, cover) - cover, cover], 1)


def lights_of(cameras: Tensor) -> Tensor:
    """Directions (V, 3) to each of ``LIGHTS_DEG``, from as many cameras (V, 3)."""
    azimuth, elevation, distance = cameras.float().unbind(-1)
    right, up, back = Cameras(azimuth, elevation, distance, torch.ones_like(distance)).axes()
    above, around = torch.tensor(LIGHTS_DEG).deg2rad()[:, :, None].unbind(1)
    return right * around.sin() * above.cos() + up * above.sin() + back * around.cos() * above.cos()
