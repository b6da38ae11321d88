"""The rules against each other: ``python benchmarks/rules.py --out runs/rules [--prompts 16] [--rows sds,vsd] [--equal calls]``.

Every rule makes an asset of each prompt with the bundled prior, asked with words only, where rules differ. Each has as many
steps as cost the same number of the prior's answers (``--equal calls``) or the same time (``--equal time``) as 600 steps of
SDS; a schedule runs over the whole run, whatever its steps. The prompts are things with fronts, from all over the
vocabulary. The result is ``results/rules.json``, with intervals. The rows ``diversity`` make the first two
prompts with four seeds. ``--measure`` prints the seconds of a step of each rule here, relative to SDS. Stop it at
will; the same command goes on, as in ``ablation.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml
from diversity import seen_run, spread
from jobs import Job, choose_prompts, folder_of
from kept import SEED, VIEWS, Assets, Record, origins

from dreamfusion.errors import UserError, nearest
from dreamfusion.files import write_atomic

HERE = Path(__file__).parent
ROWS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "rules.yaml").read_text())
BUDGET = 600
"""Steps of SDS that all rules get the price of."""
SEEDS = (0, 1, 2, 3)
EQUAL = {"calls": "answers", "time": "time"}
COMPARED = ("r1", "wide_r1", "clay_r1", "haze", "janus", "saturation_ratio")


def steps_of(row: str, equal: str, budget: int) -> int:
    """Steps of a row for the budget."""
    return max(1, round(budget / ROWS[row][EQUAL[equal]]))


def settings_of(row: str, equal: str, budget: int, seed: int = 0) -> dict[str, Any]:
    """A row's settings over its preset."""
    page, steps = ROWS[row], steps_of(row, equal, budget)
    if page.get("preset") == "bridge":  # three quarters SDS, which costs half
        last = max(1, round(budget / (3 / ROWS["sds"][EQUAL[equal]] + page[EQUAL[equal]])))
        return page["settings"] | {"seed": seed, "stages.1.steps": 3 * last, "stages.2.steps": last}
    return page["settings"] | {"seed": seed, "steps": steps}


def job_of(out: Path, row: str, equal: str, prompt: str, budget: int, seed: int = 0) -> Job:
    """The job of one asset."""
    folder = folder_of(out / name_of(row, equal, seed), prompt)
    return Job(folder, prompt, ROWS[row].get("preset", "words"), settings_of(row, equal, budget, seed))


def name_of(row: str, equal: str, seed: int = 0) -> str:
    """Under which name a row's records are kept."""
    return f"rules-{row}-{equal}" + (f"-seed-{seed}" if seed else "")


def spaced(prompts: Sequence[str], count: int) -> list[str]:
    """So many of them, evenly spaced, so that all kinds of things are there."""
    return [prompts[k * len(prompts) // count] for k in range(count)]


def results(found: dict[str, dict[str, Record]]) -> dict[str, Any]:
    """From {row: {prompt: record}}: each row's figures on the prompts that all have, and differences to SDS with intervals."""
    from dreamfusion.evaluation.statistics import bootstrap
    from dreamfusion.evaluation.summary import summarise, value_of

    common = [p for p in next(iter(found.values())) if all(p in records for records in found.values())]
    table: dict[str, Any] = {}
    for row, records in found.items():
        same = [records[p] for p in common]
        entry: dict[str, Any] = {key: ROWS[row][key] for key in ("claim", "answers", "why") if key in ROWS[row]}
        entry["summary"] = summarise([r["figures"] for r in same])
        entry["cost"] = {k: round(median(r[k] for r in same), 2) for k in ("seconds", "seconds_prior")} if same else {}
        entry["over_sds"] = {}
        for key in COMPARED if "sds" in found and row != "sds" else ():
            pairs = [(value_of(records[p]["figures"], key), value_of(found["sds"][p]["figures"], key)) for p in common]
            away = [a - b for a, b in pairs if a is not None and b is not None]
            if away:
                low, high = bootstrap(away)
                entry["over_sds"][key] = {"value": mean(away), "low": low, "high": high, "count": len(away)}
        table[row] = entry
    return {"prompts": common, "rows": table}


def measure(steps: int = 6) -> dict[str, float]:
    """Seconds of a step of each row on this machine, relative to sds; the first steps are left out."""
    from dreamfusion.loading import load_prior
    from dreamfusion.settings.presets import resolve
    from dreamfusion.trainer import Trainer

    prior, seconds = load_prior("bundled"), {}
    for row, page in ROWS.items():
        given = page["settings"] | ({"stages.1.steps": 1} if page.get("preset") == "bridge" else {})
        trainer = Trainer(resolve(page.get("preset", "words"), given, "a red armchair"), prior)
        taken = []
        for _ in range(steps):
            begin = time.perf_counter()
            trainer.step()
            taken.append(time.perf_counter() - begin)
        seconds[row] = median(taken[2:])
        print(f"{row:14} {seconds[row]:7.3f} s  {seconds[row] / seconds['sds']:5.2f} x sds", flush=True)
    return {row: s / seconds["sds"] for row, s in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows of rules.yaml, separated by commas")
    parser.add_argument("--prompts", default="16", help="so many things with fronts, or a suite or file")
    parser.add_argument("--equal", choices=tuple(EQUAL), default="calls", help="what all rules get the same of")
    parser.add_argument("--budget", type=int, default=BUDGET, help="steps of sds that all get the price of")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "rules.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "benchmarks" / "rules.jpg")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    parser.add_argument("--measure", action="store_true", help="only measure the seconds of a step of each rule")
    args = parser.parse_args()
    if args.measure:
        measure()
        return
    try:
        if args.out is None:
            raise UserError("--out names the folder of the runs")
        rows = [row for row in args.rows.split(",") if row]
        for row in rows:
            if row not in ROWS:
                raise UserError(f"there is no row {row!r}{nearest(row, ROWS)}")
        make(args, rows, prompts_of(args.prompts))
    except UserError as error:
        sys.exit(f"rules: error: {error}")


def prompts_of(asked: str) -> list[str]:
    """A number of things with fronts, or what ``choose_prompts`` takes."""
    return spaced(choose_prompts("fronts"), int(asked)) if asked.isdigit() else choose_prompts(asked)


def make(args: argparse.Namespace, rows: list[str], prompts: list[str]) -> None:
    """Make and judge what is not kept, and write the result and the picture."""
    suite = args.prompts if Path(args.prompts).is_file() else "bundled-153"
    assets = Assets(suite, prompts)
    wanted = {row: [job_of(args.out, row, args.equal, p, args.budget) for p in prompts] for row in rows}
    several = {
        row: {p: [job_of(args.out, row, args.equal, p, args.budget, seed) for seed in SEEDS] for p in prompts[:2]}
        for row in rows
    }
    if args.only != "judge":
        jobs = [(name_of(row, args.equal), wanted[row][k]) for k in range(len(prompts)) for row in rows]
        more = [
            (name_of(row, args.equal, seed), job)
            for row in rows
            for jobs_of in several[row].values()
            for seed, job in zip(SEEDS, jobs_of, strict=True)
            if seed
        ]
        assets.make([*jobs, *more], args.workers)
    if args.only == "make":
        return
    assets.judge([(name_of(row, args.equal), job) for row in rows for job in wanted[row]])
    found = assets.by_prompt({row: (name_of(row, args.equal), wanted[row]) for row in rows}, args.out)
    page = {"what": "rules", "equal": args.equal, "budget": args.budget, "views": VIEWS, "seed": SEED}
    page |= origins([r for records in found.values() for r in records.values()]) | results(found)
    for row, entry in page["rows"].items():
        finished = [[job.folder for job in jobs if job.ask() is None] for jobs in several[row].values()]
        apart = [spread([seen_run(folder, "lambertian") for folder in folders]) for folders in finished]
        entry["diversity"] = [round(x, 4) for x in apart if x is not None]
    write_atomic(
        args.result.with_stem(f"{args.result.stem}-{args.equal}"), (json.dumps(page, indent=1) + "\n").encode()
    )
    draw(args, list(found), prompts)


def draw(args: argparse.Namespace, rows: list[str], prompts: list[str]) -> None:
    """The picture: a line for each rule, a column for each of the first prompts."""
    from sheet import sheet

    def folder(row: str, prompt: str) -> Path:
        return folder_of(args.out / name_of(row, args.equal), prompt)

    shown = [p for p in prompts if all(folder(row, p).is_dir() for row in rows)][:6]
    if shown:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        cells = [(f"{row}: {p}", folder(row, p)) for row in rows for p in shown]
        sheet(cells, len(shown), 96).save(args.picture, quality=85)


if __name__ == "__main__":
    main()
