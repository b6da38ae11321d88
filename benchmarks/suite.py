"""A whole suite: ``python benchmarks/suite.py --out runs/suite [--preset fast] [--prompts bundled-153]``.

Makes an asset for every prompt and judges them, the held-out pairs alone as well, and beside them the prior's own
pictures of the same prompts, which are the ceiling. The result is ``results/suite.json``; stop it at will, the same
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
        assets = Assets(args.prompts if Path(args.prompts).is_file() else None, prompts)
        row = "full" if args.preset == "fast" else args.preset  # as the ablation calls them
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
            page |= {"suite": {"name": assets.suite_name, "prompts": len(assets.suite)}, "views": VIEWS, "seed": SEED}
            page |= origins(records)
            for place, figures in ((page, with_ceiling(found, samples)), (page.setdefault("ceiling", {}), samples)):
                place["summary"] = summarise(figures)
                place["held_out"] = summarise([f for f in figures if f["held_out"]])
            page["cost"] = {k: round(median(r[k] for r in records), 2) for k in ("seconds", "seconds_prior")}
            page["prompts"] = {
                f["prompt"]: {k: f[k] for k in ("r10", "r1", "held_out")} | {"janus": value_of(f, "janus")}
                for f in found
            }
            write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
            from sheet import sheet

            marked = [(p + ("*" if a["held_out"] else ""), folder_of(args.out, p)) for p, a in page["prompts"].items()]
            if shown := [(label, folder) for label, folder in marked if folder.is_dir()][:48]:
                args.picture.parent.mkdir(parents=True, exist_ok=True)
                sheet(shown, 6, 96).save(args.picture, quality=85)
    except UserError as error:
        sys.exit(f"suite: error: {error}")


if __name__ == "__main__":
    main()
