"""White things, and nearly black ones in another colour, in three ways: ``python benchmarks/bright.py --out runs/bright``.

``before``: ``priors/paint.py`` paints as bright as it is asked to, and takes light and dark relative to any mean luminance. ``now``: it
paints nothing brighter than ``BRIGHTEST``, and less light and dark on things darker than ``DIM``. ``lights``: the same, in light from many
sides. Measured are the degrees by which the normals are off those of the thing that the prior means, the contrast of the albedo, and
R-Precision. The result is ``results/bright.json`` and a picture. Stop it at will; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from jobs import folder_of
from machine import provenance
from normals import degrees_off
from sheet import sheet

from dreamfusion import generate
from dreamfusion.batch.jobs import Job
from dreamfusion.errors import UserError
from dreamfusion.evaluation import evaluate
from dreamfusion.evaluation.facing import bundled
from dreamfusion.export.pictures import render_view
from dreamfusion.files import write_atomic
from dreamfusion.priors import paint
from dreamfusion.recorded import load_scene
from dreamfusion.run import CONFIG, Run
from dreamfusion.scene.scene import Scene
from dreamfusion.suites import load_suite
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view

HERE = Path(__file__).parent
PRESET, SUITE = "fast", "bundled-153"
PROMPTS = {
    "white": ["a white dresser", "a white refrigerator", "a white stove", "a white milk carton"],
    "nearly black": ["a yellow grand piano", "a red piano bench", "orange headphones", "a green travel trunk"],
}
NOW = paint.BRIGHTEST, paint.DIM
PAINTS = {"before": (1.0, 0.0), "now": NOW, "lights": NOW}
"""The brightest paint, and the luminance that a thing counts as having at least."""
PLAIN = {"shading.lambertian": 0.8, "shading.textureless": 0.2, "shading.depth": 0.0}
"""Of all rows: no depths, so that shaded pictures alone tell the surface."""
ONE_LIGHT = {"view.light_above_deg": (30.0, 30.0), "view.light_around_deg": (0.0, 0.0)}
LIGHTS = {"view.light_above_deg": (-20.0, 70.0), "view.light_around_deg": (-70.0, 70.0)}
"""Of the row that is lit from many sides."""
LUMA = torch.tensor(paint.LUMA)


@contextmanager
def painting(brightest: float, dim: float) -> Iterator[None]:
    """Let the bundled prior paint like this."""
    own = paint.BRIGHTEST, paint.DIM
    paint.BRIGHTEST, paint.DIM = brightest, dim
    try:
        yield
    finally:
        paint.BRIGHTEST, paint.DIM = own


@torch.no_grad()
def contrast(scene: Scene) -> float | None:
    """Standard deviation over mean of the albedo's luminance, over all that is opaque from four sides. None where nothing is."""
    view = orbit_view(orbit_cameras([45.0, 135.0, 225.0, 315.0]), 64, background=0.0)
    seen = render_view(scene, view, "albedo"), render_view(scene, view, "opacity").mean(1) > 0.9
    luminance = (seen[0].movedim(1, -1) @ LUMA)[seen[1]]
    return float(luminance.std() / luminance.mean()) if len(luminance) > 1 else None


def run_of(out: Path, row: str, prompt: str, steps: int) -> Path:
    """The folder of a finished run, which is made or gone on with where it is not there."""
    settings = ({"steps": steps} if steps else {}) | PLAIN | (LIGHTS if row == "lights" else ONE_LIGHT)
    job = Job(folder_of(out / row, prompt), prompt, PRESET, {"threads": 1} | settings)
    if job.state()[0] != "finished":
        with painting(*PAINTS[row]):
            if (job.folder / CONFIG).exists() and job.state()[0] == "stopped":
                generate(resume=job.folder)
            else:
                generate(prompt, PRESET, out=job.folder, **job.settings)
        print(f"{row}: {prompt}", flush=True)
    return job.folder


def mean_of(values: dict[str, float | None]) -> dict[str, Any]:
    """{mean, each} of a figure of the runs of a row."""
    known = [value for value in values.values() if value is not None]
    return {"mean": mean(known) if known else None, "each": values}


def figures(folders: Sequence[Path], prompts: Sequence[str], suite: Path) -> dict[str, Any]:
    """Of the runs of a row: the normals' error, the contrast and R-Precision."""
    scenes = {p: load_scene(Run.open(f))[0] for p, f in zip(prompts, folders, strict=True)}
    summary = evaluate(folders, prompts=suite)["summary"]
    return {
        "normals_off": mean_of({p: degrees_off(scene, bundled(), p) for p, scene in scenes.items()}),
        "contrast": mean_of({p: contrast(scene) for p, scene in scenes.items()}),
        "r1": summary["r1"],
        "r1_textureless": summary["clay_r1"],
    }


def write_suite(path: Path) -> Path:
    """The prompts among which those of here are ranked: a bundled suite and these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prompts = dict.fromkeys([*load_suite(SUITE), *(p for some in PROMPTS.values() for p in some)])
    write_atomic(path, "".join(f"{p}\n" for p in prompts).encode())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--things", type=int, default=4, help="prompts of each kind")
    parser.add_argument("--steps", type=int, default=0, help="steps of a run [the preset's]")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "bright.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "benchmarks" / "bright.jpg")
    args = parser.parse_args()
    if args.things < 1:
        sys.exit(f"bright: error: --things {args.things} is not allowed; 1 or more")
    page: dict[str, Any] = {"what": "bright", "preset": PRESET, "suite": SUITE, "paints": PAINTS, "kinds": {}}
    cells = []
    try:
        suite = write_suite(args.out / "suite.txt")
        for kind, named in PROMPTS.items():
            prompts = named[: args.things]
            rows = {row: [run_of(args.out, row, prompt, args.steps) for prompt in prompts] for row in PAINTS}
            page["kinds"][kind] = {row: figures(folders, prompts, suite) for row, folders in rows.items()}
            cells += [(f"{row}: {p}", f) for row, some in rows.items() for p, f in zip(prompts, some, strict=True)]
    except UserError as error:
        sys.exit(f"bright: error: {error}")
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    sheet(cells, len(prompts), 112).save(args.picture, quality=85)
    write_atomic(args.result, (json.dumps(page | provenance(), indent=1) + "\n").encode())
    print(json.dumps(page["kinds"]))


if __name__ == "__main__":
    main()
