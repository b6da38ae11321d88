"""The settings of ``Config`` by dotted name: what each means and allows, as text and from text."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..errors import UserError
from . import plain_yaml
from .config import Config

SHORTHANDS = {
    "guidance_scale": "distillation.guidance_scale",
    "prior": "prior.id",
    "image": "prior.image",
    "mesh": "scene.file",
}
"""Short names that may stand for the dotted ones."""
STAGES = "stages"
OF_THE_RUN = ("prompt", "preset", "seed", "start", "device", "threads", "run", "export", "cost", STAGES)
"""Settings and groups that hold for the whole run, so that no stage can change them."""


@dataclass(frozen=True)
class Setting:
    """One setting: dotted name, what it is for, its default, its type and the type's limits.

    ``kinds``: the values of its group's ``kind`` that have it; empty if all have it.
    """

    name: str
    help: str
    default: Any
    kind: Any
    limits: tuple[Any, ...]
    kinds: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The part of the name before the dot; '' for settings of the run itself."""
        return self.name.rpartition(".")[0]

    @property
    def allowed(self) -> str:
        """What values it takes, in words."""
        return describe(self.kind, self.limits)


@cache
def all_settings() -> dict[str, Setting]:
    """Every setting of ``Config`` by its dotted name, in the order of the source."""
    return {s.name: s for s in _walk(Config, "")}


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        if members := _members(info.annotation):
            yield from _of_any_kind(members, type(info.default), f"{prefix}{name}.")
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _walk(info.annotation, f"{prefix}{name}.")
        elif name != STAGES:
            limits = (*info.metadata, *(info.examples or ()))
            yield Setting(prefix + name, info.description or "", info.default, info.annotation, limits)


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The classes of a union that is told apart by ``kind``; none for any other type."""
    args = get_args(get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation)
    return [a for a in args if isinstance(a, type) and issubclass(a, BaseModel)]


def _of_any_kind(members: Sequence[type[BaseModel]], default: type[BaseModel], prefix: str) -> Iterator[Setting]:
    """The settings of a group that comes in kinds, the default kind's values first; the help says which kinds have it."""
    of = {m.model_fields["kind"].default: {s.name: s for s in _walk(m, prefix)} for m in members}
    chosen = default.model_fields["kind"].default
    yield Setting(f"{prefix}kind", _KINDS[prefix], chosen, Literal[tuple(of)], ())
    for name in dict.fromkeys(n for settings in of.values() for n in settings if n != f"{prefix}kind"):
        having = {kind: settings[name] for kind, settings in of.items() if name in settings}
        setting = having.get(chosen) or next(iter(having.values()))
        helps = {s.help: [kind for kind, other in having.items() if other.help == s.help] for s in having.values()}
        if len(helps) > 1:
            setting = replace(setting, help=" ".join(f"{_some(kinds, of)}: {text}" for text, kinds in helps.items()))
        elif len(having) < len(of):
            setting = replace(setting, help=f"{_some(having, of)}: {setting.help}")
        yield replace(setting, kinds=() if len(having) == len(of) else tuple(having))


def _some(kinds: Collection[str], of: Collection[str]) -> str:
    """Kinds in words: their names, or those of the others where these are fewer."""
    others = [kind for kind in of if kind not in kinds]
    return ", ".join(kinds) if len(kinds) <= 2 * len(others) else f"all but {', '.join(others)}"


_KINDS = {
    "scene.": (
        "What is optimised: 'grid', a multi-resolution feature grid with a tiny head; 'mlp', the paper's field; 'mesh', "
        "triangles with a texture; or 'splats', 3D Gaussians."
    ),
    "distillation.": "The rule that turns the prior's answer into a direction; 'clip' needs the prior 'guide'.",
}


def describe(kind: Any, limits: tuple[Any, ...] = ()) -> str:
    """The values of a type in words: 'a number, 0 to 1000', 'true or false', 'one of grid, mlp'."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        extra = args[1].metadata if isinstance(args[1], FieldInfo) else args[1:]
        return describe(args[0], (*extra, *limits))
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, UnionType):  # the only unions are schedules
        number = describe(args[0])
        return f"{number}; or a schedule 0:a,1:b (progress:value)"
    if origin is tuple and args[-1] is not Ellipsis:
        return f"two numbers a,b, each {_interval(_limits_of(args[0])) or 'finite'}"
    if origin is tuple:
        return f"whole numbers a,b,…, each {_interval(_limits_of(args[0]), whole=True)}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        words = "a whole number" if kind is int else "a number"
        interval = _interval(limits, whole=kind is int)
        return f"{words}, {interval}" if interval else words
    examples = [x for x in limits if isinstance(x, str)]
    return f"one of {', '.join(examples)}" if examples else "text"


def _limits_of(kind: Any) -> tuple[Any, ...]:
    extra = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return tuple(m for e in extra for m in (e.metadata if isinstance(e, FieldInfo) else (e,)))


def _interval(limits: tuple[Any, ...], whole: bool = False) -> str:
    low = high = ""
    for limit in limits:
        if isinstance(limit, annotated_types.Ge):
            low = f"{limit.ge}"
        elif isinstance(limit, annotated_types.Gt):
            low = f"{limit.gt + 1}" if whole else f"above {limit.gt}"  # type: ignore[operator]
        elif isinstance(limit, annotated_types.Le):
            high = f"{limit.le}"
        elif isinstance(limit, annotated_types.Lt):
            high = f"{limit.lt - 1}" if whole else f"below {limit.lt}"  # type: ignore[operator]
    if low and high:
        if "above" in low or "below" in high:
            return f"{'' if 'above' in low else 'at least '}{low} and {'' if 'below' in high else 'at most '}{high}"
        return f"{low} to {high}"
    return low if "above" in low else f"{low} or more" if low else high


@cache
def text_names() -> frozenset[str]:
    """The last parts of the names, and the short names, of settings whose values are any text."""
    full = {s.name for s in all_settings().values() if describe(s.kind) == "text"}
    return frozenset(name.rpartition(".")[2] for name in full) | {n for n, of in SHORTHANDS.items() if of in full}


def as_text(value: Any) -> str:
    """A value as the command line takes it: 'true', '-30,60', '0:0.98,1:0.5'."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ",".join(":".join(map(as_text, x)) if isinstance(x, list | tuple) else as_text(x) for x in value)
    return str(value)


def from_text(setting: Setting, text: str) -> Any:
    """What a text means for a setting (pydantic checks it afterwards). The inverse of ``as_text``."""
    origin = get_origin(setting.kind)
    if origin is not tuple and origin not in (Union, UnionType):
        return text
    if text.lstrip().startswith("["):
        try:
            return plain_yaml.read(text)
        except yaml.YAMLError:
            return text
    if origin is tuple:
        return [part.strip() for part in text.split(",")]
    if ":" in text:
        return [part.split(":") for part in text.split(",")]
    return text


def full_name(name: str) -> str:
    """The dotted name for 'distillation__guidance_scale', 'view.fov-deg', a shorthand, or any of these of one stage
    ('stages.2.steps', counted from 1). UserError with the nearest."""
    name = name.replace("__", ".").replace("-", "_")
    head, _, rest = name.partition(".")
    number, _, inside = rest.partition(".")
    if head == STAGES and number.isdigit() and inside:
        return f"{STAGES}.{int(number)}.{_of_a_stage(inside)}"
    name = SHORTHANDS.get(name, name)
    if name not in all_settings():
        raise UserError(RENAMED.get(name) or f"unknown setting {name!r}{nearest_settings(name)}")
    return name


RENAMED = {
    "prior.camera": "prior.camera is now prior.asks: 'camera' for true, 'words' for false",
    "optimizer.lr": "optimizer.lr is now scene.lr",
    "optimizer.lr_head": "optimizer.lr_head is now scene.lr_head",
    "optimizer.hardening": "optimizer.hardening is now scene.hardening",
    "shading.latent_until": "shading.latent_until is now a stage of its own with shading.latent (see the preset latent-nerf)",
}


def _of_a_stage(name: str) -> str:
    """The dotted name of a setting that a stage may change. UserError for any other."""
    name = full_name(name)
    if name.partition(".")[0] in OF_THE_RUN:
        raise UserError(f"{name} holds for the whole run; a stage cannot change it")
    return name


def closest(name: str, names: Iterable[str]) -> str | None:
    """The dotted name whose last part is most like this one's, of the same group if there is one like it."""
    group, _, leaf = name.rpartition(".")
    names = list(names)
    inside = [n for n in names if n.rpartition(".")[0] == group]
    for some in (inside, names):
        leaves = {n.rpartition(".")[2]: n for n in reversed(some)}
        if found := difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.6):
            return leaves[found[0]]
    return None


def nearest_settings(name: str) -> str:
    """`` (did you mean 'x'?)`` for a name that is no setting; the group's settings where nothing is near."""
    if found := closest(name, all_settings()):
        return f" (did you mean {found!r}?)"
    inside = [n for n in all_settings() if n.startswith(name.partition(".")[0] + ".")]
    return f" (choices: {', '.join(inside)})" if inside else "; 'dreamfusion generate --help' lists them"


@cache
def _groups() -> frozenset[str]:
    return frozenset(n.partition(".")[0] for n in all_settings() if "." in n)


def flatten(page: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested page of settings as {dotted name: value}."""
    groups = _groups()
    flat: dict[str, Any] = {}
    for name, value in page.items():
        if isinstance(value, Mapping) and (value or name in groups):
            inside = flatten(value, f"{prefix}{name}.")
            if twice := next(iter(flat.keys() & inside), None):
                raise UserError(f"{twice} is given twice")
            flat |= inside
        elif not prefix and name in groups and (value is None or name not in SHORTHANDS):
            raise UserError(f"{name} is a group of settings; name one inside it, such as {name}.{_first(name)}")
        else:
            if f"{prefix}{name}" in flat:
                raise UserError(f"{prefix}{name} is given twice")
            flat[f"{prefix}{name}"] = value
    return flat


def full_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under their dotted names. UserError for unknown names, and for two names of one setting."""
    full: dict[str, Any] = {}
    for name, value in values.items():
        if (dotted := name if name == STAGES else full_name(name)) in full:
            raise UserError(f"{dotted} is given twice")
        full[dotted] = value
    return full


def _first(group: str) -> str:
    return next(n.partition(".")[2] for n in all_settings() if n.startswith(group + "."))


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
    return tuple({_of_a_stage(name): value for name, value in flatten(page).items()} for page in pages)


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
