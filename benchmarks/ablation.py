"""The ablation table: ``python benchmarks/ablation.py --out runs/ablation [--prompts 16] [--rows full,dream-fields]``.

Makes an asset for every row of ``ablation.yaml`` and every prompt, one process a core, and judges them: the result is
``results/ablation.json``, from which ``python tools/benchmarks_page.py`` writes the page. Stop it at will; the same
command goes on. Rows are compared on the prompts that all of them have; a row with more of them shows all of its own as
well: run it again with ``--rows full,dream-fields --prompts bundled-153`` for the ends of the table, and with
``--rows full,words-only,no-view --prompts fronts`` for Janus rates on everything that has a front.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from batch import Job, choose_prompts, cost, evaluated, folder_of, run
from machine import provenance

from dreamfusion.errors import UserError, nearest
from dreamfusion.files import write_atomic
from dreamfusion.run import CHECKPOINT, META

HERE = Path(__file__).parent
ROWS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "ablation.yaml").read_text())
SHOWN = (
    "full",
    "no-view",
    "words-only",
    "no-shading",
    "no-opacity",
    "w-7.5",
    "reconstruction",
    "ancestral",
    "dream-fields",
)
"""Rows of the picture."""


def jobs_of(out: Path, row: str, prompts: list[str]) -> list[Job]:
    """A row's jobs, in the order of the prompts."""
    page = ROWS[row]
    return [Job(folder_of(out / row, p), p, page.get("preset", "fast"), page["settings"]) for p in prompts]


def results(out: Path, rows: list[str], suite: str | None) -> dict[str, Any]:
    """Every row's figures on the prompts that all rows have, the difference to ``full`` asset by asset, and the cost."""
    from dreamfusion.evaluation.report import summarise, value_of
    from dreamfusion.evaluation.statistics import bootstrap

    found = {row: evaluated(out / row, suite) for row in rows}
    by_prompt = {row: {a["prompt"]: a for a in page["assets"]} for row, page in found.items()}
    common = [p for p in by_prompt[rows[0]] if all(p in assets for assets in by_prompt.values())]
    first = found[rows[0]]
    table: dict[str, Any] = {}
    for row, assets in by_prompt.items():
        same = [assets[p] for p in common]
        entry: dict[str, Any] = {k: v for k, v in ROWS[row].items() if k != "seed"} | {
            "reported": ROWS[row].get("seed")
        }
        entry |= {"summary": summarise(same), "cost": cost([folder_of(out / row, p) for p in common])}
        entry["unfinished"] = sum(not a["finished"] for a in same)
        entry["prompts"] = {p: {k: value_of(assets[p], k) for k in ("r10", "clay_r10", "janus")} for p in assets}
        if "full" in by_prompt and common:
            away = [value_of(assets[p], "r10") - value_of(by_prompt["full"][p], "r10") for p in common]  # type: ignore[operator]
            low, high = bootstrap(away)
            entry["r10_over_full"] = {"value": sum(away) / len(away), "low": low, "high": high, "count": len(away)}
        if len(assets) > len(common):
            entry["whole"] = found[row]["summary"]
        table[row] = entry
    shared = {key: first[key] for key in ("clip", "suite", "views", "seed")}
    return {"what": "ablation"} | provenance() | shared | {"preset": "fast", "prompts": common, "rows": table}


def draw(out: Path, rows: list[str], prompts: list[str], path: Path) -> None:
    """The picture: a line for each row, a column for each of the first prompts."""
    from sheet import sheet

    prompts = prompts[:6]
    lines = [row for row in SHOWN if row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet([(f"{row}: {p}", folder_of(out / row, p)) for row in lines for p in prompts], len(prompts), 96).save(
        path, quality=85
    )


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
        suite = args.prompts if Path(args.prompts).is_file() else None
        if args.only != "judge":
            lines = [jobs_of(args.out, row, prompts) for row in rows]
            run([job for column in zip(*lines, strict=True) for job in column], args.workers)
        if args.only != "make":
            rows = [row for row in ROWS if any((args.out / row).glob(f"*/{CHECKPOINT}/{META}"))]
            if not rows:
                raise UserError(f"there are no runs in {args.out}")
            page = results(args.out, rows, suite)
            write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
            draw(args.out, rows, page["prompts"], args.picture)
    except UserError as error:
        sys.exit(f"ablation: error: {error}")


if __name__ == "__main__":
    main()
