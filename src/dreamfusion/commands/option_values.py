"""What the texts of options mean: numbers, lists of names, folders. Other texts are UserErrors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from ..paths import user_path

MODEL_FILES = ("glb", "gltf", "obj", "ply", "stl", "3mf", "usdz", "usd", "usda", "usdc", "fbx", "dae")
"""A name that ends so is meant as a file, whether or not the format is known."""


def run_folder(text: str) -> Path:
    """The folder that ``generate --out`` names; UserError for a name that looks like an asset's file."""
    path = user_path(text)
    if names_file(path, MODEL_FILES):
        raise UserError(f"--out {path}: a run is a folder, which holds asset.glb; 'dreamfusion export' writes one file")
    return path


def names_file(path: Path, suffixes: Iterable[str]) -> bool:
    """Whether a path that is not a folder ends in one of the suffixes ('glb')."""
    return path.suffix.lower().lstrip(".") in tuple(suffixes) and not path.is_dir()


def names(text: str, choices: Any, what: str) -> list[str]:
    """'a,b' as a list, each one of the choices; UserError with the nearest otherwise."""
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    for part in found or [text]:
        if part not in choices:
            raise UserError(f"unknown {what} {part!r}{nearest(part, choices)}")
    return list(dict.fromkeys(found))


def number(option: str, text: str, low: float, high: float, kind: Callable[[str], float] = float) -> float:
    """A number within a range; UserError otherwise."""
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        words = "a whole number" if kind is int else "a number"
        raise UserError(f"{option} = {text!r} is not allowed: it must be {words}, {low} to {high}")
    return value


def whole(option: str, text: str, low: int, high: int) -> int:
    """The same for whole numbers."""
    return int(number(option, text, low, high, int))


def azimuths_deg(text: str) -> list[float]:
    """'4' is four azimuths all around; '0,90' (or '45,') are azimuths in degrees."""
    if "," not in text:
        count = whole("--views", text, 1, 360)
        return [360 * k / count for k in range(count)]
    return [number("each of --views", part, -360, 360) for part in text.split(",") if part.strip()]
