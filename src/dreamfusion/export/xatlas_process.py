"""xatlas, here or as a process that can be ended: ``python xatlas_process.py IN.npz OUT.npz``. It imports nothing of the package."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import xatlas


def generate(points: Any, faces: Any, chart_area: float, size: int, padding: int) -> dict[str, Any]:
    """An atlas of points (V, 3) float32 and faces (F, 3) uint32, whose charts have at most ``chart_area``, packed into about
    size x size texels: ``source`` (N,), the vertex of each of its own; ``faces`` (F, 3); ``uv`` (N, 2) in [0, 1]; and its ``sides``
    in texels (2,)."""
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_chart_area = float(chart_area)
    pack.resolution, pack.padding, pack.bilinear = int(size), int(padding), True
    atlas = xatlas.Atlas()
    atlas.add_mesh(points, faces)
    atlas.generate(charts, pack)
    source, made, uv = atlas[0]
    return {"source": source, "faces": made, "uv": uv, "sides": np.array([atlas.width, atlas.height])}


if __name__ == "__main__":
    with np.load(sys.argv[1]) as given:
        np.savez(sys.argv[2], **generate(**given))
