"""Contact sheets of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from dreamfusion.export.pictures import render_view
from dreamfusion.export.turntable import to_uint8
from dreamfusion.recorded import load_scene
from dreamfusion.run import CHECKPOINT, META, Run
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view

LINE = 14
"""Height of a label in pixels."""


def sheet(
    cells: Sequence[tuple[str, Path]], across: int, tile: int = 144, views: Sequence[float] = (30.0, 210.0)
) -> Image.Image:
    """Runs with their labels, ``across`` in a row, each from the azimuths ``views``; white where there is no checkpoint."""
    wide = tile * len(views)
    picture = Image.new("RGB", (across * wide, -(-len(cells) // across) * (tile + LINE)), "white")
    draw = ImageDraw.Draw(picture)
    for k, (label, folder) in enumerate(cells):
        x, y = k % across * wide, k // across * (tile + LINE)
        draw.text((x + 3, y + 1), fitting(draw, label, wide - 6), fill="black")
        if not (folder / CHECKPOINT / META).is_file():
            continue
        scene, _ = load_scene(Run.open(folder))
        seen = to_uint8(render_view(scene, orbit_view(orbit_cameras(views, 18.0, 2.5), tile)))
        for j, view in enumerate(seen):
            picture.paste(Image.fromarray(view), (x + j * tile, y + LINE))
    return picture


def fitting(draw: ImageDraw.ImageDraw, label: str, width: int) -> str:
    """The label, cut short with dots where it is wider than ``width`` pixels."""
    if draw.textlength(label) <= width:
        return label
    while label and draw.textlength(label + "...") > width:
        label = label[:-1]
    return label + "..."
