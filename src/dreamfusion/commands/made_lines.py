"""What is printed about an asset that was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..output import Output

if TYPE_CHECKING:
    from ..asset import Asset


def summary(output: Output, folder: Path, report: dict[str, Any], seconds: float) -> None:
    """What was made."""
    from ..display import clock, memory_mb
    from ..run import CONFIG, LOG

    peak = memory_mb()[1]
    output.say(f"{clock(seconds)} min, peak memory {peak:.0f} MB, {shape_line(report)}")
    output.note(folder=str(folder), seconds=round(seconds, 1), peak_memory_mb=round(peak), geometry=report)
    for name in ("asset.glb", "splats.ply", "splats.glb", "turntable.mp4", "turntable.gif", "preview.png", CONFIG, LOG):
        if (folder / name).is_file():
            output.file(folder / name)


def shape_line(report: dict[str, Any]) -> str:
    """What a geometry report says, in a line."""
    count, shown = report["components"], report["silhouettes"]
    said = f"{report['triangles']} triangles, {count} piece{'s' if count != 1 else ''}, "
    said += "watertight" if report["watertight"] else "not watertight"
    if shown:
        said += f", silhouettes {shown['iou']:.2f} IoU, {shown['missing']:.1%} missing"
    return said + (", texture projected from six sides" if report.get("projected") else "")


def projected(asset: Asset) -> dict[str, Any]:
    """What a summary adds about an asset that could not be unwrapped in time."""
    return {"projected": True} if "unwrap_seconds" in asset.notes else {}
