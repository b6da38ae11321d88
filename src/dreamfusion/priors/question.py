"""What a prior is asked: words and a view, and what to move away from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..view.view import View
from .prior_settings import Asks


class Words(ABC):
    """Captions as one prior reads them, a row each. Only that prior looks inside."""

    @abstractmethod
    def __len__(self) -> int:
        """How many captions they are."""

    @abstractmethod
    def rows(self, index: Sequence[int]) -> Self:
        """A choice of rows."""

    @abstractmethod
    def blend(self, other: Self, share: Tensor) -> Self:
        """(1 - share) of these words and ``share`` (B,) of the other's, row by row."""


@dataclass(frozen=True)
class Tokens(Words):
    """tokens: (B, L, D) float embeddings; mask: (B, L) bool, true where a token stands; pooled: (B, P) embeddings of whole
    captions, for priors that want them."""

    tokens: Tensor
    mask: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: Sequence[int]) -> Tokens:
        chosen = torch.tensor(index, device=self.tokens.device)
        return Tokens(self.tokens[chosen], self.mask[chosen], None if self.pooled is None else self.pooled[chosen])

    def blend(self, other: Tokens, share: Tensor) -> Tokens:
        share = share.to(self.tokens)
        tokens = torch.lerp(self.tokens, other.tokens, share[:, None, None])
        pooled = None
        if self.pooled is not None and other.pooled is not None:
            pooled = torch.lerp(self.pooled, other.pooled, share[:, None])
        return Tokens(tokens, self.mask | other.mask, pooled)

    def to(self, device: torch.device | str) -> Tokens:
        """The same words on another device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return Tokens(self.tokens.to(device), self.mask.to(device), pooled)


def stacked(words: Sequence[Tokens]) -> Tokens:
    """All rows in one batch; the shorter ones are padded."""
    length = max(w.tokens.shape[1] for w in words)

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(len(x), length - x.shape[1], *x.shape[2:])], 1)

    pooled = [w.pooled for w in words if w.pooled is not None]
    return Tokens(
        torch.cat([padded(w.tokens) for w in words]),
        torch.cat([padded(w.mask) for w in words]),
        torch.cat(pooled) if len(pooled) == len(words) else None,
    )


@dataclass(frozen=True)
class Question:
    """One row a picture of ``view``.

    words: what the pictures shall show; asks: what the prior may use of the view ('words' nothing, 'camera' all,
    'views' how the looks of a group stand to each other). Of the background it gets ``view.plain_background``.
    nothing: words that replace "nothing" in guidance (a negative prompt), None for the prior's own; repelled: words
    to move away from, each with its weights (B,) (Perp-Neg).
    """

    words: Words
    view: View
    asks: Asks = "camera"
    nothing: Words | None = None
    repelled: tuple[tuple[Words, Tensor], ...] = ()

    def of(self, words: Words) -> Question:
        """The same question about other words."""
        return replace(self, words=words)
