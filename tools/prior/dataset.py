"""The drawn views in memory, and random batches of pictures of them (see ``render.py`` and ``paint.py``)."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from looks import Look, draw_look, held_out
from models import read_models, stem_of
from numpy.typing import NDArray
from paint import RULE_VIEWS, compose, rules_of
from torch import Tensor

SHAPES_A_NAME = 4
VALIDATION_EVERY = 16
"""One view in so many of each shape is never trained on."""


class DataError(ValueError):
    """A data folder that cannot be used; the message is one line."""


@dataclass
class Batch:
    """Pictures of G looks of shapes, V views of each following one another, B = G V.

    pictures (B, 3, S, S) in [-1, 1] over mid-gray; cover (B, 1, S, S) in [0, 1]; camera (B, 3) radians, radians, distance;
    shape (G,) by number; look (G, 3) as ``Look.numbers``.
    """

    pictures: Tensor
    cover: Tensor
    camera: Tensor
    shape: Tensor
    look: Tensor


def shown_by(folder: Path, most: int = SHAPES_A_NAME, left_out: Collection[str] = ()) -> dict[str, list[str]]:
    """The shapes that show each name: the first ``most`` of those in ``instances.json``, without those that are ``left_out``."""
    path = folder / "instances.json"
    if not path.is_file():
        raise DataError(f"{folder} has no instances.json: build_dataset.py --models writes it")
    found: dict[str, list[str]] = json.loads(path.read_text())
    return {name: [stem for stem in stems[:most] if stem not in left_out] for name, stems in found.items()}


def choose_left_out(shown: dict[str, list[str]], own: dict[str, str], count: int) -> dict[str, str]:
    """``count`` shapes that a training is not to see, each under its ``own`` name (by shape): the same ones every time. No name loses
    more than one shape, or its only one. DataError if there are not so many."""
    rng, out, touched = np.random.default_rng(0), {}, set[str]()
    by_shape = {stem: [name for name in shown if stem in shown[name]] for stem in shapes_of(shown)}
    for name in rng.permutation(sorted(shown)).tolist():
        may = [
            stem
            for stem in shown[name]
            if own[stem] == name and all(len(shown[n]) > 1 and n not in touched for n in by_shape[stem])
        ]
        if may and len(out) < count:
            out[name] = may[int(rng.integers(len(may)))]
            touched.update(by_shape[out[name]])
    if len(out) < count:
        raise DataError(f"--leave-out {count} is too many: {len(out)} names can spare a shape")
    return out


def left_out_of(run: Path) -> dict[str, str]:
    """The shapes that a training never sees, by name, as ``fit.py --leave-out`` writes them."""
    path = run / "left-out.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def own_names() -> dict[str, str]:
    """The own name of every model's shape."""
    return {stem_of(model.file): model.name for model in read_models()}


def shapes_of(shown: dict[str, list[str]]) -> list[str]:
    """All shapes, in a fixed order; a shape's number is its place here."""
    return sorted({stem for stems in shown.values() for stem in stems})


class Data:
    """Drawn views in memory."""

    def __init__(self, folder: Path, left_out: Collection[str] = ()):
        """Without the shapes that are ``left_out``. DataError if another one has no pictures."""
        self.shown = shown_by(folder, left_out=left_out)
        self.shapes = shapes_of(self.shown)
        self.name = own_names()
        self.mine = np.arange(len(self.shapes))
        files = {
            int(k): sorted(folder.glob(f"{self.shapes[k]}.[0-9]*.npz"), key=lambda p: int(p.suffixes[-2][1:]))
            for k in self.mine
        }
        if missing := [self.shapes[k] for k, paths in files.items() if not paths]:
            raise DataError(
                f"{folder} has no pictures of {missing[0]} and {len(missing) - 1} more: go on with build_dataset.py"
            )
        counts = {k: [_count(path) for path in paths] for k, paths in files.items()}
        total = sum(sum(c) for c in counts.values())
        self.pixels = np.empty((total, 6, 64, 64), np.uint8)
        self.cameras = np.empty((total, 3), np.float32)
        self.rows: dict[int, NDArray[np.int64]] = {}
        self.validation: dict[int, NDArray[np.int64]] = {}
        self.rules = np.zeros((len(self.shapes), 3), np.float32)
        first = 0
        for k, paths in files.items():
            start = first
            for path in paths:
                with np.load(path) as stored:
                    last = first + len(stored["cameras"])
                    self.pixels[first:last], self.cameras[first:last] = stored["pixels"], stored["cameras"]
                first = last
            rows = np.arange(start, first)
            kept = rows % VALIDATION_EVERY == 0
            self.rows[k], self.validation[k] = rows[~kept], rows[kept]
            self.rules[k] = rules_of(self.pixels[start : start + RULE_VIEWS])

    def held_out_batch(self, size: int, seed: int, new_looks: bool) -> Batch:
        """Views that are never trained on, in looks that are held out for their things, or in others; always the same ones."""
        rng = np.random.default_rng(seed)
        shapes = rng.choice(self.mine, size)
        looks = []
        for k in shapes:
            look = draw_look(self.name[self.shapes[k]], rng)
            while held_out(self.name[self.shapes[k]], look) != new_looks:
                look = draw_look("", rng, hold_out=False)
            looks.append(look)
        return self.make(shapes, looks, np.array([rng.choice(self.validation[int(k)]) for k in shapes]))

    def make(self, shapes: NDArray[np.int64], looks: list[Look], rows: NDArray[np.int64], side: int = 64) -> Batch:
        """The batch of given shapes, looks, and views by row. Fewer pixels are means over blocks; they are painted faster."""
        pixels = F.avg_pool2d(torch.from_numpy(self.pixels[rows]).float() / 255, 64 // side)
        camera = torch.from_numpy(self.cameras[rows])
        camera = torch.cat([camera[:, :2].deg2rad(), camera[:, 2:]], 1)
        look, views = torch.tensor([look.numbers for look in looks]), len(rows) // len(shapes)
        rule, luma, parts = torch.from_numpy(self.rules[shapes]).repeat_interleave(views, 0).unbind(1)
        pictures = compose(pixels, camera, look.repeat_interleave(views, 0), luma.clamp_min(0.01), rule, parts)
        return Batch(pictures, pixels[:, 3:4], camera, torch.from_numpy(shapes), look)


def _count(path: Path) -> int:
    with np.load(path) as stored:
        return len(stored["cameras"])
