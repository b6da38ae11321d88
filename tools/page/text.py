"""Figures, tables and sources as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"

Figure = dict[str, float]
Page = dict[str, Any]


def kept(name: str) -> Page | None:
    """A result, or None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def percent(figure: Figure | None, interval: bool = True) -> str:
    """'86.3 % (82 to 90)'; a dash if there is no figure."""
    if figure is None:
        return "–"
    low, high = round(100 * figure["low"]), round(100 * figure["high"])
    return f"{100 * figure['value']:.1f} %" + (f" ({low} to {high})" if interval else "")


def counted(summary: dict[str, Figure], key: str) -> str:
    """A figure of a summary in per cent, with the number of assets if it is not of all of them."""
    figure = summary.get(key)
    if figure is None or figure["count"] == summary["r10"]["count"]:
        return percent(figure)
    return f"{percent(figure)}, n = {int(figure['count'])}"


def points(figure: Figure | None) -> str:
    """A difference: '-12.5 (-20 to -5)' percentage points."""
    if figure is None:
        return "–"
    return f"{100 * figure['value']:+.1f} ({100 * figure['low']:+.0f} to {100 * figure['high']:+.0f})"


def times(figure: Figure | None) -> str:
    """A multiple: '1.12 (1.05 to 1.20)'."""
    return "–" if figure is None else f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def source(page: Page) -> str:
    """Where judged figures come from."""
    judge = f"Judge: {page['clip']['id']} (SHA-256 {page['clip']['sha256'][:12]}…), {page['views']} views an asset"
    among = f"ranked among the {page['suite']['prompts']} prompts of {page['suite']['name']}"
    return f"*{judge}, {among}. {made(page)}*"


def made(page: Page) -> str:
    """Commit, date and machine."""
    return f"Commit {page['commit']}, {page['date']}, {page['machine']}."


def picture(name: str, words: str) -> list[str]:
    """A picture of the results, if there is one."""
    return [f"![{words}](benchmarks/{name})", ""] if (DOCS / "benchmarks" / name).is_file() else []


def section(title: str, *lines: str) -> list[str]:
    """A heading, and the commands that write the result."""
    return [f"## {title}", "", "```sh", *lines, "```", ""]


NOTHING = ["No result is kept yet.", ""]


def seconds_of(cost: dict[str, float]) -> str:
    """'66, 41%': seconds of the steps, and the prior's share of them."""
    return f"{cost['seconds']:.0f}, {cost['seconds_prior'] / max(cost['seconds'], 1e-9):.0%}" if cost else "–"
