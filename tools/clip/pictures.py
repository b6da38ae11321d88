"""Pictures for the two CLIPs: drawn views (``draw.py``), painted as a caption says (``tools/prior/paint.py``), then roughened.

A caption is chosen first, then a shape that shows its name and one of the shape's views. So every picture has a caption of its own.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "prior"))

from dataset import DataError
from draw import HELD_OUT_EVERY
from paint import RULE_VIEWS, rules_of, surfaces
from roughen import backgrounds, blurred, grain, junk, moved, uniform
from table import Table, Vocabulary

from dreamfusion.priors.paint import shaded

JUNK_SHARE = 0.05
TONE = 0.06
"""How far each channel of a picture's paint may be off: the judge's red is not exactly the prior's."""
AMBIENT = (0.3, 0.9)


@dataclass
class Batch:
    """pictures (B, 3, S, S) in [0, 1]; row (B,) of its caption in the table and shape (B,), both -1 for junk; look (B, 3)."""

    pictures: Tensor
    row: Tensor
    shape: Tensor
    look: Tensor


class Shown:
    """The latest batches, to be shown once more: to make a picture takes longer than to learn from it."""

    def __init__(self, count: int = 64):
        self.batches: deque[Batch] = deque(maxlen=count)

    def with_old(self, new: Batch, rng: np.random.Generator) -> Batch:
        """``new`` (B pictures) and an earlier batch, 2 B pictures; the first time, ``new`` twice. Sides of 32 and 64 do not mix."""
        if self.batches and self.batches[0].pictures.shape != new.pictures.shape:
            self.batches.clear()
        old = self.batches[rng.integers(len(self.batches))] if self.batches else new
        self.batches.append(new)
        return Batch(*(torch.cat([getattr(new, f.name), getattr(old, f.name)]) for f in fields(Batch)))


class Views:
    """Drawn views in memory: ``pixels`` (V, 6, 64, 64), ``cameras`` (V, 4), of each shape by number the rows of training (``rows``)
    and the held-out ones (``held_out``), and the shapes with pictures that show each name (``shown``)."""

    def __init__(self, folder: Path, vocabulary: Vocabulary):
        """DataError if there are no pictures."""
        self.vocabulary = vocabulary
        files: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*.[0-9]*.npz"), key=lambda p: int(p.suffixes[-2][1:])):
            files.setdefault(path.name.removesuffix("".join(path.suffixes[-2:])), []).append(path)
        self.shapes = [k for k, stem in enumerate(vocabulary.shapes) if stem in files]
        if not self.shapes:
            raise DataError(f"{folder} has no pictures of a shape: draw.py draws them")
        counts = {k: [_count(path) for path in files[vocabulary.shapes[k]]] for k in self.shapes}
        total = sum(map(sum, counts.values()))
        self.pixels, self.cameras = np.empty((total, 6, 64, 64), np.uint8), np.empty((total, 4), np.float32)
        self.rules = np.zeros((len(vocabulary.shapes), 3), np.float32)
        self.rows: dict[int, NDArray[np.int64]] = {}
        self.held_out: dict[int, NDArray[np.int64]] = {}
        first = 0
        for k in self.shapes:
            start, held = first, []
            for path, count in zip(files[vocabulary.shapes[k]], counts[k], strict=True):
                with np.load(path) as stored:
                    self.pixels[first : first + count], self.cameras[first : first + count] = (
                        stored["pixels"],
                        stored["cameras"],
                    )
                held.append(np.arange(count) % HELD_OUT_EVERY == 0)
                first += count
            rows, away = np.arange(start, first), np.concatenate(held)
            self.rows[k], self.held_out[k] = rows[~away], rows[away]
            self.rules[k] = rules_of(self.pixels[start : start + RULE_VIEWS])
        self.shown = [np.array([k for k in some if k in self.rows], np.int64) for some in vocabulary.shown]

    def drawable(self, table: Table) -> NDArray[np.int64]:
        """The captions (by row of the table) whose name is shown."""
        known = np.array([len(shapes) > 0 for shapes in self.shown])
        return np.flatnonzero(known[table.name.numpy()])


def _count(path: Path) -> int:
    with np.load(path) as stored:
        return len(stored["cameras"])


def lit(
    views: Views,
    shapes: NDArray[np.int64],
    rows: NDArray[np.int64],
    look: Tensor,
    ambient: Tensor,
    tone: Tensor,
    side: int = 64,
) -> Tensor:
    """Views by row of shapes (B,) in looks (B, 3): the picture times the coverage, and the coverage, (B, 4, side, side) in [0, 1].

    ambient (B,) is the share of light from everywhere; tone (B, 3) multiplies the paint's channels.
    """
    pixels = torch.from_numpy(views.pixels[rows]).float() / 255
    pixels = F.avg_pool2d(pixels, 64 // side) if side < 64 else pixels
    seen = torch.from_numpy(views.cameras[rows])
    camera = torch.cat([seen[:, :2].deg2rad(), seen[:, 3:]], 1)
    rule, luma, parts = torch.from_numpy(views.rules[shapes]).unbind(1)
    surface, shine = surfaces(pixels, camera, look, luma.clamp_min(0.01), rule, parts, seen[:, 2])
    cover, bare, share = pixels[:, 3:4], pixels[:, 4:5], ambient[:, None, None, None]
    light = share * cover + (1 - share) * bare
    towards = (bare / cover.clamp_min(1 / 255)).clamp(0, 1)
    return torch.cat([shaded(surface * tone[:, :, None, None], shine, light, towards, cover), cover], 1)


def roughened(
    views: Views,
    shapes: NDArray[np.int64],
    rows: NDArray[np.int64],
    look: Tensor,
    flip: Tensor,
    strength: Tensor,
    rng: torch.Generator,
    side: int = 64,
) -> Tensor:
    """Given views in given looks, moved, half transparent, blurred, noisy, over anything: pictures (B, 3, side, side).

    ``strength`` (B,) in [0, 1] is how much of all that a picture gets; 0 leaves mid-gray and light from anywhere.
    """
    size = len(rows)

    def touched() -> Tensor:
        return torch.rand(size, generator=rng) < strength

    tone = 1 + uniform(-TONE, TONE, 3 * size, rng).reshape(size, 3)
    drawn = lit(views, shapes, rows, look, uniform(*AMBIENT, size, rng), tone, side)
    drawn = moved(drawn, flip, strength, rng)
    solid = torch.where(touched() & (torch.rand(size, generator=rng) < 0.3), uniform(0.6, 1.0, size, rng), 1.0)
    drawn = drawn * solid[:, None, None, None]
    behind = torch.full((size, 3, side, side), 0.5)
    other = touched()
    behind[other] = backgrounds(int(other.sum()), rng, side)
    pictures = drawn[:, :3] + (1 - drawn[:, 3:]) * behind
    soft = touched()
    pictures[soft] = blurred(pictures[soft], rng)
    bright = 1 + uniform(-0.15, 0.15, size, rng) * strength
    return (pictures * bright[:, None, None, None] + grain(pictures.shape, strength, rng)).clamp(0, 1)


def drawn_rows(
    views: Views, table: Table, rows: NDArray[np.int64], rng: np.random.Generator, held_out: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A shape (B,) that shows each caption's name, and one of its views (B,)."""
    of = views.held_out if held_out else views.rows
    shapes = np.array([rng.choice(views.shown[name]) for name in table.name[torch.from_numpy(rows)].tolist()])
    return shapes, np.array([rng.choice(of[int(k)]) for k in shapes])


def batch(
    views: Views,
    table: Table,
    among: NDArray[np.int64],
    size: int,
    np_rng: np.random.Generator,
    rng: torch.Generator,
    strength: float = 1.0,
    side: int = 64,
) -> Batch:
    """A random batch for training, roughened by up to ``strength``; captions are of the rows ``among``. It begins with junk."""
    said = np_rng.choice(among, size)
    shapes, rows = drawn_rows(views, table, said, np_rng)
    look = table.look[torch.from_numpy(said)]
    flip = torch.from_numpy(np_rng.random(size) < 0.5)
    pictures = roughened(views, shapes, rows, look, flip, uniform(0, strength, size, rng), rng, side)
    row, shape, count = torch.from_numpy(said), torch.from_numpy(shapes), int(size * JUNK_SHARE)
    pictures[:count] = junk(count, rng, side)
    row[:count], shape[:count] = -1, -1
    return Batch(pictures, row, shape, look)


def plain_pictures(
    views: Views, shapes: NDArray[np.int64], rows: NDArray[np.int64], look: Tensor, gray: float = 0.5
) -> Tensor:
    """Given views as they are, (B, 3, 64, 64): over one gray, half of the light from everywhere."""
    out = []
    for some in np.array_split(np.arange(len(rows)), max(1, len(rows) // 256)):
        half, ones = torch.full((len(some),), 0.5), torch.ones(len(some), 3)
        drawn = lit(views, shapes[some], rows[some], look[torch.from_numpy(some)], half, ones)
        out.append(drawn[:, :3] + (1 - drawn[:, 3:]) * gray)
    return torch.cat(out)


def held_out_batch(views: Views, table: Table, among: NDArray[np.int64], count: int, seed: int) -> Batch:
    """Views that training never shows, always the same ones."""
    rng = np.random.default_rng(seed)
    said = rng.choice(among, count)
    shapes, rows = drawn_rows(views, table, said, rng, held_out=True)
    look, row = table.look[torch.from_numpy(said)], torch.from_numpy(said)
    pictures = plain_pictures(views, shapes, rows, look)
    return Batch(pictures, row, torch.from_numpy(shapes), look)
