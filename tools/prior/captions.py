"""What people call things: random captions for the readers of words, and the usual caption of a look of a thing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from looks import Look, draw_look, held_out
from models import Name

from dreamfusion.priors.appearance import (
    CLAY,
    COLOURS,
    MATERIALS,
    PATTERN_WORDS,
    PLAIN,
    PROPORTION_WORDS,
    PROPORTIONS,
    WHOLE,
)

VIEWS = ("", "front", "side", "back", "overhead")
TEMPLATES = (
    "{}", "{}", "{}", "a photo of {}", "a 3d model of {}", "a dslr photo of {}", "a render of {}", "a low poly model of {}",
    "{}, highly detailed", "a picture of {}",
)  # fmt: skip
IDLE = (
    "small",
    "large",
    "big",
    "tiny",
    "old",
    "new",
    "beautiful",
    "cute",
    "detailed",
    "realistic",
    "simple",
    "modern",
    "nice",
    "fancy",
)
"""Words that the prior has no pictures for; they must not mislead it."""
PARTS = (
    "roof", "door", "wheels", "legs", "eyes", "handle", "top", "lid", "tail", "wings", "hat", "seat", "base", "buttons", "edges",
    "window", "nose", "ears", "leaves", "shoes", "trim",
)  # fmt: skip
PLACES = (
    "on a table",
    "on the ground",
    "in the snow",
    "in a forest",
    "on a white background",
    "in a room",
    "at night",
    "in the sun",
)


PLAIN_LOOK = Look()
VOWEL = re.compile(r"[aeio]|u(?!fo|ni|ri|te|ti)|hour")
"""How words begin that take 'an': 'an umbrella' and 'an hourglass', but 'a ufo' and 'a utility vehicle'."""


@dataclass(frozen=True)
class Caption:
    """A text and what it says: the name, the look, the proportion, and whether training pictures show that look of it."""

    text: str
    name: str
    look: Look
    proportion: str
    held_out: bool


def with_article(words: str, plain: bool = False) -> str:
    """'a red armchair', 'an orange chair', and ``plain`` 'red sneakers'."""
    if plain:
        return words
    return ("an " if VOWEL.match(words) else "a ") + words


def usual(name: Name, look: Look = PLAIN_LOOK) -> str:
    """The usual caption of a look of a thing: 'a red and white striped armchair'."""
    said = f"{adjectives(look)} {name.name}".strip()
    said = with_article(said, name.name in name.plain)
    return f"a clay model of {said}" if look.main == CLAY else said


def adjectives(look: Look) -> str:
    """The words of a look that stand in front of the noun: 'red and white striped'."""
    main = "" if look.main in (PLAIN, CLAY) else look.main
    shows_second = look.second and not (look.main == PLAIN and look.second == "white")
    return " ".join(filter(None, [main, f"and {look.second}" if shows_second and main else "", look.pattern]))


def draw_caption(names: dict[str, Name], rng: np.random.Generator, name: str = "") -> Caption:
    """A random caption of a random thing, or of the one given."""
    entry = names[name or str(rng.choice(list(names)))]
    noun = entry.name if not entry.synonyms or rng.random() < 0.6 else str(rng.choice(entry.synonyms))
    look = draw_look(entry.name, rng, hold_out=False)
    proportion = str(rng.choice(list(PROPORTIONS)[1:])) if rng.random() < 0.12 else ""
    before, after = _words_of_look(look, rng)
    shape = _one_of(proportion, PROPORTION_WORDS, rng) if proportion else ""
    idle = str(rng.choice(IDLE)) if rng.random() < 0.2 else ""
    front = [idle, shape, before] if rng.random() < 0.7 else [shape, idle, before]
    phrase = with_article(" ".join(filter(None, [*front, noun])), noun in entry.plain)
    phrase = " ".join(filter(None, [phrase, after, _tail(names, rng)]))
    if look.main == CLAY:
        phrase = "a clay model of " + phrase
    elif rng.random() < 0.4:
        phrase = str(rng.choice(TEMPLATES)).format(phrase)
    elif rng.random() < 0.15:
        phrase = phrase.removeprefix("an ").removeprefix("a ")
    if rng.random() < 0.5:
        view = str(rng.choice(VIEWS[1:]))
        phrase = f"{'an' if view == 'overhead' else 'a'} {view} view of {phrase}"
    return Caption(phrase, entry.name, look, proportion, held_out(entry.name, look))


def _one_of(name: str, more: dict[str, tuple[str, ...]], rng: np.random.Generator) -> str:
    """The name, or one of the other words for it."""
    others = more.get(name, ())
    return str(rng.choice(others)) if others and rng.random() < 0.4 else name


def _words_of_look(look: Look, rng: np.random.Generator) -> tuple[str, str]:
    """One way to say a look: the words in front of the noun and those behind it."""
    if look.main == CLAY:  # clay hides every look, whatever the words say: textureless views are asked so
        hidden = draw_look("", rng, hold_out=False)
        return _words_of_look(hidden, rng) if hidden.main != CLAY else ("", "")
    if look.main in MATERIALS:
        material = MATERIALS[look.main]
        if material.words and rng.random() < 0.3:
            noun = material.words[0]
            return ("", f"made of {noun}") if rng.random() < 0.4 else (str(rng.choice(material.words)), "")
        return look.main, ""
    main = look.main
    if main and not look.second and rng.random() < 0.12:  # paint on a material is what is seen
        return f"{main} {rng.choice(['wooden', 'metal', 'leather', 'stone'])}", ""
    if not look.pattern:
        if not look.second:
            return main, ""
        return (f"{main} and {look.second}", "") if rng.random() < 0.8 else ("", f"in {main} and {look.second}")
    word = _one_of(look.pattern, PATTERN_WORDS, rng)
    if look.pattern in WHOLE:
        return word, ""
    if main == PLAIN:
        return word, ""
    if look.second == "white" and rng.random() < 0.3:
        return f"{main} {word}", ""
    things = {"striped": "stripes", "dotted": "dots", "checkered": "squares"}
    if rng.random() < 0.3:
        return main, f"with {look.second} {things[look.pattern]}"
    return f"{main} and {look.second} {word}", ""


def _tail(names: dict[str, Name], rng: np.random.Generator) -> str:
    """Words behind the noun that say nothing of the thing's own name and paint."""
    u = rng.random()
    if u < 0.07:
        return f"with a {rng.choice(list(COLOURS))} {rng.choice(PARTS)}"
    if u < 0.11:
        return f"with {rng.choice(PARTS)}"
    if u < 0.15:
        return f"on a {rng.choice(list(names))}"
    if u < 0.20:
        return str(rng.choice(PLACES))
    return ""
