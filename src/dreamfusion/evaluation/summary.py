"""From each asset's figures to the table: rates and means with their intervals, over all assets and over held-out pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .statistics import bootstrap, wilson

Figures = dict[str, Any]

RATES = {
    "r1": "R-Precision @ 1",
    "r10": "R-Precision @ 10",
    "wide_r1": "R-Precision @ 1, of everything",
    "wide_r10": "R-Precision @ 10, of everything",
    "clay_r1": "R-Precision @ 1, textureless",
    "clay_r10": "R-Precision @ 10, textureless",
    "janus": "Janus rate (of those with a front)",
    "no_front": "no front at all (of those with a front)",
    "empty": "empty",
    "watertight": "watertight",
    "billboard": "flat as a billboard",
    "with_floaters": "with floaters before clean-up",
}
MEANS = {
    "similarity": "CLIP similarity",
    "clay_similarity": "CLIP similarity, textureless",
    "components": "components",
    "floaters": "floaters before clean-up",
    "triangles": "triangles",
    "genus": "genus",
    "flatness": "flatness (1: as thick as wide)",
    "haze": "haze (how much of what is seen shines through)",
    "saturation": "saturation",
    "saturation_ratio": "saturation, of the prior's samples'",
}
NAMES = RATES | MEANS


def value_of(figures: Figures, key: str) -> float | None:
    """One figure of an asset as a number; None where it does not apply."""
    shape, fronts = figures.get("geometry") or {}, figures.get("janus")
    derived: dict[str, Callable[[], Any]] = {
        "janus": lambda: None if fronts is None else fronts["janus"],
        "no_front": lambda: None if fronts is None else fronts["fronts"] == 0,
        "with_floaters": lambda: shape["floaters"] > 0 if "floaters" in shape else None,
    }
    value = derived[key]() if key in derived else figures.get(key, shape.get(key))
    return None if value is None or math.isnan(float(value)) else float(value)


def summarise(assets: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Figure -> {value, low, high, count}: Wilson's interval for rates, the bootstrap's for means."""
    summary = {}
    for key in NAMES:
        values = [v for v in (value_of(a, key) for a in assets) if v is not None]
        if values:
            mean = sum(values) / len(values)
            low, high = wilson(mean, len(values)) if key in RATES else bootstrap(values)
            summary[key] = {"value": mean, "low": low, "high": high, "count": len(values)}
    return summary


def with_ceiling(assets: Sequence[Figures], ceiling: Sequence[Figures]) -> list[Figures]:
    """The assets, each with its saturation as a multiple of that of the prior's samples of the same prompt."""
    samples = {figures["prompt"]: figures["saturation"] for figures in ceiling}
    out = []
    for figures in assets:
        own, of_prior = figures["saturation"], samples.get(figures["prompt"])
        out.append(figures | {"saturation_ratio": own / of_prior if own is not None and of_prior else None})
    return out


def number(value: float, rate: bool) -> str:
    """A rate in per cent with one decimal, another figure with three digits (and no exponent)."""
    return f"{value:,.1f}" if rate else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def shown(key: str, figure: dict[str, float]) -> str:
    """'86.3 % (82.0 to 89.7, n = 153)', or numbers without the per cent."""
    factor, unit = (100, " %") if key in RATES else (1, "")
    value, low, high = (number(figure[k] * factor, key in RATES) for k in ("value", "low", "high"))
    return f"{value}{unit} ({low} to {high}, n = {figure['count']})"


def table(evaluation: dict[str, Any]) -> str:
    """The figures as text: a line each, a column for all assets, for held-out pairs and for the prior's own samples."""
    columns = {"all assets": evaluation["summary"]}
    if evaluation["held_out"]:
        columns["held-out pairs"] = evaluation["held_out"]
    if evaluation.get("ceiling"):
        columns["the prior's samples"] = evaluation["ceiling"]["summary"]
        if evaluation["ceiling"]["held_out"]:
            columns["…, held-out pairs"] = evaluation["ceiling"]["held_out"]
    rows = [["", *columns]]
    for key, name in NAMES.items():
        if any(key in column for column in columns.values()):
            rows.append([name, *(shown(key, c[key]) if key in c else "" for c in columns.values())])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
