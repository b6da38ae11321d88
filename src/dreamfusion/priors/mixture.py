"""Several priors at once, '0.7*A + 0.3*B': each is asked at its own resolution, their directions are added.

A mixture has no space of its own, so it predicts no noise; ``distillation.direction`` asks its parts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from .prior import Condition, Prior

TERM = re.compile(r"^(?P<share>[0-9]*\.?[0-9]+)\s*\*\s*(?P<id>\S.*)$")
PLUS = re.compile(r"\s\+(?:\s|$)")


def is_mixture(id: str) -> bool:
    """Whether an id means a mixture (and not a folder with a plus in its name)."""
    return bool(TERM.match(id.strip())) or any(TERM.match(part.strip()) for part in PLUS.split(id))


def parse_mixture(id: str) -> list[tuple[float, str]]:
    """'0.7*A + 0.3*B' as [(0.7, 'A'), (0.3, 'B')]. UserError where a term does not parse or a share is not above 0."""
    terms = []
    for text in PLUS.split(id):
        found = TERM.match(text.strip())
        if not found or float(found["share"]) <= 0:
            raise UserError(
                f"the mixture {id!r} does not parse at {text.strip()!r}; "
                "write SHARE*PRIOR + SHARE*PRIOR, such as 0.7*bundled + 0.3*hf:OWNER/NAME"
            )
        terms.append((float(found["share"]), found["id"].strip()))
    return terms


@dataclass(frozen=True)
class MixedCondition(Condition):
    """One condition a part; its own tokens are the first part's."""

    parts: tuple[Condition, ...] = ()

    @classmethod
    def of(cls, parts: tuple[Condition, ...]) -> MixedCondition:
        """Hold the conditions of all parts together."""
        return cls(parts[0].tokens, parts[0].mask, camera=parts[0].camera, repelled=parts[0].repelled, parts=parts)

    def rows(self, index: Tensor) -> MixedCondition:
        return self.of(tuple(p.rows(index) for p in self.parts))

    def with_camera(self, camera: Tensor | None) -> MixedCondition:
        return self.of(tuple(p.with_camera(camera) for p in self.parts))

    def with_background(self, background: Tensor | None) -> MixedCondition:
        return self.of(tuple(p.with_background(background) for p in self.parts))

    def blended(self, other: Condition, share: Tensor) -> MixedCondition:
        return self.of(tuple(p.blended(q, share) for p, q in zip(self.parts, parts_of(other), strict=True)))

    def against(self, nothing: Condition | None, repelled: tuple[tuple[Condition, Tensor], ...] = ()) -> MixedCondition:
        changed = []
        for k, part in enumerate(self.parts):
            away = tuple((parts_of(words)[k], weight) for words, weight in repelled)
            changed.append(part.against(None if nothing is None else parts_of(nothing)[k], away))
        return self.of(tuple(changed))


def parts_of(condition: Condition) -> tuple[Condition, ...]:
    """The parts of a mixed condition."""
    assert isinstance(condition, MixedCondition)
    return condition.parts


class Mixture:
    """Priors with their shares."""

    def __init__(self, terms: list[tuple[float, Prior]]):
        self.terms = terms
        self.id = " + ".join(f"{share:g}*{prior.id}" for share, prior in terms)
        self.hash = hashlib.sha256("".join(f"{share:g}*{prior.hash}" for share, prior in terms).encode()).hexdigest()
        self.resolution = max(prior.resolution for _, prior in terms)

    def embed(self, captions: list[str]) -> MixedCondition:
        """Each part embeds the captions its own way."""
        return MixedCondition.of(tuple(prior.embed(captions) for _, prior in self.terms))

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """(count, values of all parts in a row)."""
        return (count, sum(torch.Size(prior.noise_shape(1)).numel() for _, prior in self.terms))

    def split(self, condition: Condition, noise: Tensor) -> Iterator[tuple[float, Prior, Condition, Tensor]]:
        """(share, prior, its condition, its noise) of each part."""
        shapes = [prior.noise_shape(len(noise)) for _, prior in self.terms]
        pieces = noise.split([torch.Size(shape[1:]).numel() for shape in shapes], 1)
        for (share, prior), words, piece, shape in zip(self.terms, parts_of(condition), pieces, shapes, strict=True):
            yield share, prior, words, piece.reshape(shape)

    def info(self) -> dict[str, object]:
        """What the parts say, each under its share."""
        return {f"{share:g}*{p.id}": p.info() if hasattr(p, "info") else p.hash for share, p in self.terms}
