"""What stands where in a caption: its words, the things that it names, the one paint that it says, what is said behind."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .appearance import COLOURS, MATERIALS, PATTERN_WORDS

BEHIND = frozenset(
    "with without on in under at near beside by inside behind next wearing holding carrying from for that which made".split()
)
"""Words that begin what is said behind a thing."""
PAINTED = frozenset("with in made of and a polka stripes dots spots squares checks pattern".split())
"""Words that, beside those of ``looks``, say how the whole thing looks: 'with white dots', 'in red and blue', 'made of wood'."""


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return "".join(c if c.isalnum() or c in "'-" else " " for c in text.lower()).split()


@dataclass(frozen=True)
class Named:
    """A known name among a text's words, from word ``first`` up to word ``last``, which is not part of it."""

    name: str
    first: int
    last: int


def named(words: list[str], names: Collection[str]) -> list[Named]:
    """The known names among words, in their order: the longest first ('a desk lamp' names no desk). Names that follow one
    another are one thing, the last ('a toy train table')."""
    known = names if isinstance(names, (set, frozenset, dict)) else set(names)
    most = max((len(name.split()) for name in known), default=0)
    found: list[Named] = []
    at = 0
    while at < len(words):
        size = next((n for n in range(min(most, len(words) - at), 0, -1) if " ".join(words[at : at + n]) in known), 0)
        if size:
            joined = bool(found) and found[-1].last == at
            found = [*(found[:-1] if joined else found), Named(" ".join(words[at : at + size]), at, at + size)]
        at += max(size, 1)
    return found


def phrases() -> dict[str, str]:
    """{words: the colour, material or pattern that they say}, 'sky blue' among them."""
    said = {word: word for word in (*COLOURS, *MATERIALS, *PATTERN_WORDS)}
    return said | {word: name for name, material in MATERIALS.items() for word in material.words}


def looks() -> dict[str, str]:
    """The ``phrases`` of one word."""
    return {word: name for word, name in phrases().items() if " " not in word}


def tail_of(caption: str, names: Collection[str]) -> str:
    """What is said behind the thing that a caption names first, and not of the whole thing's look: 'with a red roof' of 'a small
    wooden house with a red roof'; '' of 'a bowl with white dots', and where no thing is named."""
    words = words_of(caption)
    found = named(words, names)
    if not found:
        return ""
    begin = next((k for k in range(found[0].last, len(words)) if words[k] in BEHIND), None)
    if begin is None:
        return ""
    tail = " ".join(words[begin:])
    rest = f" {tail} "
    for phrase in phrases():
        if " " in phrase:  # 'in sky blue' is a look too
            rest = rest.replace(f" {phrase} ", " ")
    return "" if all(word in PAINTED or word in looks() for word in rest.split()) else tail


def without_tail(caption: str, names: Collection[str]) -> str:
    """The caption up to its ``tail_of``, in words without punctuation; as it is where it has none."""
    tail = tail_of(caption, names)
    return " ".join(words_of(caption)).removesuffix(tail).strip() if tail else caption


def paint_of(caption: str, names: Collection[str]) -> str:
    """The colour or material that a caption says of its thing, if it says exactly one and no pattern; else ''."""
    words = words_of(caption)
    rest = [w for k, w in enumerate(words) if not any(n.first <= k < n.last for n in named(words, names))]
    text, said = f" {' '.join(rest)} ", set()
    for phrase, name in sorted(phrases().items(), key=lambda item: -len(item[0])):  # 'sky blue' is not blue
        if f" {phrase} " in text:
            text = text.replace(f" {phrase} ", " ")
            said.add(name)
    only = next(iter(said)) if len(said) == 1 else ""
    return "" if only in PATTERN_WORDS or set(rest) & {*PAINTED} - {"a", "of", "made", "in"} else only
