"""Several priors at once, '0.7*A + 0.3*B': each is asked at its own resolution, and their directions are added."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from .prior import Frozen, Prior, Unknown
from .prior_id import absolute
from .question import Question, Words

TERM = re.compile(r"^(?P<share>[0-9]*\.?[0-9]+)\s*\*\s*(?P<id>\S.*)$")
PLUS = re.compile(r"\s\+(?:\s|$)(?!\s*(?:lora|config|variant):)")
"""Between terms; what follows 'lora:' and the like belongs to its term (``prior_id``)."""


def is_mixture(id: str) -> bool:
    """Whether an id means a mixture (and not a folder with a plus in its name)."""
    return bool(TERM.match(id.strip())) or any(TERM.match(part.strip()) for part in PLUS.split(id))


def parse_mixture(id: str) -> list[tuple[float, str]]:
    """'0.7*A + 0.3*B' as [(0.7, 'A'), (0.3, 'B')]. UserError if a term does not parse or a share is not above 0."""
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


def absolute_id(id: str) -> str:
    """An id, of a mixture or not, whose paths mean the same from every folder."""
    if not is_mixture(id):
        return absolute(id)
    terms = parse_mixture(id)
    if all(absolute(part) == part for _, part in terms):
        return id
    return " + ".join(f"{share!r}*{absolute(part)}" for share, part in terms)


def pinned_id(id: str, prior: object) -> str:
    """The id of a prior that was loaded, with the revision of what came from the hub: it means the same tomorrow."""
    if isinstance(prior, Mixture) and "hf:" in id:
        parts = zip(parse_mixture(id), prior.terms, strict=True)
        return " + ".join(f"{share!r}*{pinned_id(part, own)}" for (share, part), (_, own) in parts)
    return str(prior.id) if id.startswith("hf:") and isinstance(prior, Frozen) else id


@dataclass(frozen=True)
class MixedWords(Words):
    """The words of each part."""

    parts: tuple[Words, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def rows(self, index: Sequence[int]) -> MixedWords:
        return MixedWords(tuple(p.rows(index) for p in self.parts))

    def blend(self, other: MixedWords, share: Tensor) -> MixedWords:
        return MixedWords(tuple(p.blend(q, share) for p, q in zip(self.parts, other.parts, strict=True)))


def part_of(words: Words, k: int) -> Words:
    """What part k of a mixture reads."""
    assert isinstance(words, MixedWords)
    return words.parts[k]


class Mixture(Prior):
    """Priors with their shares. Its space is the product of theirs: z (B, N) holds the values of all parts in a row.

    A gradient that goes back through ``encode`` is weighted by each part's share, so that score distillation adds the
    parts' directions up. Whatever a rule measures over all of z (thresholds, spreads), it measures over all parts together.
    """

    def __init__(self, terms: list[tuple[float, Prior]]):
        self.terms = terms
        self.id = " + ".join(f"{share:g}*{prior.id}" for share, prior in terms)
        self.hash = hashlib.sha256("".join(f"{share:g}*{prior.hash}" for share, prior in terms).encode()).hexdigest()
        self.resolution = max(prior.resolution for _, prior in terms)
        self.device = terms[0][1].device
        self.joint = all(prior.joint for _, prior in terms)
        self.reads_camera = any(prior.reads_camera for _, prior in terms)
        self.knows_depth = all(prior.knows_depth for _, prior in terms)

    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> MixedWords:
        """Each part reads the captions its own way."""
        return MixedWords(tuple(prior.embed(captions, images) for _, prior in self.terms))

    def unknown_words(self, prompt: str) -> list[Unknown]:
        return [unknown for _, prior in self.terms for unknown in prior.unknown_words(prompt)]

    @property
    def names(self) -> list[str]:
        return [name for _, prior in self.terms for name in prior.names]

    def unread(self, caption: str) -> str:
        return max((prior.unread(caption) for _, prior in self.terms), key=len)

    def _sizes(self) -> list[int]:
        return [torch.Size(prior.noise_shape(1)).numel() for _, prior in self.terms]

    def split(self, z: Tensor) -> list[Tensor]:
        """z (B, N) as each part has it."""
        pieces = z.split(self._sizes(), 1)
        return [x.reshape(p.noise_shape(len(z))) for x, (_, p) in zip(pieces, self.terms, strict=True)]

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, sum(self._sizes()))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Each (B, N): parts may have schedules of their own."""
        levels = [prior.alpha_sigma(t) for _, prior in self.terms]
        alpha, sigma = (
            torch.cat([x[:, None].expand(-1, size) for x, size in zip(part, self._sizes(), strict=True)], 1)
            for part in zip(*levels, strict=True)
        )
        return alpha, sigma

    def encode(self, picture: Tensor) -> Tensor:
        parts = [(share, prior.encode(picture).flatten(1)) for share, prior in self.terms]
        return torch.cat([_weighted(z, share) for share, z in parts], 1)

    def decode(self, z: Tensor) -> Tensor:
        """The parts' pictures, weighted by their shares, at the mixture's resolution."""
        total = sum(share for share, _ in self.terms)
        pictures = [
            torch.nn.functional.interpolate(prior.decode(part), (self.resolution,) * 2, mode="bilinear")
            * (share / total)
            for (share, prior), part in zip(self.terms, self.split(z), strict=True)
        ]
        return torch.stack(pictures).sum(0)

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        answers = []
        for k, ((_, prior), part) in enumerate(zip(self.terms, self.split(z_t), strict=True)):
            own = question.of(part_of(question.words, k))
            asked = [
                own.words if words is question.words else None if words is None else part_of(words, k)
                for words in about
            ]
            answers.append([x.flatten(1) for x in prior.predict_noise(part, t, own, asked)])
        return tuple(torch.cat(parts, 1) for parts in zip(*answers, strict=True))

    def rows_apart(self, about: Sequence[Words | None]) -> bool:
        return all(prior.rows_apart(about) for _, prior in self.terms)

    def of_instance(self, instance: int) -> Mixture:
        return Mixture([(share, prior.of_instance(instance)) for share, prior in self.terms])

    def info(self) -> dict[str, object]:
        """What the parts are, each with its share."""
        return {f"{share:g}*{prior.id}": prior.info() for share, prior in self.terms}


def _weighted(z: Tensor, share: float) -> Tensor:
    """z itself, through which gradients go back multiplied by ``share``."""
    return z.detach() + share * (z - z.detach()) if z.requires_grad else z
