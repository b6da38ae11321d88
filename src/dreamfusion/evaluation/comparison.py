"""Two sets of runs against each other, prompt by prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ..errors import UserError
from .statistics import bootstrap
from .summary import NAMES, RATES, Figures, number, value_of

COMPARED = [key for key in NAMES if key not in ("saturation_ratio",)]


def by_prompt(assets: Sequence[Figures], key: str) -> dict[str, float]:
    """Prompt -> the figure, averaged over its assets (seeds)."""
    found: dict[str, list[float]] = defaultdict(list)
    for figures in assets:
        if (value := value_of(figures, key)) is not None:
            found[figures["prompt"]].append(value)
    return {prompt: sum(values) / len(values) for prompt, values in found.items()}


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Paired comparison of two evaluations: figure -> {a, b, difference (b - a), low, high, count}, over the prompts that
    both have. The interval is the bootstrap's over prompts, 95 %.

    UserError if they were judged by different CLIPs, among different prompts, from different views, or share no prompt.
    """
    for what, key in (("CLIPs", "clip"), ("suites", "suite"), ("views", "views"), ("seeds", "seed")):
        if first[key] != second[key]:
            said = [
                e[key].get("id", e[key].get("name")) if isinstance(e[key], dict) else e[key] for e in (first, second)
            ]
            raise UserError(
                f"the two sets were judged with different {what} ({said[0]} and {said[1]}); evaluate them alike"
            )
    prompts = [{f["prompt"] for f in e["assets"]} for e in (first, second)]
    if not prompts[0] & prompts[1]:
        raise UserError("the two sets have no prompt in common; a paired comparison needs runs of the same prompts")
    figures = {}
    for key in COMPARED:
        a, b = (by_prompt(e["assets"], key) for e in (first, second))
        both = sorted(set(a) & set(b))
        if both:
            differences = [b[p] - a[p] for p in both]
            low, high = bootstrap(differences)
            count = len(both)
            figures[key] = {
                "a": sum(a[p] for p in both) / count,
                "b": sum(b[p] for p in both) / count,
                "difference": sum(differences) / count,
                "low": low,
                "high": high,
                "count": count,
            }
    return {"paired": len(prompts[0] & prompts[1]), "only_a": len(prompts[0] - prompts[1]),
            "only_b": len(prompts[1] - prompts[0]), "figures": figures}  # fmt: skip


def table(comparison: dict[str, Any]) -> str:
    """The comparison as text; an asterisk where the interval excludes 0."""
    rows = [["", "A", "B", "B - A", "95 % interval", "prompts"]]
    for key, f in comparison["figures"].items():
        factor, unit = (100, " %") if key in RATES else (1, "")
        a, b, d, low, high = (number(f[k] * factor, key in RATES) for k in ("a", "b", "difference", "low", "high"))
        star = " *" if f["low"] > 0 or f["high"] < 0 else ""
        rows.append([NAMES[key], a + unit, b + unit, d + star, f"{low} to {high}", str(f["count"])])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = [f"{comparison[k]} prompts only in {k[-1].upper()}" for k in ("only_a", "only_b") if comparison[k]]
    head = f"{comparison['paired']} prompts paired" + (f" ({', '.join(left)})" if left else "")
    return "\n".join([head, *lines])
