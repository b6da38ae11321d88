"""A ``Config`` out of values by dotted name, checked, and those of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError

from ..errors import UserError
from .catalogue import STAGES, all_settings
from .config import Config
from .names import as_text, flatten, from_text, full_name, of_a_stage


def build(values: Mapping[str, Any]) -> Config:
    """A Config of {dotted name: value or text}. UserError of one line for unknown names and values not allowed."""
    given = dict(values)
    pages = given.pop(STAGES, ())
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


def stage_configs(config: Config) -> list[Config]:
    """The settings of each stage: the run's own with the stage's page on top. UserError, naming the stage, where one does
    not fit."""
    if not config.stages:
        return [config]
    base = flatten(config.model_dump(exclude={STAGES}))
    found = []
    for k, page in enumerate(config.stages):
        try:
            found.append(build(fitting(base, page) | page))
        except UserError as error:
            raise UserError(f"in stage {k + 1}: {error}") from None
    return found


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
