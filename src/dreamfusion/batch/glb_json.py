"""What a GLB file says about itself, without a library and without reading its geometry."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST = 64_000_000
"""Bytes of JSON that are read."""


def glb_json(path: Path) -> dict[str, Any] | None:
    """The JSON part of a GLB (glTF 2.0, section 4.4). None if there is no such file, or if it is not whole."""
    with suppress(OSError, ValueError, struct.error), path.open("rb") as file:
        magic, _, length, json_length, kind = struct.unpack("<4sII I4s", file.read(20))
        if magic == b"glTF" and kind == b"JSON" and length == path.stat().st_size and json_length < MOST:
            page = json.loads(file.read(json_length))
            return page if isinstance(page, dict) else None
    return None


def asset_figures(path: Path) -> dict[str, Any] | None:
    """{triangles, iou, missing, extra, pieces} as far as an asset's file has them; None if there is no whole file."""
    page = glb_json(path)
    if page is None:
        return None
    with suppress(KeyError, IndexError, TypeError):
        counts = [page["accessors"][p["indices"]]["count"] for mesh in page["meshes"] for p in mesh["primitives"]]
        found: dict[str, Any] = {"triangles": sum(counts) // 3}
        said = page["scenes"][0].get("extras", {}).get("dreamfusion", {}).get("silhouettes") or {}
        return found | {key: said[key] for key in ("iou", "missing", "extra", "pieces") if key in said}
    return {}
