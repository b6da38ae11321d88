"""What a run begins with: nothing, another run's scene (``start``), or a file (``scene.file`` of a mesh or of splats)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UserError
from ..scene.scene_settings import begins_with_file
from .building import stage_configs
from .catalogue import STAGES
from .config import Config

FILE, SKETCH = "scene.file", "scene.sketch"
KINDS = ("mesh", "splats")
"""Kinds of scene that can begin with a file."""


def stage_of_file(given: Mapping[str, Any], values: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]) -> int:
    """The number of the stage, from 1, whose file a run's 'scene.file' is: the first stage that can begin with a file. 0 if the
    run has no stages, or only fields. Settings by dotted name: ``given`` and below them ``values`` hold in all stages, ``pages``
    in one each.

    UserError if another file is given for one of the stages.
    """
    kinds = [given.get("scene.kind", page.get("scene.kind", values.get("scene.kind"))) for page in pages]
    first = next((k for k, kind in enumerate(kinds, 1) if kind in KINDS), 0)
    others = [name for name in given if name.startswith(f"{STAGES}.") and name.endswith(f".{FILE}")]
    if first and others:
        raise UserError(f"a run begins with one file, but {FILE} (--mesh) and {others[0]} are given; leave one out")
    return first


def is_sketch(given: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether the file of a run of fields is a guide for them: where ``regularizers.sketch`` is not 0."""
    both = {**values, **given}
    weight = both.get("regularizers.sketch", 0)
    return both.get("scene.kind", "grid") not in KINDS and (isinstance(weight, list) or str(weight) not in ("0", "0.0"))


def from_its_file(pages: Sequence[dict[str, Any]], given: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The stages from the last one on that begins with a file of its own: those before it would change nothing. ``kind``: that
    of scenes whose page says none.

    UserError if ``given`` has a setting of a stage that is left out.
    """
    own = [k for k, page in enumerate(pages) if page.get(FILE) and page.get("scene.kind", kind) in KINDS]
    first = own[-1] if own else 0
    for name in given:
        parts = name.split(".")
        if parts[0] == STAGES and int(parts[1]) <= first:
            raise UserError(
                f"{name} changes nothing: stage {first + 1} begins with a file, so the run begins there; leave it out"
            )
    return list(pages[first:])


def check_beginning(config: Config) -> None:
    """UserError for a run that is told to begin with two things."""
    if config.start and any(begins_with_file(stage.scene) for stage in stage_configs(config)):
        raise UserError("start names the run to begin with, and scene.file (--mesh) a file; leave one out")
