"""``dreamfusion compare``: two sets of runs, prompt by prompt."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomic
from ..paths import check_file, kind_of, user_path
from .judge_options import judge_options


def options(parser: argparse.ArgumentParser) -> None:
    """Two sets of runs, and the judge."""
    what = "a folder of runs, or the evaluation.json of one"
    parser.add_argument("first", metavar="RUNS_A", help=what)
    parser.add_argument("second", metavar="RUNS_B", help="the other one: a folder, or an evaluation.json")
    judge_options(parser)
    parser.add_argument("--out", metavar="FILE", help="also write the comparison as JSON")


def act(given: argparse.Namespace) -> int:
    """Judge two sets of runs, and say where they differ."""
    out = user_path(given.out) if given.out else None
    if out:
        check_file(out)
    if Path(given.first).is_file() and Path(given.second).is_file() and (given.prompts or given.clip != "bundled"):
        raise UserError(
            "--clip and --prompts judge folders of runs; these two files are judged already, leave them out"
        )
    from ..evaluation import compare, evaluate, read
    from ..evaluation.comparison import table

    places = [user_path(given.first), user_path(given.second)]
    for place in places:
        if kind_of(place) == "nothing":
            raise UserError(f"there is no run and no evaluation at {place}: no such file or folder")
    earlier = {place: read(place) for place in places if kind_of(place) == "file"}

    def judged(place: Path) -> dict[str, Any]:
        if place in earlier:
            return earlier[place]
        return evaluate([place], given.clip, given.prompts, progress=lambda line: print(line, file=sys.stderr))

    found = compare(*map(judged, places))
    given.output.say(table(found))
    given.output.note(**found)
    if out:
        write_atomic(out, json.dumps(found, indent=1, allow_nan=False).encode())
        given.output.file(out)
    return 0
