"""Write the bundled suites: ``python tools/suites.py`` (the same files every time).

``bundled-153``: 72 colour-object pairs held out of the prior's training, each of another thing; 40 of these things again,
in a colour that was shown; 11 more shown pairs and 30 plain names, of things not named before. So R@1 asks for the
colour too, and what holds for new pairs can be told from what holds for old ones. ``bundled-24`` is a part of it.
``bundled-2756``: every name, plain and in all twelve colours. Whoever knows only the colour finds 212 things there.

The other suites are of the wide vocabulary (``tools/prior/names.tsv``) and its looks; ``open_suites.py`` chooses them.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "prior"))

import open_suites
from captions import with_article as article
from models import Name, read_names
from open_suites import shuffled
from vocabulary import COLOURS, MODELS, held_out

HELD, TWINS, SHOWN, PLAIN = 72, 40, 11, 30
SMALL = {"held": 12, "shown": 8, "plain": 4}
HOME = Path(__file__).parents[1] / "src" / "dreamfusion" / "suites"


@cache
def names() -> dict[str, Name]:
    """The table of names, read once."""
    return read_names()


def with_article(words: str, name: str) -> str:
    """'a red armchair', and 'red sneakers' of names that take no article."""
    return article(words, name in names()[name].plain)


def least_used(colours: list[str], used: Counter[str], name: str) -> str:
    """The colour that was taken least so far, so that all twelve appear about equally often."""
    chosen = min(shuffled(colours, name), key=lambda colour: used[colour])
    used[chosen] += 1
    return chosen


def build() -> dict[str, list[str]]:
    """Prompts of the three kinds: held (pairs never shown), shown (pairs), plain."""
    names, used = shuffled(list(MODELS), "suite"), Counter[str]()
    new = [n for n in names if any(held_out(n, c) for c in COLOURS)][:HELD]
    rest = [n for n in names if n not in new]
    held = [(n, least_used([c for c in COLOURS if held_out(n, c)], used, n)) for n in new]
    known = new[:TWINS] + rest[:SHOWN]
    shown = [(n, least_used([c for c in COLOURS if not held_out(n, c)], used, n)) for n in known]
    plain = rest[SHOWN : SHOWN + PLAIN]
    return {
        "held": [with_article(f"{c} {n}", n) for n, c in held],
        "shown": [with_article(f"{c} {n}", n) for n, c in shown],
        "plain": [with_article(n, n) for n in plain],
    }


def texts() -> dict[str, str]:
    """File name -> contents."""
    kinds = build()
    all_of_them = [p for prompts in kinds.values() for p in prompts]
    # The twins are the first of 'shown'; the small suite takes pairs of other things.
    few = kinds["held"][: SMALL["held"]] + kinds["shown"][-SMALL["shown"] :] + kinds["plain"][: SMALL["plain"]]
    # Mixed, so that the first few prompts of a suite are a fair sample of it.
    every = [with_article(f"{c} {n}".strip(), n) for n in MODELS for c in ("", *COLOURS)]
    return {
        "bundled-2756.txt": "\n".join(shuffled(every, "order")) + "\n",
        "bundled-153.txt": "\n".join(shuffled(all_of_them, "order")) + "\n",
        "bundled-24.txt": "\n".join(shuffled(few, "order")) + "\n",
        **{f"{name}.txt": "\n".join(prompts) + "\n" for name, prompts in open_suites.suites().items()},
    }


def main() -> None:
    for name, text in texts().items():
        (HOME / name).write_text(text)
        print(f"{name}: {len(text.splitlines())} prompts")


if __name__ == "__main__":
    main()
