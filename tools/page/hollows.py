"""Hollow things with and without pictures of depths."""

from __future__ import annotations

from .text import NOTHING, Figure, Page, made, picture, section, table

COLUMNS = {"distance_off": "surface off, in world units", "normals_off": "normals off, in degrees"}


def number(figure: Figure | None, digits: int) -> str:
    """'0.052 (0.041 to 0.063)'; a dash if there is no figure."""
    if figure is None:
        return "–"
    return f"{figure['value']:.{digits}f} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def hollows(page: Page | None) -> list[str]:
    """A row without depths, one with, and the change."""
    lines = section("Hollow things", "python benchmarks/hollows.py --out runs/hollows")
    if page is None:
        return [*lines, *NOTHING]
    names = {"without": "without depths", "with": f"`{page['preset']}`, {page['share']:.0%} of the views show depths"}
    body = [
        [names.get(row, row), number(found.get("distance_off"), 3), number(found.get("normals_off"), 1)]
        for row, found in page["summary"].items()
    ]
    return [
        *lines,
        "A hollow that no outline shows, such as the seat of an armchair, stays filled if all views are shaded ones: the surface gets "
        "small steps that are shaded like the hollow. A depth says where the surface is. *Off* is the mean distance between the surface "
        f"that is seen and the one that the prior means, in {len(page['rows']['with'])} things from eight sides. An object is up to "
        "two units long.",
        "",
        *table(["", *COLUMNS.values()], body),
        "",
        *picture("hollows.jpg", "Hollow things in clay, without and with depths, from two sides"),
        f"*{made(page)}*",
        "",
    ]
