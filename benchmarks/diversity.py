"""Whether seeds give different things: ``python benchmarks/diversity.py --out runs/diversity [--preset fast] [--seeds 4]``.

Makes an asset of each prompt with each seed. The prompts are names that four or more models of the vocabulary show. The bare shapes
are seen from four sides, and two of them are as far apart as the judge's embeddings of the same side are, on average
(1 - cosine similarity). Beside that stands the same distance between the models themselves, as the prior draws them in clay; each asset
counts as the model that it is nearest to, so that ``shapes`` is the number of different things that the seeds gave. The result is
``results/diversity-<preset>.json``. Stop it at will; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from jobs import Job, choose_prompts, folder_of, run
from machine import provenance
from torch import Tensor

from dreamfusion.clip import load_judge
from dreamfusion.clip.clip import Clip
from dreamfusion.errors import UserError
from dreamfusion.evaluation.facing import bundled, shapes_meant
from dreamfusion.evaluation.statistics import bootstrap
from dreamfusion.export.pictures import Kind, render_view
from dreamfusion.files import write_atomic
from dreamfusion.priors.outlines import shape_of
from dreamfusion.priors.subjects import clay_look
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view

HERE = Path(__file__).parent
SIDES_DEG, SIZE = (0.0, 90.0, 180.0, 270.0), 64
SHOWN = 8
"""Prompts in the picture."""


@cache
def judge() -> Clip:
    """The judge, loaded once."""
    return load_judge()


@torch.no_grad()
def seen_run(folder: Path, kind: Kind) -> Tensor:
    """The judge's embeddings (4, D) of a finished run from four sides."""
    scene, _ = load_scene(Run.open(folder))
    return judge().pictures(render_view(scene, orbit_view(orbit_cameras(SIDES_DEG), SIZE), kind))


@torch.no_grad()
def seen_shape(shape: int) -> Tensor:
    """The same of a model of the vocabulary, by number, as the prior draws it in clay."""
    layout = bundled().layout
    drawn = layout.draw(
        shape_of(layout, shape), clay_look(layout.sizes.looks)[None], orbit_cameras(SIDES_DEG).condition()
    )
    return judge().pictures((drawn[:, :3] + 1) / 2)


def distance(one: Tensor, other: Tensor) -> float:
    """Mean over the sides of 1 - cosine similarity of unit embeddings (4, D)."""
    return float(1 - (one * other).sum(-1).mean())


def spread(seen: Sequence[Tensor]) -> float | None:
    """Mean distance between all pairs; None of fewer than two."""
    return mean(distance(a, b) for a, b in combinations(seen, 2)) if len(seen) > 1 else None


def figures(made: Sequence[Tensor], models: dict[int, Tensor]) -> dict[str, Any]:
    """Of one prompt's assets and the models that show its name: both spreads, and as which models the assets count."""
    nearest = [min(models, key=lambda k: distance(asset, models[k])) for asset in made]
    return {
        "assets": round(spread(made) or 0.0, 4),
        "models": round(spread(list(models.values())) or 0.0, 4),
        "nearest": nearest,
        "shapes": len(set(nearest)),
    }


def summary(prompts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the prompts, with their intervals, and the share of prompts with three shapes or more."""
    rows = list(prompts.values())

    def mean_of(values: Sequence[float]) -> dict[str, float]:
        low, high = bootstrap(values)
        return {"value": round(mean(values), 4), "low": round(low, 4), "high": round(high, 4)}

    found: dict[str, Any] = {key: mean_of([row[key] for row in rows]) for key in ("assets", "models", "shapes")}
    return found | {"three_or_more": sum(row["shapes"] >= 3 for row in rows), "count": len(rows)}


def job_of(out: Path, prompt: str, preset: str, seed: int, steps: int) -> Job:
    """The run of one seed; ``steps``, or 0 for the preset's."""
    settings: dict[str, Any] = {"seed": seed} | ({"steps": steps} if steps else {})
    return Job(folder_of(out / preset, prompt) / str(seed), prompt, preset, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--prompts", default="instances-24", help="a suite, or a file of prompts")
    parser.add_argument("--seeds", type=int, default=4, help="seeds from 0 on, 2 or more")
    parser.add_argument("--steps", type=int, default=0, help="steps of a run [the preset's]")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, help="default: benchmarks/results/diversity-<preset>.json")
    parser.add_argument("--picture", type=Path, help="default: docs/benchmarks/diversity-<preset>.jpg")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    args = parser.parse_args()
    try:
        measure(args)
    except UserError as error:
        sys.exit(f"diversity: error: {error}")


def measure(args: argparse.Namespace) -> None:
    """Make what is missing, and write the result and the picture. UserError for a prompt without several models."""
    if args.seeds < 2:
        raise UserError(f"--seeds {args.seeds} is not allowed; 2 or more")
    prompts = choose_prompts(args.prompts)
    for prompt in prompts:
        if len(shapes_meant(prompt)) < 2:
            raise UserError(f"{prompt!r} is shown by fewer than two models")
    jobs = {p: [job_of(args.out, p, args.preset, seed, args.steps) for seed in range(args.seeds)] for p in prompts}
    if args.only != "judge":
        run([job for some in jobs.values() for job in some], args.workers)
    if args.only == "make":
        return
    found = {}
    for prompt, some in jobs.items():
        if all(job.ask() is None for job in some):
            models = {shape: seen_shape(shape) for shape in shapes_meant(prompt)}
            found[prompt] = figures([seen_run(job.folder, "textureless") for job in some], models)
            print(f"{prompt}: {json.dumps(found[prompt])}", flush=True)
    if not found:
        raise UserError(f"there are no finished runs in {args.out}")
    page = {"what": "diversity", "preset": args.preset, "seeds": args.seeds} | provenance()
    page |= {"summary": summary(found), "prompts": found}
    result = args.result or HERE / "results" / f"diversity-{args.preset}.json"
    write_atomic(result, (json.dumps(page, indent=1) + "\n").encode())
    draw(args, {p: [job.folder for job in jobs[p]] for p in list(found)[:: math.ceil(len(found) / SHOWN)]})


def draw(args: argparse.Namespace, folders: dict[str, list[Path]]) -> None:
    """The picture: a row for two prompts, a column for each seed."""
    from sheet import sheet

    picture = args.picture or HERE.parent / "docs" / "benchmarks" / f"diversity-{args.preset}.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    cells = [(f"{p}, seed {seed}", folder) for p, some in folders.items() for seed, folder in enumerate(some)]
    sheet(cells, 2 * args.seeds, 96, (30.0,)).save(picture, quality=85)


if __name__ == "__main__":
    main()
