"""What a prior's id says besides the checkpoint: 'BASE + lora:FILE@0.8 + config:FOLDER + variant:fp16'.

lora: weights that are added to the checkpoint's; config: where a single file's configuration comes from; variant: which
of several weight files of each part. A mixture's terms may have them too.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..paths import kind_of, user_path

EXTRA = re.compile(r"\s\+\s+(?=(?:lora|config|variant):)")


@dataclass(frozen=True)
class Lora:
    """Low-rank weights in a .safetensors file, added ``scale`` times (Hu et al. 2021)."""

    path: Path
    scale: float = 1.0

    def __str__(self) -> str:
        return f"lora:{self.path}" + (f"@{self.scale:.10g}" if self.scale != 1 else "")


@dataclass(frozen=True)
class PriorId:
    """An id in its parts. ``base``: a hub id, a folder or a file."""

    base: str
    config: str = ""
    variant: str = ""
    loras: tuple[Lora, ...] = ()

    def __str__(self) -> str:
        config = [f"config:{self.config}"] if self.config else []
        variant = [f"variant:{self.variant}"] if self.variant else []
        return " + ".join([self.base, *config, *variant, *map(str, self.loras)])


def parse(id: str) -> PriorId:
    """The parts of an id that is no mixture. UserError for an extra without a value, or with one that means nothing."""
    base, *extras = EXTRA.split(id.strip())
    found = PriorId(base)
    for extra in extras:
        kind, _, value = extra.partition(":")
        value = value.strip()
        if not value:
            raise UserError(f"{extra.strip()!r} of the prior {id!r} says nothing; write {kind}:VALUE")
        if kind == "lora":
            found = replace(found, loras=(*found.loras, parse_lora(value)))
        elif getattr(found, kind):
            raise UserError(f"the prior {id!r} has two of {kind}:")
        elif kind == "config":
            found = replace(found, config=value)
        else:
            found = replace(found, variant=value)
    return found


def parse_lora(text: str) -> Lora:
    """'FILE' or 'FILE@0.8'. UserError for a scale that is no number."""
    if text.startswith("hf:"):
        raise UserError(f"lora:{text}: a LoRA is a file; download it and give its path")
    file, at, scale = text.rpartition("@")
    if not at or kind_of(user_path(text)) != "nothing":
        return Lora(user_path(text))
    try:
        value = float(scale)
    except ValueError:
        value = float("nan")
    if not -100 <= value <= 100:
        raise UserError(f"lora:{text}: the scale {scale!r} must be a number, -100 to 100")
    return Lora(user_path(file), value)


def absolute_path(text: str) -> str:
    """A path that is there as an absolute one; any other text as it is."""
    if not text or text.startswith("hf:"):
        return text
    path = user_path(text)
    return os.path.abspath(path) if kind_of(path) != "nothing" else text


def absolute(id: str) -> str:
    """An id (of no mixture) whose paths mean the same from every folder."""
    if id in ("bundled", "guide"):
        return id
    if id.startswith("guide:"):
        return f"guide:{absolute_path(id.removeprefix('guide:'))}"
    found = parse(id)
    loras = tuple(replace(lora, path=Path(absolute_path(str(lora.path)))) for lora in found.loras)
    return str(replace(found, base=absolute_path(found.base), config=absolute_path(found.config), loras=loras))
