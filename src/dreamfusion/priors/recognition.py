"""Which thing, in which look, from where: the posterior over the layout's latents, given one clean picture.

The picture's outline is compared with stored outlines of all shapes from all round. The likeliest are drawn small, and compared
whatever their colours; the best of these are drawn from cameras around, nearer and farther; the best of those in every paint. The
picture's own scale, place, light and exposure are free: both sides are compared in the frame of what is compared. The model is that of
``posterior``, x = draw(shape, look, camera) + scatter, at noise level zero. Its scatter is not independent from pixel to
pixel, so a picture counts as ``INDEPENDENT`` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..view.cameras import Cameras
from .layout import COVER, Layout, Light
from .outlines import SIDE, boxes, framed, nearest_cameras, outline_cameras, shape_of
from .paint import AMBIENT, luminance
from .subjects import CLAY_PAINT, Subject, plain_look

SHAPES, SIDES = 240, 3
"""How many shapes are drawn, and from how many sides: an outline looks nearly the same from behind."""
TURNED, SCANNED, PAINTS = 40, 16, 3
"""How many of these shapes are drawn from cameras around; how many of the best then from all round, for the outline of what is round
says nothing of its side, and in every paint; and how many paints of each shape are kept."""
ASIDE_DEG = 7.5
"""How far beside a likely camera a shape is drawn too: a slab seen from its edge changes much in half a step of the stored azimuths."""
SMALL, COMPARED, FULL = 24, 32, 64
"""Pixels a side of drawings without paint, of what is compared at most, and of drawings in a paint."""
ROUNDS = ((11.0, 9.0, 1.3), (5.5, 4.5, 1.14), (2.5, 2.0, 1.07))
CLOSER = ((2.5, 2.0, 1.07), (1.2, 1.0, 1.03))
"""Steps of the cameras around, as long as the paint is unknown and then in the paint: degrees of azimuth and elevation, and a factor of
the distance."""
LIGHTS_DEG = ((30.0, 0.0), (5.0, 0.0), (10.0, 60.0), (10.0, -60.0), (70.0, 0.0))
"""Key lights that a picture may have been taken in: degrees above the camera and around it. The first is that of the data."""
EXPOSURES = 0.6, 1.6
"""How much darker or brighter than a drawing the picture may be."""
NEAREST, FARTHEST = 2.1, 5.0
SPREAD, INDEPENDENT = 0.12, 60
COVER_WEIGHT = 3.0
FILL = 0.9
"""How much of the frame of a comparison is filled."""


@dataclass(frozen=True)
class Recognised:
    """What a picture shows: the likeliest hypotheses with their shares, those of the likeliest shape first, and the camera (3,) of the
    first."""

    shapes: tuple[int, ...]
    mains: tuple[int, ...]
    shares: tuple[float, ...]
    camera: Tensor

    def sure(self) -> float:
        """The share of the first shape, in whatever paint."""
        return sum(share for shape, share in zip(self.shapes, self.shares, strict=True) if shape == self.shapes[0])

    def subject(self, layout: Layout) -> Subject:
        """The best shape, in the shares of the looks that it may have: of two colours the mean is one, of two shapes it is none."""
        shape = F.one_hot(torch.tensor(self.shapes[0]), layout.sizes.shapes).float()
        best = [(m, s) for k, m, s in zip(self.shapes, self.mains, self.shares, strict=True) if k == self.shapes[0]]
        looks = torch.stack([share * plain_look(layout.sizes.looks, main) for main, share in best])
        return Subject(shape, looks.sum(0) / sum(share for _, share in best), torch.ones(3))


@dataclass(frozen=True)
class Guess:
    """A shape from a camera (3,) in one of ``LIGHTS_DEG``, and how far it is from the picture: in a main paint, or, as long as that is
    None, whatever its colours."""

    shape: int
    camera: Tensor
    error: float
    light: int = 0
    main: int | None = None


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
        found = best_of([paint for guess in found for paint in self._painted(wanted, guess)], SCANNED)
        for step in CLOSER:
            found = [self._turned(wanted, guess, step) for guess in found]
        found = [paint for guess in found for paint in self._painted(wanted, guess)[:PAINTS]]
        log = torch.tensor([-guess.error * INDEPENDENT / (2 * SPREAD**2) for guess in found])
        if allowed is not None:
            log = log + torch.tensor([float(allowed[guess.shape]) for guess in found]).clamp_min(1e-6).log()
        share = log.softmax(0)
        of_shape: dict[int, float] = {}
        for guess, value in zip(found, share.tolist(), strict=True):
            of_shape[guess.shape] = of_shape.get(guess.shape, 0.0) + value
        order = sorted(range(len(found)), key=lambda k: (-of_shape[found[k].shape], -float(share[k])))
        kept = [k for k in order if share[k] > 0.01]
        total = sum(float(share[k]) for k in kept)
        return Recognised(
            tuple(found[k].shape for k in kept), tuple(found[k].main or 0 for k in kept),
            tuple(float(share[k]) / total for k in kept), found[kept[0]].camera,
        )  # fmt: skip

    def _by_outline(self, wanted: Wanted, allowed: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """The shapes with the best outlines, each with its best cameras (SIDES, 3)."""
        away, cameras = nearest_cameras(self.stored, wanted.framed(SIDE, 1.0)[COVER].numpy())
        if allowed is not None:
            away[allowed.numpy() < 0.01] = 2.0  # 1 is farthest
        for k in away.min(1).argsort()[:SHAPES].tolist():
            if away[k].min() <= 1:
                yield k, cameras[k, away[k].argsort()[:SIDES].tolist()]

    def _drawn(self, wanted: Wanted, likely: Iterator[tuple[int, Tensor]]) -> list[Guess]:
        """Shapes from their likely cameras and a little beside them, the best of each."""
        beside = torch.tensor([[turn, 0.0, 0.0] for turn in (-ASIDE_DEG, 0.0, ASIDE_DEG)]).deg2rad()
        return [
            self._best(wanted, Guess(shape, cameras[0], math.inf), (cameras[:, None] + beside).flatten(0, 1))
            for shape, cameras in likely
        ]

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
        """The best of cameras (V, 3) for a guess's shape, in its paint and light if it has a paint, else in the best light."""
        if guess.main is not None:
            lamp, thing = Light(lights_of(cameras)[guess.light]), shape_of(self.layout, guess.shape)
            drawn = self.layout.draw(thing, self._look(guess.main), cameras, FULL, light=lamp).float()
            errors = wanted.errors(wanted.exposed(drawn))
            best = int(errors.argmin())
            return replace(guess, camera=cameras[best], error=float(errors[best]))
        lights = self._colourless(wanted, guess.shape, cameras)
        light, best = divmod(int(lights.argmin()), len(cameras))
        return replace(guess, camera=cameras[best], light=light, error=float(lights[light, best]))

    def _colourless(self, wanted: Wanted, shape: int, cameras: Tensor) -> Tensor:
        """Errors (L, V) of a shape in each light from cameras (V, 3): in its own colours, or in these with another tint, whichever is
        less."""
        met = self.layout.hits(shape_of(self.layout, shape), cameras, SMALL)
        shade = AMBIENT + (1 - AMBIENT) * torch.einsum("lni,ni->ln", lights_of(cameras)[:, met.view], met.normal).clamp(
            0, 1
        )
        lit = met.albedo.clamp(0, 1) * met.opacity[:, None] * shade[..., None]  # (L, N, 3)
        seen = met.pictures(torch.cat([*lit, met.opacity[:, None]], 1))
        seen = framed(seen, boxes(seen[:, -1]), SMALL, FILL)
        colours = seen[:, :-1].unflatten(1, (-1, 3)).transpose(0, 1).flatten(0, 1)
        drawn = _over_gray(colours, seen[:, -1:].repeat(len(lit), 1, 1, 1))
        errors = torch.minimum(wanted.framed_errors(wanted.exposed(drawn)), wanted.framed_errors(wanted.tinted(drawn)))
        return errors.view(len(lit), -1)

    def _painted(self, wanted: Wanted, guess: Guess) -> list[Guess]:
        """A guess in every paint, in its light, the best first."""
        mains = [m for m in range(self.layout.sizes.looks[0]) if m != CLAY_PAINT]
        looks = torch.cat([self._look(main) for main in mains])
        thing = shape_of(self.layout, guess.shape)
        met = self.layout.meet(thing, guess.camera[None], FULL, light=self._light(guess))
        errors = wanted.errors(wanted.exposed(self.layout.colour(met, looks, thing.paint).float()))
        painted = [replace(guess, main=mains[k], error=float(error)) for k, error in enumerate(errors)]
        return sorted(painted, key=lambda guess: guess.error)

    def _light(self, guess: Guess) -> Light:
        """The light of a guess."""
        return Light(lights_of(guess.camera[None])[guess.light])

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

    def framed(self, side: int, fill: float = FILL) -> Tensor:
        """The picture in its frame, (4, side, side)."""
        return framed(self.picture, self.box, side, fill)[0]

    def errors(self, drawn: Tensor) -> Tensor:
        """Mean squared errors (N,) of drawn pictures (N, 4, R, R); the coverage counts more."""
        side = min(drawn.shape[-1], COMPARED)
        return self.framed_errors(framed(drawn, boxes(drawn[:, 3]), side, FILL))

    def framed_errors(self, theirs: Tensor) -> Tensor:
        """The same of drawn pictures that are in their frames."""
        return ((theirs - self.framed(theirs.shape[-1])).square() * self.weight).mean((1, 2, 3))

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
    """Directions (L, V, 3) to each of ``LIGHTS_DEG``, from cameras (V, 3)."""
    azimuth, elevation, distance = cameras.float().unbind(-1)
    right, up, back = Cameras(azimuth, elevation, distance, torch.ones_like(distance)).axes()
    above, around = torch.tensor(LIGHTS_DEG).deg2rad()[:, :, None, None].unbind(1)
    return right * around.sin() * above.cos() + up * above.sin() + back * around.cos() * above.cos()
