"""The costs of all runs below some folders, added up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..cost.cost_settings import CostSettings
from ..cost.meter import Part, price, read_parts, total
from ..display import clock
from ..errors import UserError
from ..paths import kind_of, user_path
from ..run import CONFIG


@dataclass(frozen=True)
class RunCost:
    """One run's parts; none for a run that has no record."""

    folder: Path
    prompt: str
    parts: list[Part]


def find_costs(places: Sequence[str | Path]) -> list[RunCost]:
    """The costs of the runs at ``places`` and in all folders below them. UserError where there is no run."""
    found: dict[Path, RunCost] = {}
    for place in map(user_path, places):
        if kind_of(place) != "folder":
            raise UserError(f"there is no folder {place}; name a run's folder, or a folder of runs")
        here = [Path(path) for path, _, files in os.walk(place) if CONFIG in files]
        if not here:
            raise UserError(f"there is no run in {place}: no folder in it holds a {CONFIG}")
        for path in sorted(here):
            found.setdefault(path.resolve(), RunCost(path, _prompt(path), read_parts(path)))
    return list(found.values())


def _prompt(folder: Path) -> str:
    try:
        return str(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["config"]["prompt"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RecursionError):
        return folder.name


def priced(parts: Sequence[Part], prices: CostSettings | None) -> list[Part]:
    """The parts at other prices; as they are without ``prices``."""
    if prices is None:
        return list(parts)
    return [part | {"cost": price(part["wh"], part["seconds"], prices), "currency": prices.currency} for part in parts]


def table(costs: Sequence[RunCost], prices: CostSettings | None = None) -> str:
    """A line for each run, and the sum."""
    rows: list[tuple[str, ...]] = [("run", "time", "CPU", "GPU", "Wh", "cost", "memory", "parts")]
    known = [cost for cost in costs if cost.parts]
    for cost in known:
        rows.append((cost.folder.name, *_cells(total(priced(cost.parts, prices))), str(len(cost.parts))))
    everything = total([part for cost in known for part in priced(cost.parts, prices)])
    rows.append((f"{len(known)} runs", *_cells(everything), str(sum(len(cost.parts) for cost in known))))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        lines.append("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]))
    said = f"Energy: {everything['energy'] or 'not known'}." + (ESTIMATED if "estimate" in everything["energy"] else "")
    missing = len(costs) - len(known)
    has, are = ("has", "is") if missing == 1 else ("have", "are")
    note = f"{missing} run{'s' if missing > 1 else ''} {has} no record of costs, and {are} not in the sum."
    return "\n".join([*lines, said, *([note] if missing else [])])


ESTIMATED = " An estimate is CPU seconds times cost.core_watts, and GPU seconds times cost.gpu_watts."


def _cells(found: dict[str, Any]) -> tuple[str, ...]:
    money = "?" if found["cost"] is None else f"{found['cost']:.4f} {found['currency']}".strip()
    memory = f"{found['peak_mb']:.0f} MB" if found.get("peak_mb") is not None else "?"
    times = (clock(found[key]) if found[key] else "-" for key in ("seconds", "cpu_seconds", "gpu_seconds"))
    return (*times, f"{found['wh']:.2f}", money, memory)


def as_figures(costs: Sequence[RunCost], prices: CostSettings | None = None) -> dict[str, Any]:
    """The same for programs."""
    runs = [
        {"folder": str(cost.folder), "prompt": cost.prompt, "parts": len(cost.parts)}
        | total(priced(cost.parts, prices))
        for cost in costs
        if cost.parts
    ]
    return {
        "runs": runs,
        "without_record": [str(cost.folder) for cost in costs if not cost.parts],
        "total": total([part for cost in costs for part in priced(cost.parts, prices)]),
    }
