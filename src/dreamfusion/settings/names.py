"""The names and values of settings as people write them: short and dotted names, nested pages, texts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Any, Union, get_origin

import yaml

from ..errors import UserError
from . import plain_yaml
from .catalogue import PAGES, STAGES, Setting, all_settings, describe

SHORTHANDS = {
    "guidance_scale": "distillation.guidance_scale",
    "prior": "prior.id",
    "image": "prior.image",
    "mesh": "scene.file",
}
"""Short names that may stand for the dotted ones."""
OF_THE_RUN = ("prompt", "preset", "seed", "start", "device", "threads", "run", "export", "cost", *PAGES)
"""Settings and groups that hold for the whole run, so that no stage can change them."""
MAY_CHANGE = ("distillation", "view", "shading", "regularizers", "optimizer", "export")
"""Groups of settings that may change while a run is stopped; so may the scene's learning rates (``scene.lr…``)."""
STAY = ("distillation.kind", "distillation.learner", "distillation.rank", "distillation.width")
"""Settings of these groups that say which tensors a run has."""
RENAMED = {
    "prior.camera": "prior.camera is now prior.asks: 'camera' for true, 'words' for false",
    "optimizer.lr": "optimizer.lr is now scene.lr",
    "optimizer.lr_head": "optimizer.lr_head is now scene.lr_head",
    "optimizer.hardening": "optimizer.hardening is now scene.hardening",
    "shading.latent_until": "shading.latent_until is now a stage of its own with shading.latent (see the preset latent-nerf)",
}


def full_name(name: str) -> str:
    """The dotted name for 'distillation__guidance_scale', 'view.fov-deg', a shorthand, or any of these of one stage
    ('stages.2.steps', counted from 1). UserError with the nearest."""
    name = name.replace("__", ".").replace("-", "_")
    head, _, rest = name.partition(".")
    number, _, inside = rest.partition(".")
    if head == STAGES and number.isdigit() and inside:
        return f"{STAGES}.{int(number)}.{of_a_stage(inside)}"
    name = SHORTHANDS.get(name, name)
    if name not in all_settings():
        raise UserError(RENAMED.get(name) or f"unknown setting {name!r}{nearest_settings(name)}")
    return name


def of_a_stage(name: str) -> str:
    """The dotted name of a setting that a stage may change. UserError for any other."""
    name = full_name(name)
    if name.partition(".")[0] in OF_THE_RUN:
        raise UserError(f"{name} holds for the whole run; a stage cannot change it")
    return name


def may_change(name: str) -> bool:
    """Whether a setting, by its dotted name, may change while a run is stopped."""
    return name not in STAY and (name.partition(".")[0] in MAY_CHANGE or name.startswith("scene.lr"))


def of_a_change(name: str) -> str:
    """The dotted name of a setting that may change while a run is stopped. UserError for any other."""
    name = full_name(name)
    if not may_change(name):
        raise UserError(
            f"a resumed run keeps its {name}; leave out {name}: what may change are {'.*, '.join(MAY_CHANGE)}.* "
            "(but not the rule's kind and learner) and scene.lr…"
        )
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


def full_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under their dotted names. UserError for unknown names, and for two names of one setting."""
    full: dict[str, Any] = {}
    for name, value in values.items():
        if (dotted := name if name in PAGES else full_name(name)) in full:
            raise UserError(f"{dotted} is given twice")
        full[dotted] = value
    return full


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


@cache
def _groups() -> frozenset[str]:
    return frozenset(n.partition(".")[0] for n in all_settings() if "." in n)


def _first(group: str) -> str:
    return next(n.partition(".")[2] for n in all_settings() if n.startswith(group + "."))


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
