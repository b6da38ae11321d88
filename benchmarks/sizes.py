"""Two sizes of a prior: ``python benchmarks/sizes.py --full data/some-full --small data/some-small --out runs/sizes [--prompts 16]``.

The folders hold what ``tools/prior/pack.py`` wrote of two trainings that differ in ``--side`` alone, and the ``unseen.json`` of
``tools/prior/unseen.py``. The same prompts become assets with both, and are judged; so are the priors' own pictures of them. The
result is ``results/sizes.json``; stop it at will, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import Any

from ablation import draw, over
from jobs import Job, choose_prompts, folder_of
from kept import SEED, VIEWS, Assets, Record, TwoSuites, origins

from dreamfusion.errors import UserError
from dreamfusion.evaluation.ceiling import judge_samples
from dreamfusion.evaluation.summary import summarise
from dreamfusion.files import write_atomic
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.suites import load_suite

HERE = Path(__file__).parent
PRESET = "words"
LOSSES = ("held_cover", "held_depth", "held_albedo", "held_shading")


def weights_in(folder: Path) -> Path:
    """The packed weights of a folder. UserError without them or without the figures of unseen models."""
    for name, tool in (("bundled.safetensors", "pack.py"), ("unseen.json", "unseen.py")):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: tools/prior/{tool} writes it")
    return (folder / "bundled.safetensors").resolve()


def what_it_is(prior: BundledPrior) -> dict[str, Any]:
    """How large a prior is, what it was taught, how well it draws views that it never saw, and the figures of unseen models."""
    record = prior.record["layout"]
    return {
        "sha256": prior.hash,
        "side": prior.layout.sizes.side,
        "parameters": prior.parameters,
        "megabytes": round(prior.path.stat().st_size / 1e6, 1),
        "names": len(prior.vocabulary),
        "shapes": prior.layout.sizes.shapes,
        "visits": record["visits"],
        "losses": {key: record[key] for key in LOSSES if key in record},
        "unseen": json.loads(prior.path.with_name("unseen.json").read_text()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, required=True, help="folder of the larger prior")
    parser.add_argument("--small", type=Path, required=True, help="folder of the smaller prior")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--prompts", default="16", help="a suite, a file, or so many prompts of bundled-153")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "sizes.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "benchmarks" / "sizes.jpg")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    args = parser.parse_args()
    try:
        weights = {"full": weights_in(args.full), "small": weights_in(args.small)}
        prompts = choose_prompts(args.prompts)
        assets = Assets(args.prompts if Path(args.prompts).is_file() else None, prompts)
        jobs = {
            size: [Job(folder_of(args.out / size, p), p, PRESET, {"prior.id": str(path)}) for p in prompts]
            for size, path in weights.items()
        }
        if args.only != "judge":
            assets.make([(f"size-{s}", jobs[s][k]) for k in range(len(prompts)) for s in weights], args.workers)
        if args.only != "make":
            assets.judge([(f"size-{size}", job) for size in weights for job in jobs[size]])
            found = {size: assets.of(f"size-{size}", jobs[size]) for size in weights}
            page = results(assets, weights, {s: {r["figures"]["prompt"]: r for r in rs} for s, rs in found.items()})
            write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
            if (seen := args.full / "unseen.jpg").is_file():
                args.picture.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(seen, args.picture.with_name("unseen.jpg"))
            draw(args.out, {size: f"{page['sizes'][size]['side']}" for size in weights}, page["prompts"], args.picture)
    except UserError as error:
        print(f"sizes: {error}", file=sys.stderr)
        sys.exit(2)


def results(assets: Assets, weights: dict[str, Path], found: dict[str, dict[str, Record]]) -> dict[str, Any]:
    """The page's figures, on the prompts that both sizes have, from the records of each size by prompt."""
    prompts = [p for p in found["full"] if p in found["small"]]
    if not prompts:
        raise UserError("there is no prompt that both sizes have made")
    judge, sizes = TwoSuites(assets.suite, assets.wide), {}
    for size, path in weights.items():
        prior, records = BundledPrior(path), [found[size][p] for p in prompts]
        own = [judge.figures(judge_samples(prior, p, judge.judge)) for p in prompts]
        sizes[size] = what_it_is(prior) | {
            "summary": summarise([r["figures"] for r in records]),
            "ceiling": summarise(own),
            "cost": {k: round(median(r[k] for r in records), 2) for k in ("seconds", "seconds_prior")},
        }
    sizes["small"]["over_full"] = over(found["small"], found["full"], prompts)
    page: dict[str, Any] = {
        "what": "sizes",
        "preset": PRESET,
        "clip": {"id": "bundled", "sha256": assets.key["sha256"]},
        "suite": {"name": assets.suite_name, "prompts": len(assets.suite)},
        "wide": {"name": assets.wide, "prompts": len(load_suite(assets.wide))},
        "views": VIEWS,
        "seed": SEED,
    }
    page |= origins([r for records in found.values() for p, r in records.items() if p in prompts])
    return page | {"prompts": prompts, "sizes": sizes}


if __name__ == "__main__":
    main()
