"""``dreamfusion presets``: the presets, or one of them."""

from __future__ import annotations

import argparse

from ..errors import UserError
from ..output import Output


def options(parser: argparse.ArgumentParser) -> None:
    """A preset, and how much to say of it."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this preset's page")
    parser.add_argument("--full", action="store_true", help="show every setting, including the defaults")


def act(given: argparse.Namespace) -> int:
    """List the presets, or show the page or the settings of one."""
    from ..settings.building import build
    from ..settings.catalogue import PAGES, STAGES
    from ..settings.names import as_text, flatten
    from ..settings.presets import load_preset, preset_names, preset_text

    output: Output = given.output
    if given.name is None and given.full:
        raise UserError("--full shows every setting of one preset; name it, such as 'dreamfusion presets fast --full'")
    if given.name is None:
        said = {name: preset_text(name).splitlines()[0].lstrip("# ") for name in preset_names()}
        output.note(presets=said)
        for name, first in said.items():
            output.say(f"{name:16} {first}")
        return 0
    config = build(load_preset(given.name))
    shown = flatten(config.model_dump(exclude={"prompt", *PAGES}))
    for k, page in enumerate(config.stages, 1):
        shown |= {f"{STAGES}.{k}.{name}": value for name, value in page.items()} or {f"{STAGES}.{k}": "as above"}
    output.note(preset=given.name, settings=shown)
    if given.full:
        for setting, value in shown.items():
            output.say(f"{setting}: {as_text(value)}")
    else:
        output.say(preset_text(given.name), end="")
    return 0
