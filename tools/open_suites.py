"""The suites of the wide vocabulary: which things in which looks. All choices are by hashes, so they are the same for ever.

``open-153``: 51 looks held out of the prior's training, each of another thing, from all categories in turn; 40 of these things again,
in a look that was shown; 32 more things in shown looks, and 30 plain ones. A quarter of the looks each is a colour, a material, a
pattern, and two colours. ``open-wide``, to rank among: every name, plain and in ``LOOKS_A_NAME`` looks, and all of ``open-153``.
``instances-24``: names that four or more shapes show.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "prior"))

from captions import usual
from looks import Look, held_out
from models import CATEGORIES, Name, generals, read_models, read_names, spread

from dreamfusion.priors.appearance import (
    COLOURS,
    MAINS,
    MATERIALS,
    PATTERN_WORDS,
    PATTERNS,
    PLAIN,
    PROPORTION_WORDS,
    PROPORTIONS,
    WHOLE,
)

Item = tuple[str, Look]

NEW, TWINS, SHOWN, BARE = 51, 40, 32, 30
LOOKS_A_NAME = 2
INSTANCES, SHAPES = 24, 4
HOMOGRAPHS = frozenset(
    "bat bow bull cap claymore clover column comb compass cooktop crater dart diploma dock fan gear glasses hangar "
    "heart hoe inn keep key king market match mortar pen pie pier portal punk quiver ranger ring shower skater "
    "stable star swing tablet tank torch trailer village well".split()
)  # fmt: skip
"""Names that a reader may take for something else, or that have no shape of their own."""
NOT_THINGS = frozenset(
    "half sliced slice chopped raw burnt open closed crushed cracked fried broken lying sitting folded hanging pile row stack group "
    "bundle pallet bag roll plate pan pot bucket set and with in on character number".split()
)
"""Names with such a word are states and groups of things, which pictures of 64 x 64 hardly tell from the things."""


def shuffled(things: Iterable[str], seed: str) -> list[str]:
    """In the order of their hashes: random, and the same for ever."""
    return sorted(things, key=lambda thing: hashlib.sha256(f"{seed} {thing}".encode()).digest())


@cache
def candidates(name: str) -> list[list[Look]]:
    """Looks of a thing of each sort that ``looks.draw_look`` draws, but plain and clay: a colour, a material, a pattern, and two
    colours (one such look for each main one)."""
    two = []
    for main in COLOURS:
        second, pattern = hashlib.sha256(f"two {main} {name}".encode()).digest()[:2]
        others, patterns = [c for c in COLOURS if c != main], [p for p in PATTERNS if p not in WHOLE]
        two.append(Look(main, others[second % len(others)], patterns[pattern % len(patterns)]))
    patterned = [Look(PLAIN, "" if pattern in WHOLE else "white", pattern) for pattern in PATTERN_WORDS]
    return [[Look(main) for main in COLOURS], [Look(main) for main in MATERIALS], patterned, two]


def has_words(phrase: str, part: str) -> bool:
    """Whether the words of ``part`` stand in ``phrase`` one after the other."""
    return f" {part} " in f" {phrase} "


@cache
def readable(names: tuple[Name, ...]) -> list[str]:
    """Names that mean one thing: no homograph, no kind of thing that has kinds of its own in the vocabulary, without words of looks or
    groups, and with no other thing's name in it ("dog house"), but that of its kind ("office chair")."""
    table, kinds = {name.name: name for name in names}, {name.kind for name in names}
    looks = {*MAINS, *PATTERNS, *PROPORTIONS, *(w for m in MATERIALS.values() for w in m.words)} - {""}
    looks |= {word for more in (PATTERN_WORDS, PROPORTION_WORDS) for words in more.values() for word in words}
    means = {f" {word} ": name.name for name in names for word in (name.name, *name.synonyms)}
    out = []
    for name in names:
        own, phrase = {name.name, *generals(name.name, table)}, f" {name.name} "
        # As ``has_words`` finds them, but quicker: this is asked millions of times.
        strange = any(word in phrase and of not in own for word, of in means.items())
        said = any(has_words(name.name, word) for word in looks) or NOT_THINGS & set(name.name.split())
        if name.name not in kinds | HOMOGRAPHS and not strange and not said:
            out.append(name.name)
    return out


def by_category(names: Iterable[str], table: dict[str, Name], seed: str, count: int) -> list[str]:
    """``count`` names, one of each category in turn, by hashes."""
    groups = [[n for n in shuffled(names, seed) if table[n].category == category] for category in CATEGORIES]
    return spread(groups, count)


def least_used(name: str, looks: Iterable[Look], used: Counter[str]) -> Look:
    """The look whose paints and patterns were taken least so far, so that all appear about equally often."""
    by_words = {repr(look): look for look in looks}
    chosen = min(shuffled(by_words, name), key=lambda words: sum(used[part] for part in parts(by_words[words])))
    used.update(parts(by_words[chosen]))
    return by_words[chosen]


def parts(look: Look) -> list[str]:
    """The main paint and the pattern that a look has."""
    return [part for part in (look.main, look.pattern) if part]


@cache
def open_153() -> dict[str, list[Item]]:
    """The items of ``open-153``: new, shown and plain."""
    table = read_names()
    free = readable(tuple(table.values()))
    used = Counter[str]()
    things = by_category(free, table, "open", NEW + SHOWN + BARE)
    # Plain names come from those without a kind: a plain oak is a plain tree too.
    plain = [n for n in reversed(things) if not table[n].kind][:BARE]
    things = [n for n in things if n not in plain]

    def look(name: str, k: int, new: bool) -> Look:
        sorts = candidates(name)
        found = (([x for x in sorts[(k + j) % 4] if held_out(name, x) == new]) for j in range(4))
        return least_used(name, next(filter(None, found)), used)

    first = [n for n in things if any(held_out(n, x) for looks in candidates(n) for x in looks)][:NEW]
    rest = [n for n in things if n not in first]
    new = [(name, look(name, k, True)) for k, name in enumerate(first)]
    shown = [(name, look(name, k, False)) for k, name in enumerate([*first[:TWINS], *rest])]
    return {"new": new, "shown": shown, "plain": [(name, Look()) for name in plain]}


@cache
def open_wide() -> list[Item]:
    """The items of ``open-wide``. No other name that is true of a thing of ``open-153`` stands in its look."""
    table, used = read_names(), Counter[str]()
    few = [item for items in open_153().values() for item in items]
    taken = {(general, look) for name, look in few for general in generals(name, table)}
    out = [*few, *((name, Look()) for name in table if (name, Look()) not in few)]
    for k, name in enumerate(table):
        for j in range(LOOKS_A_NAME):
            sort = candidates(name)[(k + j) % 4]
            have = [look for other, look in out[-LOOKS_A_NAME:] if other == name]
            free = [x for x in sort if (name, x) not in taken and (name, x) not in few and x not in have]
            out.append((name, least_used(name, free, used)))
    return out


def instances_24() -> list[Item]:
    """Plain names that four or more models of their own show, from all categories in turn."""
    table = read_names()
    own = Counter(model.name for model in read_models() if model.name)
    many = [n for n in readable(tuple(table.values())) if own[n] >= SHAPES]
    return [(name, Look()) for name in by_category(many, table, "instances", INSTANCES)]


def items() -> dict[str, dict[str, Item]]:
    """What the prompts of each suite mean: suite -> prompt -> name and look."""
    table = read_names()
    found = {
        "open-153": [item for some in open_153().values() for item in some],
        "open-wide": open_wide(),
        "instances-24": instances_24(),
    }
    return {suite: {usual(table[n], look): (n, look) for n, look in some} for suite, some in found.items()}


def suites() -> dict[str, list[str]]:
    """The prompts of each suite, mixed, so that the first few are a fair sample of it."""
    return {suite: shuffled(prompts, "order") for suite, prompts in items().items()}
