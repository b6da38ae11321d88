"""A whole suite: ``python benchmarks/suite.py --out runs/suite [--preset fast] [--prompts bundled-153]``.

Makes an asset for every prompt and judges them, the held-out pairs alone as well, and beside them the prior's own
pictures of the same prompts, which are the ceiling. The result is ``results/suite.json``; stop it at will, the same
command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from batch import Job, choose_prompts, cost, evaluated, folder_of, run
from machine import provenance

from dreamfusion.errors import UserError
from dreamfusion.evaluation.report import value_of
from dreamfusion.files import write_atomic

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--prompts", default="bundled-153", help="a suite, a file, or so many prompts of bundled-153")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "suite.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "benchmarks" / "suite.jpg")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    args = parser.parse_args()
    try:
        prompts = choose_prompts(args.prompts)
        if args.only != "judge":
            run([Job(folder_of(args.out, p), p, args.preset) for p in prompts], args.workers)
        if args.only != "make":
            suite = args.prompts if Path(args.prompts).is_file() else None
            found = evaluated(args.out, suite, ceiling=True)
            page = {"what": "suite", "preset": args.preset} | provenance()
            page |= {key: found[key] for key in ("clip", "suite", "views", "seed", "summary", "held_out")}
            page["ceiling"] = {key: found["ceiling"][key] for key in ("summary", "held_out")}
            page["unfinished"] = sum(not a["finished"] for a in found["assets"])
            page["cost"] = cost([folder_of(args.out, a["prompt"]) for a in found["assets"]])
            page["prompts"] = {
                a["prompt"]: {k: a[k] for k in ("r10", "r1", "held_out")} | {"janus": value_of(a, "janus")}
                for a in found["assets"]
            }
            write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
            from sheet import sheet

            marked = [(p + ("*" if a["held_out"] else ""), p) for p, a in page["prompts"].items()]
            args.picture.parent.mkdir(parents=True, exist_ok=True)
            sheet([(label, folder_of(args.out, p)) for label, p in marked[:48]], 6, 96).save(args.picture, quality=85)
    except UserError as error:
        sys.exit(f"suite: error: {error}")


if __name__ == "__main__":
    main()
