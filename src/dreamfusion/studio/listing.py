"""What the studio tells about the runs in its folder. It reads files, and never leaves the folder."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..batch.glb_json import asset_figures
from ..cost.meter import read_parts, total
from ..errors import UserError
from ..run import CHECKPOINT, CONFIG, META, Run
from ..settings.building import stage_configs
from ..settings.names import as_text

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
FILES = {
    "asset.glb": "model/gltf-binary",
    "preview.png": "image/png",
    "turntable.mp4": "video/mp4",
    "run.yaml": "text/plain; charset=utf-8",
}
"""What of a run's folder can be asked for."""
POINTS = 240
"""Points of a run's curves."""
CURVES = ("residual_norm", "similarity", "opacity", "t")


def folder_of(root: Path, id: str) -> Path | None:
    """The folder of a run, directly inside ``root``; None for a name that is no run's, or that leads elsewhere."""
    if not ID.fullmatch(id):
        return None
    path = root / id
    with suppress(OSError, RuntimeError):
        if path.resolve() == root.resolve() / id and (path / CONFIG).is_file():
            return path
    return None


def file_of(root: Path, id: str, name: str) -> Path | None:
    """A file of a run's folder; None if there is none, or if it leads elsewhere."""
    folder = folder_of(root, id)
    if folder is None or name not in FILES:
        return None
    path = folder / name
    return path if path.resolve() == folder.resolve() / name and path.is_file() else None


def runs_in(root: Path) -> list[Path]:
    """The runs' folders, the newest first."""
    found = [path for p in root.iterdir() if (path := folder_of(root, p.name)) is not None]
    return sorted(found, key=lambda path: (path / CONFIG).stat().st_mtime, reverse=True)


def summary(folder: Path) -> dict[str, Any]:
    """What a gallery shows of a run. ``state``: "done", "stopped", or "broken" for a folder that cannot be read."""
    found: dict[str, Any] = {"id": folder.name, "state": "broken", "prompt": folder.name, "preset": "", "seed": 0}
    try:
        run = Run.open(folder)
        steps = sum(config.steps for config in stage_configs(run.config))
        done = run.read_meta()["step"] if (folder / CHECKPOINT / META).exists() else 0
    except (UserError, KeyError, OSError) as error:
        return found | {"error": str(error), "steps": 0, "step": 0}
    figures = asset_figures(folder / "asset.glb")
    found |= {"prompt": run.config.prompt, "preset": run.config.preset, "seed": run.config.seed}
    found |= {"step": done, "steps": steps, "figures": figures or {}}
    if run.config.changes:
        found["changes"] = [
            {"step": change["step"], "settings": {name: as_text(value) for name, value in change["settings"].items()}}
            for change in run.config.changes
        ]
    found["state"] = "done" if figures is not None and done == steps else "stopped"
    found["files"] = [name for name in FILES if (folder / name).is_file()]
    if parts := read_parts(folder):
        found["cost"] = total(parts)
    return found


def curves(folder: Path) -> list[dict[str, float]]:
    """Some of the log's lines, evenly spread: {"step", …} with the figures of ``CURVES`` that are there."""
    try:
        lines = Run(folder, None).read_log()  # type: ignore[arg-type]
    except UserError:
        return []
    every = max(1, -(-len(lines) // POINTS))
    chosen = lines[::-1][::every][::-1]
    return [{key: line[key] for key in ("step", *CURVES) if isinstance(line.get(key), int | float)} for line in chosen]
