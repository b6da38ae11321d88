"""The ablation table: ``python benchmarks/ablation.py --out runs/ablation [--prompts 16] [--rows full,dream-fields]``.

Makes an asset for every row of ``ablation.yaml`` and every prompt, one process a core, and judges them: the result is
``results/ablation.json``, from which ``python tools/benchmarks_page.py`` writes the page. Stop it at will; the same
command goes on, on another machine too: what is known of an asset is kept in the repository (``kept.py``). Rows are
compared on the prompts that all of them have, those with fewer than 16 are left out and named; a row with more of them
shows all of its own as well: run it again with ``--rows full,no-view,views,camera --prompts fronts`` for Janus rates on things
that have a front. The rows with a ``guidance`` are the sweep of guidance scales, in a table of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml
from jobs import Job, choose_prompts, folder_of
from kept import SEED, VIEWS, Assets, Record, origins

from dreamfusion.errors import UserError, nearest
from dreamfusion.evaluation.summary import summarise
from dreamfusion.files import write_atomic
from dreamfusion.run import CHECKPOINT, META
from dreamfusion.suites import load_suite

HERE = Path(__file__).parent
ROWS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "ablation.yaml").read_text())
SHOWN = (
    "full",
    "no-view",
    "no-shading",
    "w-7.5",
    "w-100",
    "reconstruction",
    "narrow-t",
    "camera",
    "views",
    "dream-fields",
)
"""Rows of the picture."""
SWEPT = 5
"""Prompts of the picture of guidance scales."""
LEAST = 16
"""Prompts that a row needs to stand in the table, where any row has so many: else one that has begun would shorten it."""


def jobs_of(out: Path, row: str, prompts: list[str]) -> list[Job]:
    """A row's jobs, in the order of the prompts."""
    page = ROWS[row]
    return [Job(folder_of(out / row, p), p, page.get("preset", "words"), page["settings"]) for p in prompts]


def over(records: dict[str, Record], full: dict[str, Record], prompts: list[str]) -> dict[str, dict[str, float]]:
    """The mean difference of records (by prompt) from those of ``full`` with its interval, for each figure that both have."""
    from dreamfusion.evaluation.statistics import bootstrap
    from dreamfusion.evaluation.summary import value_of

    out = {}
    for key in ("r10", "r1", "wide_r10", "wide_r1", "clay_r1", "haze"):
        pairs = [(value_of(records[p]["figures"], key), value_of(full[p]["figures"], key)) for p in prompts]
        away = [a - b for a, b in pairs if a is not None and b is not None]
        if away:
            low, high = bootstrap(away)
            out[key] = {"value": mean(away), "low": low, "high": high, "count": len(away)}
    return out


def results(found: dict[str, list[Record]]) -> dict[str, Any]:
    """From each row's records: its figures on the prompts that all rows have, the difference to ``full`` asset by asset,
    and what an asset costs. Rows with fewer than ``LEAST`` prompts are ``unfinished`` beside those that have them."""
    begun = {row: len(records) for row, records in found.items() if len(records) < LEAST}
    unfinished = begun if len(begun) < len(found) else {}
    by_prompt = {
        row: {r["figures"]["prompt"]: r for r in records} for row, records in found.items() if row not in unfinished
    }
    first = next(iter(by_prompt.values()))
    common = [p for p in first if all(p in records for records in by_prompt.values())]
    table: dict[str, Any] = {}
    for row, records in by_prompt.items():
        same = [records[p] for p in common]
        page = ROWS[row]
        entry: dict[str, Any] = {k: v for k, v in page.items() if k != "seed"} | {"reported": page.get("seed")}
        entry["summary"] = summarise([r["figures"] for r in same])
        entry["cost"] = {k: round(median(r[k] for r in same), 2) for k in ("seconds", "seconds_prior")} if same else {}
        if "full" in by_prompt and row != "full":
            entry["over_full"] = over(records, by_prompt["full"], common)
        if len(records) > len(common):
            entry["whole"] = summarise([r["figures"] for r in records.values()])
        table[row] = entry
    return {"prompts": common, "rows": table, "unfinished": unfinished}


def has_run(out: Path, row: str, prompt: str) -> bool:
    """Whether there is a scene to be drawn."""
    return (folder_of(out / row, prompt) / CHECKPOINT / META).is_file()


def sweep_rows(out: Path, prompts: list[str]) -> dict[str, str]:
    """The rows with a guidance scale that have runs of all these prompts, in its order, each with its label."""
    scales = sorted((page["guidance"], row) for row, page in ROWS.items() if "guidance" in page)
    return {row: f"w = {w:g}" for w, row in scales if all(has_run(out, row, p) for p in prompts)}


def draw(out: Path, labels: dict[str, str], prompts: list[str], path: Path) -> None:
    """A picture: a line for each row, with its label, and a column for each of the first prompts whose runs are all there. Without
    such prompts there is none."""
    from sheet import sheet

    prompts = [p for p in prompts if all(has_run(out, row, p) for row in labels)][:6]
    if not prompts or not labels:
        return
    cells = [(f"{label}: {p}", folder_of(out / row, p)) for row, label in labels.items() for p in prompts]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(cells, len(prompts), 96).save(path, quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows of ablation.yaml, separated by commas")
    parser.add_argument("--prompts", default="16", help="a suite, a file, so many prompts of bundled-153, or 'fronts'")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "ablation.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "benchmarks" / "ablation.jpg")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    args = parser.parse_args()
    try:
        rows = [row for row in args.rows.split(",") if row]
        for row in rows:
            if row not in ROWS:
                raise UserError(f"there is no row {row!r}{nearest(row, ROWS)}")
        prompts = choose_prompts(args.prompts)
        assets = Assets(args.prompts if Path(args.prompts).is_file() else None, prompts)
        jobs = {row: jobs_of(args.out, row, prompts) for row in rows}
        if args.only != "judge":
            assets.make([(row, jobs[row][k]) for k in range(len(prompts)) for row in rows], args.workers)
        if args.only != "make":
            assets.judge([(row, job) for row in rows for job in jobs[row]])
            every = {row: assets.of(row, jobs_of(args.out, row, assets.suite)) for row in ROWS}
            every = {row: assets.beside_prior(records) for row, records in every.items() if records}
            if not every:
                raise UserError(f"there are no finished runs in {args.out}, and nothing is kept")
            page: dict[str, Any] = {
                "what": "ablation",
                "preset": "words",
                "clip": {"id": "bundled", "sha256": assets.key["sha256"]},
            }
            page |= {"suite": {"name": assets.suite_name, "prompts": len(assets.suite)}, "views": VIEWS, "seed": SEED}
            page["wide"] = {"name": assets.wide, "prompts": len(load_suite(assets.wide))}
            page |= origins([r for records in every.values() for r in records]) | results(every)
            page["ceiling"] = summarise(assets.ceiling(page["prompts"]))
            write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
            shown = {row: row for row in SHOWN if row in page["rows"]}
            draw(args.out, shown, page["prompts"], args.picture)
            few = page["prompts"][:SWEPT]
            draw(args.out, sweep_rows(args.out, few), few, args.picture.with_name("sweep.jpg"))
    except UserError as error:
        sys.exit(f"ablation: error: {error}")


if __name__ == "__main__":
    main()
