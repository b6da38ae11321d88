"""Which way things face that are told no camera."""

from __future__ import annotations

from .text import NOTHING, Page, made, section


def directions(page: Page | None) -> list[str]:
    """The directions of one thing's front over its seeds."""
    lines = section("Which way things face", "python benchmarks/directions.py --out runs/directions")
    if page is None:
        return [*lines, *NOTHING]
    degrees = sorted(front["degrees"] for front in page["fronts"].values() if front["degrees"] is not None)
    said = ", ".join(f"{x:.0f}" for x in degrees)
    lines += [
        f"{page['prompt']!r} with {len(page['fronts'])} seeds, preset `{page['preset']}`, {page['steps']} steps: four views together, "
        "and no absolute camera. The fronts face",
        "",
        f"{said} degrees.",
        "",
    ]
    if degrees:
        lines += [
            f"The mean of their unit vectors has the length {page['resultant']:.2f}. Without any preference it would be longer with the "
            f"probability p = {page['p']:.2f} (Rayleigh's test). Runs that show several fronts: {page['janus']}. Runs that show none: "
            f"{len(page['fronts']) - len(degrees)}.",
            "",
        ]
    return [*lines, f"*{made(page)}*", ""]
