"""Settings as runs of format 1 recorded them, in today's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .catalogue import all_settings

MOVED = {
    "optimizer.lr": "scene.lr", "optimizer.lr_head": "scene.lr_head", "optimizer.hardening": "scene.hardening",
}  # fmt: skip


def from_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted name: value} of format 1 in today's names: enough to open the run's scene and to judge it.

    Settings that the run's kinds do not have are left out, as are phases inside a run, which are stages now.
    """
    found = {MOVED.get(name, name): value for name, value in values.items()}
    found["prior.asks"] = "words" if found.pop("prior.camera", True) in (False, "false") else "camera"
    found["view.background_lr"] = found.get("scene.lr_head", 0.001)
    known = all_settings()

    def kept(name: str) -> bool:
        setting = known.get(name)
        kind = found.get(f"{setting.group}.kind") if setting else None
        return setting is not None and (not setting.kinds or kind in setting.kinds)

    return {name: value for name, value in found.items() if kept(name)}
