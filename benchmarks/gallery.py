"""A gallery: ``python benchmarks/gallery.py --out runs/gallery --picture docs/gallery.jpg [--preset fast]``.

Generates an asset for every third prompt of a suite, 48 in all, so that nobody chose them (those that are there already are kept: stop
and start it at will) and draws all of them into one picture, from the front and from behind. An asterisk marks combinations that were in
no caption of the prior's training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jobs import Job, folder_of, run
from sheet import sheet

from dreamfusion.errors import UserError
from dreamfusion.evaluation.inputs import is_held_out
from dreamfusion.suites import load_suite

EVERY, MOST = 3, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--prompts", default="open-153", help="a suite, or a text file")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--only-draw", action="store_true", help="draw what is finished, generate nothing")
    args = parser.parse_args()
    try:
        prompts = load_suite(args.prompts)[::EVERY][:MOST]
        jobs = [Job(folder_of(args.out, p), p, args.preset) for p in prompts]
        if args.only_draw:
            prompts = [job.prompt for job in jobs if job.ask() is None]
        else:
            run(jobs, args.jobs)
    except UserError as error:
        sys.exit(f"gallery: error: {error}")
    cells = [(p + ("*" if is_held_out(p) else ""), folder_of(args.out, p)) for p in prompts]
    sheet(cells, across=6).save(args.picture)


if __name__ == "__main__":
    main()
