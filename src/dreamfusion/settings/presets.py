"""Presets (pages of settings), and the one way from a preset, overrides and a prompt to a ``Config``.

A page is YAML with the nesting of ``Config``; what it leaves out keeps its default. A ``run.yaml`` is a page too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .config import Config
from ..errors import UserError, nearest
from ..prompts import check_prompt
from .names import build, flatten, full_name

FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """The presets that come with the package, the default first."""
    return sorted((p.stem for p in FOLDER.glob("*.yaml")), key=lambda name: (name != "balanced", name))


def preset_text(name: str) -> str:
    """A preset's page as it is written, comments and all: by name, or a YAML file. UserError where there is none."""
    if name in preset_names():
        return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"unknown preset {name!r}{nearest(name, preset_names())}; a file's name must end in .yaml")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read the preset {name}: {reason}") from None


def load_preset(name: str = "balanced") -> dict[str, Any]:
    """A preset's values as {dotted name: value}, checked; what is not in it has the default of ``Config``."""
    try:
        page = yaml.safe_load(preset_text(name)) or {}
    except yaml.YAMLError as error:
        raise UserError(f"the preset {name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(page, dict):
        raise UserError(f"the preset {name} is not a page of settings (name: value)")
    try:
        values = flatten(page["config"] if isinstance(page.get("config"), Mapping) else page)
        values.setdefault("preset", name if name in preset_names() else Path(name).name)
        build(values)
    except UserError as error:
        raise UserError(f"in the preset {name}: {error}") from None
    return values


def resolve(preset: str = "balanced", overrides: Mapping[str, Any] | None = None, prompt: str = "") -> Config:
    """The settings of a run: defaults, then the preset's page, then the overrides, then the prompt.

    Overrides have dotted names, with '.' or '__', and values or their text: {'view.fov_deg': 50}, {'steps': '20'}.
    A prompt of '' takes the page's. Every mistake is a UserError of one line.
    """
    values = load_preset(preset)
    values |= {full_name(name): value for name, value in flatten(overrides or {}).items()}
    values["prompt"] = check_prompt(prompt or values.get("prompt", ""))
    return build(values)
