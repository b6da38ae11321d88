"""The kinds of scenes against each other: ``python benchmarks/scenes.py --out runs/scenes [--prompts 16] [--presets fast,magic3d]``.

Makes an asset of each prompt with each preset, one process a core, and judges them. The result is ``results/scenes.json``: what a
step and an asset cost, how much is recognised, haze, Janus and how well the silhouettes of the mesh are those of the scene,
with intervals. The prompts are things with fronts, from all over the vocabulary. Stop it at will; the same command goes
on, on another machine too, as in ``ablation.py``. ``--steps N`` gives every stage N steps, to try it out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from jobs import Job, folder_of
from kept import HOME, SEED, VIEWS, Assets, Record, origins, write
from normals import degrees_off
from rules import prompts_of

from dreamfusion.errors import UserError, nearest
from dreamfusion.evaluation.statistics import bootstrap
from dreamfusion.evaluation.summary import summarise, value_of
from dreamfusion.files import write_atomic
from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run

HERE = Path(__file__).parent
PRESETS = ("fast", "magic3d", "dreamgaussian", "fantasia3d", "clip-mesh")
COMPARED = ("wide_r1", "clay_r1", "haze", "janus")


def name_of(preset: str, steps: int) -> str:
    """Under which name a preset's records are kept."""
    return f"scenes-{preset}" + (f"-{steps}" if steps else "")


def job_of(out: Path, preset: str, prompt: str, steps: int) -> Job:
    """The job of one asset; ``steps`` of each stage, or 0 for the preset's own."""
    return Job(folder_of(out / name_of(preset, steps), prompt), prompt, preset, {"steps": steps} if steps else {})


def mean_of(values: Sequence[float]) -> dict[str, float]:
    """{value, low, high, count}: the mean, with the bootstrap's interval."""
    low, high = bootstrap(values)
    return {"value": sum(values) / len(values), "low": low, "high": high, "count": len(values)}


def results(found: dict[str, dict[str, Record]], steps: dict[str, int]) -> dict[str, Any]:
    """From {preset: {prompt: record}} and each preset's steps: figures on the prompts that all have, and differences to ``fast``,
    asset by asset."""
    common = [p for p in next(iter(found.values())) if all(p in records for records in found.values())]
    table: dict[str, Any] = {}
    for preset, records in found.items():
        same = [records[p] for p in common]
        entry: dict[str, Any] = {"steps": steps[preset], "summary": summarise([r["figures"] for r in same])}
        if same:
            entry["cost"] = {
                "seconds_per_step": round(median(r["seconds"] / steps[preset] for r in same), 4),
                "cpu_seconds_per_asset": round(median(r["cpu_seconds"] for r in same), 1),
            }
        agreement = [r["silhouettes"]["iou"] for r in same if r["silhouettes"]]
        if agreement:
            entry["silhouettes"] = mean_of(agreement)
        off = {r["figures"]["prompt"]: r["normals_off"] for r in same if r.get("normals_off") is not None}
        if off:
            entry["normals_off"] = mean_of(list(off.values()))
        entry["over_fast"] = {}
        for key in COMPARED if "fast" in found and preset != "fast" else ():
            pairs = [(value_of(records[p]["figures"], key), value_of(found["fast"][p]["figures"], key)) for p in common]
            away = [a - b for a, b in pairs if a is not None and b is not None]
            if away:
                entry["over_fast"][key] = mean_of(away)
        if entry["over_fast"]:
            beside = {p: found["fast"][p].get("normals_off") for p in off}
            away = [off[p] - b for p, b in beside.items() if b is not None]
            if away:
                entry["over_fast"]["normals_off"] = mean_of(away)
        table[preset] = entry
    return {"prompts": common, "presets": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--presets", default=",".join(PRESETS), help="some of them, separated by commas")
    parser.add_argument("--prompts", default="16", help="so many things with fronts, or a suite or file")
    parser.add_argument("--steps", type=int, default=0, help="steps of every stage [the preset's]")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "scenes.json")
    parser.add_argument("--kept", type=Path, default=HOME, help="folder of what is kept of the assets")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "benchmarks" / "scenes.jpg")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    args = parser.parse_args()
    try:
        presets = [preset for preset in args.presets.split(",") if preset]
        for preset in presets:
            if preset not in PRESETS:
                raise UserError(f"--presets {preset} is not allowed{nearest(preset, PRESETS)}")
        make(args, presets, prompts_of(args.prompts))
    except UserError as error:
        sys.exit(f"scenes: error: {error}")


def make(args: argparse.Namespace, presets: list[str], prompts: list[str]) -> None:
    """Make and judge what is not kept, and write the result and the picture."""
    assets = Assets(args.prompts if Path(args.prompts).is_file() else "bundled-153", prompts, args.kept)
    wanted = {preset: [job_of(args.out, preset, p, args.steps) for p in prompts] for preset in presets}
    if args.only != "judge":
        assets.make(
            [(name_of(p, args.steps), wanted[p][k]) for k in range(len(prompts)) for p in presets], args.workers
        )
    if args.only == "make":
        return
    assets.judge([(name_of(preset, args.steps), job) for preset in presets for job in wanted[preset]])
    for preset in presets:
        measure_normals(assets, name_of(preset, args.steps), wanted[preset])
    found = assets.by_prompt({p: (name_of(p, args.steps), wanted[p]) for p in presets}, args.out)
    page = {"what": "scenes", "views": VIEWS, "seed": SEED}
    page |= origins([r for records in found.values() for r in records.values()])
    page |= results(found, {preset: wanted[preset][0].steps() for preset in found})
    write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
    draw(args, list(found), prompts)


def measure_normals(assets: Assets, row: str, jobs: Sequence[Job]) -> None:
    """Measure what is not kept of how far the normals of finished runs are off, and keep it."""
    kept = assets.row(row)
    new = [job for job in jobs if assets.is_kept(row, job) and "normals_off" not in kept[job.prompt]]
    new = [job for job in new if job.folder.is_dir()]
    if not new:
        return
    prior = load_prior("bundled")
    assert isinstance(prior, BundledPrior)
    for job in new:
        off = degrees_off(load_scene(Run.open(job.folder))[0], prior, job.prompt)
        kept[job.prompt]["normals_off"] = None if off is None else round(off, 2)
    write(row, kept.values(), assets.home)


def draw(args: argparse.Namespace, presets: list[str], prompts: list[str]) -> None:
    """The picture: a line for each preset, a column for each of the first prompts."""
    from sheet import sheet

    def folder(preset: str, prompt: str) -> Path:
        return job_of(args.out, preset, prompt, args.steps).folder

    shown = [p for p in prompts if all(folder(preset, p).is_dir() for preset in presets)][:6]
    if shown:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        cells = [(f"{preset}: {p}", folder(preset, p)) for preset in presets for p in shown]
        sheet(cells, len(shown), 96).save(args.picture, quality=85)


if __name__ == "__main__":
    main()
