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


def fronts() -> frozenset[str]:
    """The names that have a front."""
    return frozenset(name for name, front in reviewed().items() if front)


def has_front(prompt: str) -> bool | None:
    """Whether the thing a prompt names has a front; None where no reviewed name is in it.

    Of several names in a prompt the longest counts ('a rocking horse' is no horse), then the last.
    """
    words = re.sub(r"[^a-z0-9']+", " ", prompt.lower()).split()
    text = f" {' '.join(words)} "
    places = {name: text.rfind(f" {name} ") for name in reviewed()}
    found = [name for name, place in places.items() if place >= 0]
    if not found:
        return None
    return reviewed()[max(found, key=lambda name: (len(name.split()), places[name]))]
