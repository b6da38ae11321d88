"""A ``Config`` out of values by dotted name, checked, and those of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError

from ..errors import UserError
from ..scene.scene_settings import begins_with_file
from .catalogue import CHANGES, PAGES, STAGES, all_settings
from .config import Config
from .names import as_text, flatten, from_text, full_name, of_a_change, of_a_stage


def build(values: Mapping[str, Any]) -> Config:
    """A Config of {dotted name: value or text}. UserError of one line for unknown names and values not allowed."""
    given = dict(values)
    pages, changes = given.pop(STAGES, ()), given.pop(CHANGES, ())
    page: dict[str, Any] = {}
    for name, value in given.items():
        setting = all_settings()[full_name(name)]
        group = page.setdefault(setting.group, {}) if setting.group else page
        group[setting.name.rpartition(".")[2]] = from_text(setting, value) if isinstance(value, str) else value
    _check_kinds(page)
    try:
        config = Config.model_validate(page)
    except ValidationError as error:
        raise UserError(explain(error, page)) from None
    config.stages = _stage_pages(pages)
    if config.stages:
        found = [flatten(stage.model_dump()) for stage in stage_configs(config)]  # says what is wrong in a stage
        config.stages = tuple(
            {name: of_stage[name] for name in page} for page, of_stage in zip(config.stages, found, strict=True)
        )
    config.changes = _changes(changes)
    for change in config.changes:
        stage_configs(config, change["step"])  # says what is wrong in a change
    return config


def _check_kinds(page: dict[str, Any]) -> None:
    """Name the kind of each group that comes in kinds. UserError for settings that another kind has."""
    for name in (n for n in all_settings() if n.endswith(".kind")):
        group = name.partition(".")[0]
        kind = page.setdefault(group, {}).setdefault("kind", all_settings()[name].default)
        if kind not in get_args(all_settings()[name].kind):
            raise UserError(f"{name} = {kind!r} is not allowed: it must be {all_settings()[name].allowed}")
        for leaf in page[group]:
            setting = all_settings()[f"{group}.{leaf}"]
            if setting.kinds and kind not in setting.kinds:
                raise UserError(f"{setting.name} belongs to {name}={' or '.join(setting.kinds)}; this run has {kind}")


def _stage_pages(pages: Any) -> tuple[dict[str, Any], ...]:
    """Each stage's page as {dotted name: value}. UserError if it is something else."""
    if not isinstance(pages, list | tuple) or not all(isinstance(page, Mapping) for page in pages):
        raise UserError(f"{STAGES} must be a list of pages of settings (name: value)")
    return tuple({of_a_stage(name): value for name, value in flatten(page).items()} for page in pages)


def _changes(found: Any) -> tuple[dict[str, Any], ...]:
    """The changes in the order of their steps. UserError if they are something else."""
    shape = f"{CHANGES} must be a list of {{step: a whole number, settings: {{name: value}}}}"
    if not isinstance(found, list | tuple):
        raise UserError(shape)
    changes = []
    for change in found:
        if not isinstance(change, Mapping) or set(change) != {"step", "settings"}:
            raise UserError(shape)
        step, settings = change["step"], change["settings"]
        if not isinstance(step, int) or isinstance(step, bool) or step < 0 or not isinstance(settings, Mapping):
            raise UserError(shape)
        changes.append({"step": step, "settings": {of_a_change(n): v for n, v in flatten(settings).items()}})
    return tuple(sorted(changes, key=lambda change: change["step"]))


def stage_configs(config: Config, step: int = 0) -> list[Config]:
    """The settings of each stage as they hold after ``step`` steps of the run: the run's own, with the stage's page on top, and
    on top of that the changes made until then, where the stage's kinds have such settings. UserError, naming the stage, where
    one does not fit."""
    new: dict[str, Any] = {}
    for change in config.changes:
        new |= change["settings"] if change["step"] <= step else {}
    if not config.stages:
        return [_with_changes(config, new)]
    base = flatten(config.model_dump(exclude=set(PAGES)))
    found = []
    for k, page in enumerate(config.stages):
        try:
            found.append(_with_changes(build(fitting(base, page) | page), new))
            if begins_with_file(found[-1].scene):
                base.pop("scene.file", None)  # the stages after it begin with what it has made
        except UserError as error:
            raise UserError(f"in stage {k + 1}: {error}") from None
    return found


def _with_changes(config: Config, new: Mapping[str, Any]) -> Config:
    values = flatten(config.model_dump(exclude=set(PAGES)))
    new = {name: value for name, value in new.items() if name in values}
    return build(values | new) if new else config


def fitting(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` without the settings that the overrides' kinds do not have: a page for a grid, asked for an MLP, leaves
    its levels out."""
    kinds = {name.partition(".")[0]: overrides[name] for name in overrides if name.endswith(".kind")}

    def fits(name: str) -> bool:
        setting = all_settings().get(name)
        kind = kinds.get(name.partition(".")[0])
        return setting is None or kind is None or not setting.kinds or kind in setting.kinds

    return {name: value for name, value in base.items() if fits(name)}


def explain(error: ValidationError, page: Mapping[str, Any]) -> str:
    """Pydantic's first complaint as one line: the setting, its value, what is allowed."""
    first = error.errors()[0]
    parts = [str(x) for x in first["loc"]]
    if len(parts) > 2 and f"{parts[0]}.kind" in all_settings():
        del parts[1]  # pydantic names the kind as well
    name = next((n for n in (".".join(parts[:k]) for k in (2, 1)) if n in all_settings()), "")
    said = str(first["ctx"]["error"]) if first["type"] == "value_error" else ""
    if not name:
        return f"{'.'.join(parts)}: {said or first['msg']}"
    value: Any = page
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else value
    shown = repr(value) if isinstance(value, str | NoneType) else as_text(value)
    return f"{name} = {shown} is not allowed: {said or 'it must be ' + all_settings()[name].allowed}"


def changed(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The same settings with some changed, checked as ``build`` does."""
    return build(fitting(flatten(config.model_dump()), overrides) | dict(overrides))
