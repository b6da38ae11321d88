"""Command-line options made from ``Config``: one for each setting, with its help, default and range."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

from ..errors import UserError
from .catalogue import STAGES, Setting, all_settings
from .names import SHORTHANDS, as_text, closest, full_name

GROUPS = {
    "": "the run",
    "prior": "prior: the frozen diffusion model",
    "view": "view: where we look from",
    "shading": "shading: how the object is lit",
    "scene": "scene: what is optimised, and how fast it learns",
    "distillation": "distillation: how the prior moves the scene",
    "regularizers": "regularizers: weights of the penalties",
    "optimizer": "optimizer: Adam",
    "run": "run: checkpoints and previews",
    "export": "export: the mesh, its texture and the film",
    "cost": "cost: prices, and what an estimate of the energy assumes",
}
LEFT_OUT = {"prompt", "preset"}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are UserErrors of one line."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", Formatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{' '.join(message.split())}; see '{self.prog} --help'")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse all of argv; an unknown option is answered with the nearest one."""
        given, rest = self.parse_known_args(join_negative(argv))
        of_stages, rest = stage_settings(rest)
        vars(given).update(of_stages)
        if rest:
            known = [o for action in self._actions for o in action.option_strings]
            raise UserError(unknown_argument(rest[0], known))
        return given


def stage_settings(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Settings of one stage, '--stages.2.steps=10' or with a space, as {'stages.2.steps': '10'}, and what is left.

    argparse cannot list them: they are as many as there are stages times settings.
    """
    found, rest, words = {}, [], iter(argv)
    for word in words:
        if not word.startswith(f"--{STAGES}."):
            rest.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = next(words, "")
            if not value:
                raise UserError(f"--{name} needs a value")
        found[full_name(name)] = value
    return found, rest


class Formatter(argparse.HelpFormatter):
    """Wider than argparse's own, so that a setting's name and its help share a line."""

    def __init__(self, prog: str, **kwargs: Any):
        super().__init__(prog, max_help_position=36, width=120, **kwargs)


def unknown_argument(word: str, known: Iterable[str]) -> str:
    """One line about an unexpected argument."""
    if not word.startswith("-"):
        return f"unexpected argument {word!r}; put a prompt of several words in quotes"
    name = word.partition("=")[0]
    found = closest(name.lstrip("-").replace("_", "-"), [option.lstrip("-") for option in known])
    return f"unknown option {name!r}" + (f" (did you mean '--{found}'?)" if found else "; see --help")


def join_negative(argv: list[str]) -> list[str]:
    """['--view.elevation-deg', '-30,60'] as one word with '=': argparse takes a leading minus for an option."""
    joined: list[str] = []
    for word in argv:
        before = joined[-1] if joined else ""
        if re.match(r"-[\d.]", word) and before.startswith("--") and "=" not in before:
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def option_name(setting: str) -> str:
    """'distillation.guidance_scale' as '--distillation.guidance-scale'."""
    return "--" + setting.replace("_", "-")


def add_settings(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    """An option for each setting, in groups; ``defaults`` {dotted name: value} are for the help.

    Values stay text: ``building.build`` reads and checks them.
    """
    short = {full: name for name, full in SHORTHANDS.items()}
    for group, title in GROUPS.items():
        section = parser.add_argument_group(title)
        for setting in all_settings().values():
            if setting.group == group and setting.name not in LEFT_OUT:
                names = [option_name(setting.name)]
                if setting.name in short:
                    names.insert(0, option_name(short[setting.name]))
                section.add_argument(
                    *names,
                    dest=setting.name,
                    metavar=metavar(setting),
                    default=argparse.SUPPRESS,
                    help=help_text(setting, defaults.get(setting.name, setting.default)),
                )


def metavar(setting: Setting) -> str:
    """The name of the value in the help: one for each type of value."""
    return metavar_of(setting.kind)


def metavar_of(kind: Any) -> str:
    """BOOL, N (whole), X (a number), A,B (two), A,B,… (several), X|P:X,… (a schedule), NAME."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return metavar_of(args[0])
    if origin in (Union, UnionType):  # the only unions are schedules
        return f"{metavar_of(args[0])}|P:{metavar_of(args[0])},…"
    if origin is tuple:
        return "A,B,…" if args[-1] is Ellipsis else "A,B"
    return {bool: "BOOL", int: "N", float: "X"}.get(kind, "NAME")


def help_text(setting: Setting, default: Any) -> str:
    """The setting's docstring, its range and default. '%' is doubled for argparse."""
    text = f"{setting.help.strip()} [{setting.allowed}; default {as_text(default)}]"
    return " ".join(text.split()).replace("%", "%%")


def given_settings(given: argparse.Namespace) -> dict[str, str]:
    """The settings that were given on the command line, {dotted name: text}."""
    return {
        name: value
        for name, value in vars(given).items()
        if (name in all_settings() and name not in LEFT_OUT) or name.startswith(f"{STAGES}.")
    }
