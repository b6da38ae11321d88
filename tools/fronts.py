"""Write the list of names that have a front: ``python tools/fronts.py`` (from ``tools/prior/names.tsv``, the same file every time)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "prior"))

from models import read_names

LIST = Path(__file__).parents[1] / "src" / "dreamfusion" / "evaluation" / "fronts.txt"
HEAD = """\
# Which things have a front: at azimuth 0 they show a side that nobody would take for their back.
# '+' has one, '-' has none. A synonym stands on its name's line. Written by tools/fronts.py from the reviewed table
# tools/prior/names.tsv.
"""


def text() -> str:
    """The list, a line a name."""
    lines = [f"{'+' if n.front else '-'} {', '.join((n.name, *n.synonyms))}" for n in read_names().values()]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    LIST.write_text(text(), encoding="utf-8")
