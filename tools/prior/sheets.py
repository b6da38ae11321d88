"""Contact sheets for the review of ``models.tsv``: ``python tools/prior/sheets.py --models DIR --out sheets``.

Draws the models that the table keeps (``--dropped``: those it drops) from the front and from three quarters, sorted by
category and name, 80 on a sheet, with the file and the name below. ``--catalogue`` draws the Debian catalogue's too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from build_dataset import Job, load
from glb import ModelError
from models import Model, TableError, check_folder, read_models, read_names
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from render import Renderer

SIZE, LABEL, COLUMNS, ROWS = 96, 12, 8, 10
VIEWS = ((0.0, 10.0, 2.5), (35.0, 20.0, 2.5))
BACKGROUND = 0.62


def picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """A stored view (5, H, W) as a shaded picture in front of gray."""
    albedo, cover, shade = pixels[:3] / 255.0, pixels[3:4] / 255.0, pixels[4:5] / 255.0
    shaded = albedo / np.maximum(cover, 1 / 255) * shade + (1 - cover) * BACKGROUND
    return Image.fromarray(np.clip(shaded * 255, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def sheet(models: list[Model], folders: tuple[str, str], renderer: Renderer) -> Image.Image:
    """One contact sheet; ``folders`` are those of the GLBs and of the catalogue."""
    wide, high = SIZE * len(VIEWS), SIZE + LABEL
    out = Image.new("RGB", (COLUMNS * wide, ROWS * high), "white")
    draw = ImageDraw.Draw(out)
    for k, model in enumerate(models):
        x, y = k % COLUMNS * wide, k // COLUMNS * high
        draw.text(
            (x + 2, y + SIZE), f"{model.file.removesuffix('.glb')[-14:]} {model.name or model.drop}"[:32], "black"
        )
        try:
            renderer.load(load(Job(folders[not model.is_glb], model.file, model.turn_deg, "", (0, 0), 0)))
        except ModelError as error:
            print(f"{model.file}: {error}", file=sys.stderr)
            continue
        for j, view in enumerate(VIEWS):
            out.paste(picture(renderer.draw(*view)), (x + SIZE * j, y))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--catalogue", type=Path, help="folder of the .sh3f files")
    parser.add_argument("--dropped", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        models, names = read_models(), read_names()
        check_folder(args.models, models)
    except TableError as error:
        print(f"sheets: {error}", file=sys.stderr)
        sys.exit(2)
    shown = [m for m in models if bool(m.drop) == args.dropped and (m.is_glb or args.catalogue)]
    if not args.dropped:
        shown.sort(key=lambda m: (names[m.name].category, m.name, m.file))
    args.out.mkdir(parents=True, exist_ok=True)
    renderer, per_sheet = Renderer(SIZE), COLUMNS * ROWS
    for start in range(0, len(shown), per_sheet):
        part = sheet(shown[start : start + per_sheet], (str(args.models), str(args.catalogue)), renderer)
        part.save(args.out / f"{start // per_sheet:02d}.png")
        print(f"{min(start + per_sheet, len(shown))}/{len(shown)}", flush=True)


if __name__ == "__main__":
    main()
