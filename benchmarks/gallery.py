"""A gallery: ``python benchmarks/gallery.py --out runs/gallery --picture docs/gallery.jpg [--preset balanced]``.

Generates an asset for each line of ``gallery.txt`` (those that are there already are kept: stop and start it at will) and
draws all of them into one picture, from the front and from behind. An asterisk marks colour-object pairs that the prior's
training never showed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from dreamfusion import generate
from dreamfusion.export.views import render_views
from dreamfusion.loop import load_scene
from dreamfusion.priors.bundled import WEIGHTS
from dreamfusion.prompts import slug
from dreamfusion.run import Run
from dreamfusion.view.cameras import orbit_cameras

TILE, VIEWS, ACROSS = 144, (30.0, 210.0), 6


def make(prompt: str, folder: Path, preset: str) -> float:
    """Generate (or finish) one asset; the seconds it took, nan where it was there."""
    begin = time.perf_counter()
    if (folder / "asset.glb").exists():
        return float("nan")
    if (folder / "checkpoint" / "checkpoint.json").exists():
        generate(resume=folder)
    else:
        generate(prompt, preset, out=folder, export__turntable_frames=0)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--prompts", type=Path, default=Path(__file__).with_name("gallery.txt"))
    parser.add_argument("--only-draw", action="store_true", help="draw what is there, generate nothing")
    args = parser.parse_args()
    prompts = [line for line in args.prompts.read_text().splitlines() if line.strip()]
    held_out = set(json.loads(WEIGHTS.with_suffix(".json").read_text()).get("held_out", ()))
    args.out.mkdir(parents=True, exist_ok=True)
    rows = -(-len(prompts) // ACROSS)
    picture = Image.new("RGB", (ACROSS * TILE * len(VIEWS), rows * (TILE + 14)), "white")
    draw = ImageDraw.Draw(picture)
    for k, prompt in enumerate(prompts):
        folder = args.out / slug(prompt)
        if not args.only_draw:
            print(f"{prompt}: {make(prompt, folder, args.preset):.0f} s", flush=True)
        elif not (folder / "asset.glb").exists():
            continue
        scene, _ = load_scene(Run.open(folder))
        with torch.no_grad():
            views = render_views(scene, orbit_cameras(VIEWS, 18.0, 2.5), TILE)
        x, y = k % ACROSS * TILE * len(VIEWS), k // ACROSS * (TILE + 14)
        for j, view in enumerate(views):
            pixels = (view.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype("uint8")
            picture.paste(Image.fromarray(pixels), (x + j * TILE, y + 14))
        mark = "*" if prompt.removeprefix("an ").removeprefix("a ") in held_out else ""
        draw.text((x + 3, y + 1), prompt + mark, fill="black")
    picture.save(args.picture)


if __name__ == "__main__":
    main()
