"""Random looks, and which ones training never shows of a thing. ``dreamfusion.priors.appearance`` says what looks there are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from dreamfusion.priors.appearance import CLAY, COLOURS, MAINS, MATERIALS, PATTERNS, PLAIN, SECONDS, WHOLE

HELD_OUT_SHARE = 0.15
SHARES = {"clay": 0.12, "plain": 0.28, "colour": 0.35, "material": 0.25}
PATTERNED = 0.35


@dataclass(frozen=True)
class Look:
    """One of ``MAINS``, of ``SECONDS`` and of ``PATTERNS``."""

    main: str = PLAIN
    second: str = ""
    pattern: str = ""

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The parts by number."""
        return MAINS.index(self.main), SECONDS.index(self.second), PATTERNS.index(self.pattern)


def held_out(name: str, look: Look) -> bool:
    """Whether training never shows this thing in this look (a fixed hash: 15 % of the colours, materials and patterns)."""
    parts = [look.main] if look.main not in (PLAIN, CLAY) else []
    parts += [look.pattern] if look.pattern else []
    return any(hashlib.sha256(f"{part} {name}".encode()).digest()[0] / 256 < HELD_OUT_SHARE for part in parts)


def draw_look(name: str, rng: np.random.Generator, hold_out: bool = True) -> Look:
    """A random look that is not held out for this thing."""
    while True:
        look = _any_look(rng)
        if not (hold_out and held_out(name, look)):
            return look


def _any_look(rng: np.random.Generator) -> Look:
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if kind == "clay":
        return Look(CLAY)
    if kind == "material":
        return Look(str(rng.choice(list(MATERIALS))))
    main = str(rng.choice(list(COLOURS))) if kind == "colour" else PLAIN
    if rng.random() >= PATTERNED:
        return Look(main)
    if kind == "plain":
        pattern = str(rng.choice(PATTERNS[1:]))
        return Look(main, "" if pattern in WHOLE else "white", pattern)
    second = str(rng.choice([c for c in COLOURS if c != main]))
    return Look(main, second, str(rng.choice([p for p in PATTERNS if p not in WHOLE])))
