"""Which way things face that are told no camera: ``python benchmarks/directions.py --out runs/directions [--seeds 20]``.

The preset ``mvdream`` knows how the views of a step stand to each other, but not to the object. So nothing should prefer one
direction of the front. One thing is made with many seeds, and the direction of its front is read from its ring of views, as for the
Janus score. The unit vectors of the directions then add up to little: ``resultant`` is the length of their mean, and
``p`` is Rayleigh's, the probability that directions without any preference have a mean so long or longer. The
result is ``results/directions.json``. Stop it at will; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jobs import Job, folder_of, run
from machine import provenance
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.evaluation.facing import azimuths, shapes_meant
from dreamfusion.evaluation.janus import judge_ring, ring_belief
from dreamfusion.evaluation.judged_views import draw, ring
from dreamfusion.files import write_atomic
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run

PROMPT, PRESET = "a black toilet", "mvdream"
RESULT = Path(__file__).parent / "results" / "directions.json"


def direction_of(belief: Tensor) -> float:
    """Degrees, 0 to 360, of the mean direction of a ring's belief (V,) in a front, the first view at 0 degrees."""
    turn = torch.arange(len(belief)) * (2 * math.pi / len(belief))
    return math.degrees(math.atan2(float((belief * turn.sin()).sum()), float((belief * turn.cos()).sum()))) % 360


def resultant(degrees: Sequence[float]) -> float:
    """Length of the mean of unit vectors in these directions, 0 to 1."""
    turns = [math.radians(x) for x in degrees]
    return math.hypot(sum(map(math.sin, turns)), sum(map(math.cos, turns))) / len(turns)


def rayleigh(length: float, count: int) -> float:
    """Rayleigh's p of a resultant of ``count`` directions, in Wilkie's approximation (1983, "Rayleigh test for randomness of
    circular data", Applied Statistics 32)."""
    r = count * length
    return min(1.0, math.exp(math.sqrt(1 + 4 * count + 4 * (count**2 - r**2)) - (1 + 2 * count)))


def job_of(out: Path, prompt: str, seed: int, steps: int) -> Job:
    """The run of one seed; ``steps``, or 0 for the preset's."""
    settings: dict[str, Any] = {"seed": seed} | ({"steps": steps} if steps else {})
    return Job(folder_of(out, prompt) / str(seed), prompt, PRESET, settings)


@torch.no_grad()
def front_of(folder: Path, prompt: str) -> dict[str, Any]:
    """Where a finished run's front is, None where it shows none, and whether it shows several."""
    scene, _ = load_scene(Run.open(folder))
    belief = ring_belief(azimuths(draw(scene, ring()), draw(scene, ring(), "opacity").mean(1), prompt))
    found = judge_ring(belief)
    return {"degrees": round(direction_of(belief), 1) if found.fronts else None, "janus": found.janus}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--prompt", default=PROMPT, help="a thing with a front")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=0, help="steps of a run [the preset's]")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    try:
        if args.seeds < 2:
            raise UserError(f"--seeds {args.seeds} is not allowed; 2 or more")
        if not shapes_meant(args.prompt):
            raise UserError(f"the bundled prior knows no name in {args.prompt!r}")
        jobs = [job_of(args.out, args.prompt, seed, args.steps) for seed in range(args.seeds)]
        failed = run(jobs, args.workers)
        fronts = {job.settings["seed"]: front_of(job.folder, args.prompt) for job in jobs if job not in failed}
    except UserError as error:
        sys.exit(f"directions: error: {error}")
    degrees = [front["degrees"] for front in fronts.values() if front["degrees"] is not None]
    page: dict[str, Any] = {"what": "directions", "prompt": args.prompt, "preset": PRESET, "steps": jobs[0].steps()}
    page |= provenance() | {"fronts": fronts, "janus": sum(front["janus"] for front in fronts.values())}
    if degrees:
        length = resultant(degrees)
        page |= {"resultant": round(length, 3), "p": round(rayleigh(length, len(degrees)), 3)}
    write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
    print(json.dumps({key: page.get(key) for key in ("resultant", "p", "janus")}))


if __name__ == "__main__":
    main()
