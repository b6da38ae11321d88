"""Which prompts name a thing that has a front (``fronts.txt``): only those can have too many of them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

LIST = Path(__file__).with_name("fronts.txt")


@cache
def reviewed() -> dict[str, bool]:
    """Every reviewed name, and whether it has a front."""
    found: dict[str, bool] = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            found |= {name.strip(): line[0] == "+" for name in line[1:].split(",")}
    return found


def words(text: str) -> str:
    """The words of a text one space apart, without other signs: 'Sci-fi pistol!' -> 'sci fi pistol'."""
    return " ".join(re.sub(r"[^a-z0-9']+", " ", text.lower()).split())


@cache
def _by_words() -> dict[str, bool]:
    return {words(name): front for name, front in reviewed().items()}


def has_front(prompt: str) -> bool | None:
    """Whether the thing a prompt names has a front; None where no reviewed name is in it.

    Of several names in a prompt the longest counts ('a rocking horse' is no horse), then the last.
    """
    text = f" {words(prompt)} "
    places = {name: text.rfind(f" {name} ") for name in _by_words()}
    found = [name for name, place in places.items() if place >= 0]
    if not found:
        return None
    return _by_words()[max(found, key=lambda name: (len(name.split()), places[name]))]
