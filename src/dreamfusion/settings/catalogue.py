"""Which settings there are: what each one means, and which values it takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .config import Config

STAGES = "stages"
"""The name of the pages of the stages. They hold settings, and are none themselves."""
CHANGES = "changes"
"""The name of the changes that were made to a stopped run. They hold settings, and are none themselves."""
PAGES = (STAGES, CHANGES)


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
        elif name not in PAGES:
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
