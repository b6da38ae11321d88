"""What a new run must be given to be like a recorded one: the settings that differ from its preset, its picture, its start."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..generation import REFERENCE
from ..run import CONFIG, Run
from ..settings.building import build, fitting
from ..settings.catalogue import PAGES, STAGES
from ..settings.config import Config
from ..settings.names import as_text, flatten
from ..settings.presets import load_preset
from .offers import REFUSED, presets

OTHERWISE = "balanced"
"""The preset that stands for one that the studio does not offer; it is the default of every setting."""
MOST = 100
"""A request has at most so many settings."""
OF_THE_MACHINE = ("device", "threads")
"""Settings that a new run takes from the studio."""


def again(run: Run) -> dict[str, Any]:
    """{"again", "left_out"}: the body of ``POST /runs`` for a run with the same prompt, preset, settings, picture and start; and a
    line for each thing that such a body cannot say. UserError if it would have more than ``MOST`` settings."""
    config = run.config
    preset = config.preset if config.preset in presets() else OTHERWISE
    settings, left_out = unlike(config, preset)
    for name in ("prompt", "preset", *OF_THE_MACHINE):
        settings.pop(name, None)
    found: dict[str, Any] = {"prompt": config.prompt, "preset": preset, "settings": settings}
    if settings.pop("prior.image", ""):
        settings.pop("prior.asks", None)  # the picture says it
        if (run.path / REFERENCE).is_file():
            found["picture"] = run.path.name
        else:
            left_out.append("its picture")
    if start := settings.pop("start", ""):
        path = Path(start)
        if path.parent.resolve() == run.path.parent.resolve() and (path / CONFIG).is_file():
            found["start"] = path.name
        else:
            left_out.append("the scene that it began with")
    left_out += [name for name in REFUSED if settings.pop(name, None) is not None]
    if len(settings) > MOST:
        raise UserError(f"more than {MOST} settings differ from the preset's")
    left_out += [f"what was changed after step {change['step']}" for change in config.changes]
    return {"again": found, "left_out": left_out}


def again_at(folder: Path) -> dict[str, Any]:
    """``again`` for a run's folder; nothing for one that cannot be read."""
    try:
        return again(Run.open(folder))
    except UserError:
        return {}


def unlike(config: Config, preset: str) -> tuple[dict[str, str], list[str]]:
    """{dotted name: text} of what makes ``preset`` these settings, and the names of those of single stages that differ as well.

    A setting that is given holds in every stage, so one that the stages of the run lack, and that those of the preset
    have, was given.
    """
    own = flatten(config.model_dump(mode="json", exclude=set(PAGES)))
    usual, pages = _usual(preset, tuple((name, own[name]) for name in own if name.endswith(".kind")))
    differ = {name for name, value in own.items() if name not in usual or as_text(usual[name]) != as_text(value)}
    if len(pages) != len(config.stages):
        return {name: as_text(own[name]) for name in own if name in differ}, [STAGES]
    left_out = []
    for number, (page, recorded) in enumerate(zip(pages, config.stages, strict=True), 1):
        differ |= page.keys() - recorded.keys()
        new = [n for n, value in recorded.items() if n not in page or as_text(page[n]) != as_text(value)]
        left_out += [f"{STAGES}.{number}.{name}" for name in new]
    return {name: as_text(own[name]) for name in own if name in differ}, left_out


@cache
def _usual(preset: str, kinds: tuple[tuple[str, Any], ...]) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """The values of a preset that is given these kinds, without the kinds that are not its own; and the pages of its stages."""
    values = load_preset(preset)
    plain = build(values)
    values = fitting(values, dict(kinds)) | dict(kinds)
    values.pop(STAGES, None)
    usual = flatten(build(values).model_dump(mode="json", exclude=set(PAGES)))
    own = flatten(plain.model_dump(mode="json", exclude=set(PAGES)))
    given = [name for name, kind in kinds if own[name] != kind]
    return {name: value for name, value in usual.items() if name not in given}, plain.stages
