"""A whole suite: ``python benchmarks/suite.py --out runs/suite [--preset fast] [--prompts open-153]``.

Makes an asset for every prompt and judges them, the held-out pairs alone as well, and beside them the prior's own
pictures of the same prompts, which are the ceiling. The result is ``results/suite-<preset>-<suite>.json``; stop it at will, the same
command goes on, on another machine too: what is known of an asset is kept in the repository (``kept.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

from jobs import Job, choose_prompts, folder_of
from kept import SEED, VIEWS, Assets, origins

from dreamfusion.errors import UserError
from dreamfusion.evaluation.summary import summarise, value_of, with_ceiling
from dreamfusion.files import write_atomic
from dreamfusion.suites import load_suite

HERE = Path(__file__).parent
IN_ABLATION = {"words-bundled-153": "full", "fast-bundled-153": "camera"}
"""Suites whose assets the ablation makes too, and under which name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--prompts", default="open-153", help="a suite, a file, or so many prompts of bundled-153")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, help="default: benchmarks/results/suite-<preset>-<suite>.json")
    parser.add_argument("--picture", type=Path, help="default: docs/benchmarks/suite-<preset>-<suite>.jpg")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    args = parser.parse_args()
    try:
        prompts = choose_prompts(args.prompts)
        assets = Assets(args.prompts if Path(args.prompts).is_file() else None, prompts)
        name = f"{args.preset}-{assets.suite_name}"
        row = IN_ABLATION.get(name, name)
        jobs = [Job(folder_of(args.out, p), p, args.preset) for p in prompts]
        if args.only != "judge":
            assets.make([(row, job) for job in jobs], args.workers)
        if args.only != "make":
            assets.judge([(row, job) for job in jobs])
            records = assets.of(row, jobs)
            if not records:
                raise UserError(f"there are no finished runs in {args.out}, and nothing is kept")
            found = [r["figures"] for r in records]
            samples = assets.ceiling([f["prompt"] for f in found])
            page: dict[str, Any] = {
                "what": "suite",
                "preset": args.preset,
                "clip": {"id": "bundled", "sha256": assets.key["sha256"]},
            }
            page |= {"suite": {"name": assets.suite_name, "prompts": len(assets.suite)}}
            page |= {
                "wide": {"name": assets.wide, "prompts": len(load_suite(assets.wide))},
                "views": VIEWS,
                "seed": SEED,
            }
            page |= origins(records)
            for place, figures in ((page, with_ceiling(found, samples)), (page.setdefault("ceiling", {}), samples)):
                place["summary"] = summarise(figures)
                place["held_out"] = summarise([f for f in figures if f["held_out"]])
            page["cost"] = {k: round(median(r[k] for r in records), 2) for k in ("seconds", "seconds_prior")}
            page["prompts"] = {
                f["prompt"]: {k: f[k] for k in ("r10", "r1", "held_out")} | {"janus": value_of(f, "janus")}
                for f in found
            }
            result = args.result or HERE / "results" / f"suite-{name}.json"
            write_atomic(result, (json.dumps(page, indent=1) + "\n").encode())
            from sheet import sheet

            marked = [(p + ("*" if a["held_out"] else ""), folder_of(args.out, p)) for p, a in page["prompts"].items()]
            if shown := [(label, folder) for label, folder in marked if folder.is_dir()][:48]:
                picture = args.picture or HERE.parent / "docs" / "benchmarks" / f"suite-{name}.jpg"
                picture.parent.mkdir(parents=True, exist_ok=True)
                sheet(shown, 6, 96).save(picture, quality=85)
    except UserError as error:
        sys.exit(f"suite: error: {error}")


if __name__ == "__main__":
    main()
