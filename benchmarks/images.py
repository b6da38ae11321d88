"""A picture as a prompt: ``python benchmarks/images.py --out runs/images --data data/judge [--things 50]``.

The pictures are renders of models of the vocabulary, lit, from views that the prior was not trained on: those that
``tools/clip/draw.py`` draws for the judge. A thing is recognised if the shape that the prior sees in it is one that shows its
name. Then the preset ``zero123`` makes an asset of the picture, and its albedo is compared with that of the model, from
``NOVEL`` other views (PSNR over mid-gray). The twenty drawings of ``drawings.py`` are made too: there is no truth to compare them
with, so they are shown. The result is ``results/images.json`` and two pictures. Stop it at will; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawings import THINGS, drawing
from jobs import Job, folder_of, made, run
from machine import provenance
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sheet import LINE, fitting
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.evaluation.statistics import bootstrap, wilson
from dreamfusion.export.pictures import render_view
from dreamfusion.export.turntable import to_uint8
from dreamfusion.files import write_atomic
from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.layout import Light
from dreamfusion.priors.paint import AMBIENT
from dreamfusion.recorded import load_scene
from dreamfusion.reference import read_reference
from dreamfusion.run import Run
from dreamfusion.scene.scene import Scene
from dreamfusion.view.cameras import Cameras, orbit_cameras
from dreamfusion.view.view import orbit_view

HERE = Path(__file__).parent
NOVEL, SIZE, FINER = 8, 64, 2
LOW, HIGH = -10.0, 45.0
"""Elevations in degrees of the pictures that are given and compared."""
GRAY = 0.5
SHOWN = 12
"""Things in the picture."""


@dataclass(frozen=True)
class Truth:
    """A model seen from some sides: albedo (V, SIZE, SIZE, 3) in [0, 1], premultiplied by the coverage (V, SIZE, SIZE), and
    n . l of some light (V, SIZE, SIZE)."""

    albedo: NDArray[np.float32]
    cover: NDArray[np.float32]
    lit: NDArray[np.float32]
    cameras: Cameras

    @classmethod
    def read(cls, path: Path) -> Truth:
        """The first views of a file of ``tools/clip/draw.py`` that are not from too high or low: one to give, ``NOVEL`` to compare."""
        with np.load(path) as stored:
            elevation = stored["cameras"][:, 1]
            some = np.flatnonzero((elevation >= LOW) & (elevation <= HIGH))[: 1 + NOVEL]
            pixels, cameras = stored["pixels"][some].astype(np.float32) / 255, torch.from_numpy(stored["cameras"][some])
        azimuth, elevation, fov, distance = cameras.unbind(1)
        seen = Cameras(azimuth.deg2rad(), elevation.deg2rad(), distance, fov.deg2rad())
        return cls(pixels[:, :3].transpose(0, 2, 3, 1), pixels[:, 3], pixels[:, 4], seen)

    def over_gray(self) -> Tensor:
        """The albedo in front of mid-gray, (V, 3, SIZE, SIZE)."""
        return torch.from_numpy(self.albedo + (1 - self.cover[..., None]) * GRAY).movedim(-1, 1)

    def picture(self) -> Image.Image:
        """The first view, lit, with transparency."""
        cover = np.maximum(self.cover[0], 1e-3)[..., None]
        shade = AMBIENT + (1 - AMBIENT) * self.lit[0][..., None] / cover
        colours = np.concatenate([self.albedo[0] / cover * shade, self.cover[0][..., None]], -1)
        return Image.fromarray((colours.clip(0, 1) * 255).round().astype(np.uint8), "RGBA")


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Mean over the pictures (V, 3, H, W) in [0, 1] of -10 log10 of the mean squared error."""
    error = (found - wanted).square().mean((1, 2, 3)).clamp_min(1e-8)
    return float((-10 * error.log10()).mean())


def albedo_of(scene: Scene, cameras: Cameras) -> Tensor:
    """A scene's albedo in front of mid-gray, (V, 3, SIZE, SIZE); it is drawn finer."""
    seen = render_view(scene, orbit_view(cameras, SIZE * FINER, background=GRAY), "albedo")
    return torch.nn.functional.avg_pool2d(seen, FINER)


def choose(data: Path, names: Sequence[str], count: int) -> dict[str, str]:
    """{name: the file that shows it}: every n-th name of the vocabulary that has drawn views. UserError where there are none."""
    path = data / "instances.json"
    if not path.is_file():
        raise UserError(f"{data} has no instances.json; tools/clip/draw.py writes it")
    shown: dict[str, list[str]] = json.loads(path.read_text())
    there = [name for name in sorted(names) if name in shown and (data / f"{shown[name][0]}.0.npz").is_file()]
    if len(there) < count:
        raise UserError(f"{data} has views of {len(there)} names, --things asks for {count}")
    return {name: shown[name][0] for name in (there[k * len(there) // count] for k in range(count))}


def job_of(out: Path, kind: str, name: str) -> Job:
    """The run of one picture."""
    return Job(folder_of(out / kind, name), "", "zero123", {"prior.image": str(picture_of(out, kind, name))})


def picture_of(out: Path, kind: str, name: str) -> Path:
    """Where the picture of a thing is."""
    return folder_of(out / "pictures" / kind, name).with_suffix(".png")


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, unless it is there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)


def turned_by(found: Tensor, cameras: Cameras) -> float:
    """Degrees between the azimuth that is found (3,) and that of the first camera."""
    away = math.degrees(float(found[0] - cameras.azimuth[0]))
    return abs((away + 180) % 360 - 180)


@torch.no_grad()
def recognised(prior: BundledPrior, name: str, picture: Tensor) -> dict[str, Any]:
    """What the prior says that a reference picture shows, and whether it shows the name."""
    seen = prior.recognise([picture])
    shapes = prior.layout.shown[list(prior.vocabulary).index(name)].tolist() if name in prior.vocabulary else []
    return {
        "said": prior.describe(picture),
        "right": seen.shapes[0] in shapes,
        "share": round(sum(s for k, s in zip(seen.shapes, seen.shares, strict=True) if k in shapes), 4),
    }


@torch.no_grad()
def meant(prior: BundledPrior, picture: Tensor, cameras: Cameras) -> Tensor:
    """The albedo of what the prior recognises, as it draws it itself, in front of mid-gray, (V, 3, SIZE, SIZE)."""
    subject = prior.recognise([picture]).subject(prior.layout)
    thing, plain = prior.layout.thing(subject.shape), Light(cameras.positions(), ambient=1.0)
    return (prior.layout.draw(thing, subject.look[None], cameras.condition(), light=plain)[:, :3] + 1) / 2


def measure(out: Path, data: Path, stems: dict[str, str], prior: BundledPrior) -> dict[str, Any]:
    """What is recognised of each thing; and of those whose runs are finished, how like the model the asset is."""
    found = {}
    for name, stem in stems.items():
        job, picture = job_of(out, "things", name), read_reference(picture_of(out, "things", name))
        truth = Truth.read(data / f"{stem}.0.npz")
        found[name] = recognised(prior, name, picture)
        found[name]["turned_by"] = round(turned_by(prior.recognise([picture]).camera, truth.cameras), 1)
        if job.ask() is None:
            cameras, wanted = truth.cameras[1:], truth.over_gray()[1:]
            scene = load_scene(Run.open(job.folder))[0]
            found[name] |= {
                "psnr": round(psnr(albedo_of(scene, cameras), wanted), 2),
                "psnr_prior": round(psnr(meant(prior, picture, cameras), wanted), 2),
                "psnr_gray": round(psnr(torch.full_like(wanted, GRAY), wanted), 2),
                "cpu_seconds": made(job.folder)["cpu_seconds"],
            }
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    return found


def summary(things: dict[str, Any]) -> dict[str, Any]:
    """Means with their intervals, of all and of those that were recognised."""

    def mean_of(values: Sequence[float]) -> dict[str, float]:
        low, high = bootstrap(values)
        return {"value": round(sum(values) / len(values), 3), "low": round(low, 3), "high": round(high, 3)}

    rows = list(things.values())
    share = sum(row["right"] for row in rows) / len(rows)
    low, high = wilson(share, len(rows))
    found: dict[str, Any] = {"count": len(rows), "right": {"value": share, "low": low, "high": high}}
    right, assets = [row for row in rows if row["right"]], [row for row in rows if "psnr" in row]
    found["assets"] = len(assets)
    if right:
        found["turned_by"] = float(np.median([row["turned_by"] for row in right]))
    if assets:
        found |= {key: mean_of([r[key] for r in assets]) for key in ("psnr", "psnr_prior", "psnr_gray", "cpu_seconds")}
    if known := [row["psnr"] for row in assets if row["right"]]:
        found["psnr_right"] = mean_of(known)
    return found


def draw(cells: Sequence[tuple[str, Path, Path]], to: Path, across: int, tile: int = 96) -> None:
    """A picture of (label, reference picture, run): the reference, and the asset from two sides."""
    sheet = Image.new("RGB", (across * 3 * tile, -(-len(cells) // across) * (tile + LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for k, (label, path, folder) in enumerate(cells):
        x, y = k % across * 3 * tile, k // across * (tile + LINE)
        pen.text((x + 3, y + 1), fitting(pen, label, 3 * tile - 6), fill="black")
        given = Image.open(path).convert("RGBA").resize((tile, tile))
        sheet.paste("#808080", (x, y + LINE, x + tile, y + LINE + tile))
        sheet.paste(given, (x, y + LINE), given)
        scene = load_scene(Run.open(folder))[0]
        seen = to_uint8(render_view(scene, orbit_view(orbit_cameras([30.0, 210.0], 18.0, 2.5), tile)))
        for j, view in enumerate(seen, 1):
            sheet.paste(Image.fromarray(view), (x + j * tile, y + LINE))
    to.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(to, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, required=True, help="the judge's views (tools/clip/draw.py)")
    parser.add_argument("--things", type=int, default=50, help="models of the vocabulary")
    parser.add_argument("--only", choices=("make", "judge"), help="half of the work")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=HERE / "results" / "images.json")
    parser.add_argument("--pictures", type=Path, default=HERE.parent / "docs" / "benchmarks", help="folder")
    args = parser.parse_args()
    try:
        prior = load_prior("bundled")
        assert isinstance(prior, BundledPrior)
        stems = choose(args.data, list(prior.vocabulary), args.things)
        for name, stem in stems.items():
            save_picture(Truth.read(args.data / f"{stem}.0.npz").picture(), picture_of(args.out, "things", name))
        for name in THINGS:
            save_picture(drawing(name), picture_of(args.out, "drawings", name))
        jobs = [job_of(args.out, "drawings", name) for name in THINGS] + [job_of(args.out, "things", n) for n in stems]
        if args.only != "judge":
            run(jobs, args.workers)
        if args.only == "make":
            return
        things = measure(args.out, args.data, stems, prior)
        made_of = {n: recognised(prior, n, read_reference(picture_of(args.out, "drawings", n))) for n in THINGS}
        page = {"what": "images", "novel": NOVEL} | provenance()
        page |= {"summary": summary(things), "things": things, "drawings": made_of}
        write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
        said = {"drawings": made_of, "things": things}
        for kind, names in (
            ("drawings", list(THINGS)),
            ("things", list(things)),
        ):
            cells = [
                (f"{n}: {said[kind][n]['said']}", picture_of(args.out, kind, n), job_of(args.out, kind, n).folder)
                for n in names
                if job_of(args.out, kind, n).ask() is None
            ]
            cells = cells[:: max(1, len(cells) // SHOWN)][:SHOWN] if kind == "things" else cells
            draw(cells, args.pictures / f"images-{kind}.jpg", across=4)
    except UserError as error:
        sys.exit(f"images: error: {error}")


if __name__ == "__main__":
    main()
