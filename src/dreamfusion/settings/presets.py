"""Presets (pages of settings), and the one way from a preset, overrides and a prompt to a ``Config``.

A page is YAML with the nesting of ``Config``; what it leaves out is as in ``Config()``. A
``run.yaml`` is a page too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, nearest
from ..paths import reason, user_path
from ..prompts import check_prompt
from . import plain_yaml
from .beginnings import FILE, SKETCH, check_beginning, from_its_file, is_sketch, stage_of_file
from .building import build, fitting
from .catalogue import CHANGES, STAGES
from .config import Config
from .migration import from_format_1
from .names import flatten, full_names, text_names

FOLDER = Path(__file__).parent / "pages"


def preset_names() -> list[str]:
    """The presets that come with the package, the default first."""
    return sorted((p.stem for p in FOLDER.glob("*.yaml")), key=lambda name: (name != "balanced", name))


def preset_text(name: str) -> str:
    """A preset's page as it is written, with its comments, by its name or as a YAML file. UserError if there is none."""
    if name in preset_names():
        return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    path = user_path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"unknown preset {name!r}{nearest(name, preset_names())}; a file's name must end in .yaml")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = reason(error, path) if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read the preset {name}: {why}") from None


def load_preset(name: str = "balanced") -> dict[str, Any]:
    """A preset's values as {dotted name: value}, checked; what is not in it has the default of ``Config``.

    ``stages``, where the page has them, are a list of such dictionaries.
    """
    try:
        page = plain_yaml.read(preset_text(name), text_names()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"the preset {name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(page, dict):
        raise UserError(f"the preset {name} is not a page of settings (name: value)")
    try:
        values = full_names(settings_of(page))
        values.setdefault("preset", name if name in preset_names() else Path(name).name)
        build(values)
    except UserError as error:
        raise UserError(f"in the preset {name}: {error}") from None
    return values


def settings_of(page: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a page, {dotted name: value}: a preset's, or those that a run.yaml records, in any of its formats."""
    recorded = page.get("config")
    if not isinstance(recorded, Mapping):
        return flatten(page)
    return from_format_1(flatten(recorded)) if page.get("format") == 1 else flatten(recorded)


def resolve(preset: str = "balanced", overrides: Mapping[str, Any] | None = None, prompt: str = "") -> Config:
    """The settings of a run: defaults, then the preset's page, then the overrides, then the prompt.

    Overrides have dotted names, with '.' or '__', and values or their text: {'view.fov_deg': 50}, {'steps': '20'}. They hold
    in every stage; 'stages.2.steps' is of one stage. A file to begin with is one of the first stage that can begin with it, and the
    stages before it are left out. With the prompt '' the page's prompt is used. Every mistake is a UserError of one
    line.
    """
    values = load_preset(preset)
    pages = [full_names(flatten(page)) for page in values.pop(STAGES, ())]
    given = full_names(flatten(overrides or {}))
    if file := given.get(FILE, values.get(FILE)):
        stage = stage_of_file(given, values, pages)
        name = f"{STAGES}.{stage}.{FILE}" if stage else SKETCH if is_sketch(given, values) else FILE
        given = {n: value for n, value in given.items() if n != FILE} | {name: file}
        values.pop(FILE, None)
    everywhere = {name: value for name, value in given.items() if not name.startswith(f"{STAGES}.")}
    values = fitting(values, everywhere) | everywhere
    pages = [{n: v for n, v in page.items() if n not in everywhere} for page in pages]
    for name in given.keys() - everywhere.keys():
        _, number, inside = name.split(".", 2)
        if not 1 <= int(number) <= len(pages):
            raise UserError(f"{name}: the preset {preset} has {len(pages) or 'no'} stages")
        pages[int(number) - 1][inside] = given[name]
    pages = from_its_file(pages, given, values.get("scene.kind", ""))
    changes = [
        {**change, "settings": {n: v for n, v in flatten(change["settings"]).items() if n not in everywhere}}
        for change in values.pop(CHANGES, ())
    ]
    if values.get("prior.image"):
        values["prior.image"] = str(Path(values["prior.image"]).expanduser().resolve())
        if given.get("prior.asks", "image") != "image":
            raise UserError(
                f"prior.image answers the question 'image', but prior.asks is {given['prior.asks']!r}; leave one out"
            )
        values["prior.asks"] = "image"
    prompt = prompt or values.get("prompt", "")
    # With a picture, the prompt may be left open: the prior then says what it sees.
    values["prompt"] = prompt if not prompt and values.get("prior.image") else check_prompt(prompt)
    config = build(values | ({STAGES: pages} if pages else {}) | ({CHANGES: changes} if changes else {}))
    check_beginning(config)
    return config
