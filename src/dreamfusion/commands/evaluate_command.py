"""``dreamfusion evaluate``: judge runs."""

from __future__ import annotations

import argparse
import json
import sys

from ..errors import UserError
from ..files import write_atomic
from ..paths import check_file, kind_of, user_path
from .judge_options import judge_options
from .option_values import whole


def options(parser: argparse.ArgumentParser) -> None:
    """Runs, the judge, and where to write what it says."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs' folders, or folders of them")
    judge_options(parser)
    parser.add_argument("--views", default="8", metavar="N", help="pictures of each asset, 1 to 64 [%(default)s]")
    parser.add_argument("--seed", default="0", metavar="N", help="seed of the views, 0 or more [%(default)s]")
    parser.add_argument("--ceiling", action="store_true", help="also judge the prior's own samples of the prompts")
    parser.add_argument(
        "--out", default="evaluation.json", metavar="FILE", help="where to write the figures [%(default)s]"
    )
    parser.add_argument("--html", metavar="FILE", help="also write one page with pictures and figures")


def act(given: argparse.Namespace) -> int:
    """Judge runs, and write the figures."""
    from ..run import CONFIG

    views, seed = whole("--views", given.views, 1, 64), whole("--seed", given.seed, 0, 2**31)
    out, page = user_path(given.out), user_path(given.html) if given.html else None
    if out.suffix.lower() != ".json":
        raise UserError(f"--out {out}: the figures are JSON; its name must end in .json")
    for run in given.runs:
        if kind_of(user_path(run)) == "nothing":
            raise UserError(f"there is no run at {run}: no such folder (a run's folder holds {CONFIG})")
    for path in (out, *([page] if page else [])):
        check_file(path)
    from ..evaluation import evaluate_full
    from ..evaluation.summary import table

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    how = {"views": views, "seed": seed, "ceiling": given.ceiling, "progress": progress}
    found, html = evaluate_full(given.runs, given.clip, given.prompts, **how)
    given.output.say(table(found))
    given.output.note(**found)
    write_atomic(out, json.dumps(found, indent=1, allow_nan=False).encode())
    given.output.file(out)
    if page:
        write_atomic(page, html.encode())
        given.output.file(page)
    return 0
