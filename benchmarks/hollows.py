"""Hollow things with and without pictures of depths: ``python benchmarks/hollows.py --out runs/hollows``.

From shaded pictures alone a hollow that no outline shows stays filled: the surface gets small steps that are shaded like the hollow.
This makes the same things with a preset's share of depths (``shading.depth``) and without. It measures how far, in world units, what is
seen is from what the prior means, how many degrees the normals are off, and R-Precision in a suite. The result is
``results/hollows.json`` and a picture. Stop it at will; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from jobs import Job, folder_of, run
from machine import provenance
from normals import CAMERAS, SIZE, SURE, degrees_off
from PIL import Image, ImageDraw
from sheet import LINE, fitting
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.evaluation.facing import bundled
from dreamfusion.evaluation.statistics import bootstrap
from dreamfusion.export.pictures import render_view
from dreamfusion.export.turntable import to_uint8
from dreamfusion.files import write_atomic
from dreamfusion.priors.bundled_prior import BundledPrior, subjects_of
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.scene.scene import Scene
from dreamfusion.view.cameras import Cameras, orbit_cameras
from dreamfusion.view.view import orbit_view

HERE = Path(__file__).parent
PRESET = "balanced"
PROMPTS = ["a red armchair", "a white sink", "a blue canoe", "a blue bowl", "a brown sofa", "a green bathtub", "a metal bucket",
           "a brown crib"]  # fmt: skip
WITHOUT = {"shading.depth": 0.0, "shading.lambertian": 0.8, "shading.textureless": 0.2}
ROWS: dict[str, dict[str, Any]] = {"without": WITHOUT, "with": {}}
TILE, SHOWN = 112, (25.0, 115.0)
"""Side of a picture, and the azimuths that are shown."""


@torch.no_grad()
def meant_distance(prior: BundledPrior, prompt: str, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """How far what the prior means is from the cameras, and its coverage, (B, SIZE, SIZE)."""
    subject = subjects_of(prior.embed([prompt]))[0]
    met = prior.layout.hits(prior.layout.thing(subject.shape), cameras.condition(), SIZE, subject.stretch)
    seen = met.pictures(torch.stack([met.distance(), met.opacity], 1))
    return seen[:, 0], seen[:, 1]


@torch.no_grad()
def distance_off(scene: Scene, prior: BundledPrior, prompt: str, cameras: Cameras = CAMERAS) -> float | None:
    """Mean distance in world units between the surfaces that are seen and those that the prior means, over the pixels of eight
    pictures in which both are opaque. None where there are none."""
    wanted, cover = meant_distance(prior, prompt, cameras)
    seen = scene.render(orbit_view(cameras, SIZE))
    opacity = seen.opacity[:, 0]
    both = (cover > SURE) & (opacity > SURE)
    return float((seen.depth[:, 0] / opacity - wanted)[both].abs().mean()) if both.any() else None


def job_of(out: Path, row: str, prompt: str, steps: int) -> Job:
    """The run of a prompt."""
    return Job(folder_of(out / row, prompt), prompt, PRESET, ROWS[row] | ({"steps": steps} if steps else {}))


def figures(folder: Path, prompt: str) -> dict[str, float | None]:
    """Of a finished run."""
    scene, _ = load_scene(Run.open(folder))
    return {
        "distance_off": distance_off(scene, bundled(), prompt),
        "normals_off": degrees_off(scene, bundled(), prompt),
    }


def mean_of(values: list[float]) -> dict[str, float]:
    """A mean with its interval."""
    low, high = bootstrap(values)
    return {"value": sum(values) / len(values), "low": low, "high": high, "count": len(values)}


def summary(rows: dict[str, dict[str, dict[str, float | None]]]) -> dict[str, Any]:
    """{row: {figure: mean}}, and of the differences {'change': …}, over the prompts of which both rows have the figure."""
    out: dict[str, Any] = {row: {} for row in (*rows, "change")}
    for key in ("distance_off", "normals_off"):
        pairs = [[rows[row][p][key] for row in rows] for p in rows["with"] if p in rows["without"]]
        known = [[v for v in pair if v is not None] for pair in pairs if None not in pair]
        if known:
            for row, values in zip(rows, zip(*known, strict=True), strict=True):
                out[row][key] = mean_of(list(values))
            out["change"][key] = mean_of([b - a for a, b in known])
    return out


def picture(jobs: dict[str, list[Job]]) -> Image.Image:
    """In clay, a line for each row, a column for each prompt."""
    wide = TILE * len(SHOWN)
    sheet = Image.new("RGB", (wide * len(jobs["with"]), (TILE + LINE) * len(jobs)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, (row, some) in enumerate(jobs.items()):
        for k, job in enumerate(some):
            draw.text(
                (k * wide + 3, j * (TILE + LINE) + 1), fitting(draw, f"{row}: {job.prompt}", wide - 6), fill="black"
            )
            scene, _ = load_scene(Run.open(job.folder))
            seen = to_uint8(render_view(scene, orbit_view(orbit_cameras(SHOWN, 30.0, 2.5), TILE), "textureless"))
            for i, tile in enumerate(seen):
                sheet.paste(Image.fromarray(tile), (k * wide + i * TILE, j * (TILE + LINE) + LINE))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--things", type=int, default=len(PROMPTS), help="prompts")
    parser.add_argument("--steps", type=int, default=0, help="steps of a run [the preset's]")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "hollows.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "benchmarks" / "hollows.jpg")
    args = parser.parse_args()
    try:
        if not 1 <= args.things <= len(PROMPTS):
            raise UserError(f"--things {args.things} is not allowed; 1 to {len(PROMPTS)}")
        prompts = PROMPTS[: args.things]
        jobs = {row: [job_of(args.out, row, p, args.steps) for p in prompts] for row in ROWS}
        failed = run([job for k in range(len(prompts)) for job in (jobs["without"][k], jobs["with"][k])], args.workers)
        if failed:
            raise UserError(f"{len(failed)} runs failed")
    except UserError as error:
        sys.exit(f"hollows: error: {error}")
    rows = {row: {job.prompt: figures(job.folder, job.prompt) for job in some} for row, some in jobs.items()}
    page = {"what": "hollows", "preset": PRESET, "share": jobs["with"][0].config.shading.depth} | provenance()
    page |= {"summary": summary(rows), "rows": rows}
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    picture(jobs).save(args.picture, quality=85)
    write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
    print(json.dumps(page["summary"]))


if __name__ == "__main__":
    main()
