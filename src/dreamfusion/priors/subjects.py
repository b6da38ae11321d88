"""What the bundled prior understands of captions: which shapes, in which looks, stretched how, seen from which side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .question import Words

CLAY_PAINT = 1
"""The main paint that stands for no paint; nobody takes a photograph of it."""


@dataclass(frozen=True)
class Subject:
    """One of ``Subjects``: shares of shapes (I,) and of looks (K,), and the stretch (3,)."""

    shape: Tensor
    look: Tensor
    stretch: Tensor

    @cached_property
    def thing(self) -> tuple:
        """Something to look the thing up by, whatever its look."""
        return key_of(self.shape), tuple(round(100 * x) for x in self.stretch.tolist())

    @cached_property
    def key(self) -> tuple:
        """Something to look all of it up by."""
        return *self.thing, key_of(self.look)


@dataclass(frozen=True)
class Subjects(Words):
    """A row for each caption: shares of shapes (B, I) that add up to one, shares of looks (B, K) of which each part adds up to
    one, stretches along x, y and z (B, 3), and how much each of ``inference.SIDES`` is told (B, 4); no side: zeros."""

    shape: Tensor
    look: Tensor
    stretch: Tensor
    sides: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, row: int) -> Subject:
        """One row, on the CPU."""
        return Subject(self.shape[row].cpu(), self.look[row].cpu(), self.stretch[row].cpu())

    def rows(self, index: Sequence[int]) -> Subjects:
        chosen = torch.tensor(index, device=self.shape.device)
        return Subjects(self.shape[chosen], self.look[chosen], self.stretch[chosen], self.sides[chosen])

    def blend(self, other: Subjects, share: Tensor) -> Subjects:
        share = share.to(self.shape)[:, None]
        mine = self.shape, self.look, self.stretch, self.sides
        theirs = other.shape, other.look, other.stretch, other.sides
        return Subjects(*(torch.lerp(a, b, share) for a, b in zip(mine, theirs, strict=True)))

    def to(self, device: torch.device | str) -> Subjects:
        """The same words on another device."""
        return Subjects(self.shape.to(device), self.look.to(device), self.stretch.to(device), self.sides.to(device))


def asks_clay(captions: Sequence[str]) -> Tensor:
    """Which captions ask for a model in clay, (B, 1)."""
    return torch.tensor([[bool(re.search(r"\bclay models? of\b", caption, re.IGNORECASE))] for caption in captions])


def plain_look(parts: Sequence[int], main: int) -> Tensor:
    """The look (K,) of one main paint, no second colour and no pattern. ``parts`` as ``Sizes.looks``."""
    return torch.cat([torch.eye(n)[main if part == 0 else 0] for part, n in enumerate(parts)])


def clay_look(parts: Sequence[int]) -> Tensor:
    """The look (K,) of clay."""
    return plain_look(parts, CLAY_PAINT)


def rounded(share: Tensor) -> Tensor:
    """Shares (B, N) in whole per cent that add up to one: captions that mean the same share their pictures."""
    some = (share * 100).round()
    some = torch.where(some.sum(-1, keepdim=True) > 0, some, share)
    return some / some.sum(-1, keepdim=True).clamp_min(1e-9)


def key_of(share: Tensor) -> tuple[tuple[int, int], ...]:
    """A share (N,) as something that can be looked up."""
    some = share.nonzero()[:, 0].tolist()
    return tuple((k, round(1000 * float(share[k]))) for k in some)
