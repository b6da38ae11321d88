"""Whole suites: every asset of a list of prompts, and the ceiling beside it."""

from __future__ import annotations

from .text import NOTHING, RESULTS, Page, counted, kept, picture, section, source, table

FIGURES = {
    "r10": "R-Precision @ 10",
    "r1": "R-Precision @ 1",
    "wide_r10": "R-Precision @ 10 among all {wide}",
    "wide_r1": "R-Precision @ 1 among them",
    "clay_r10": "R-Precision @ 10, textureless",
    "clay_r1": "R-Precision @ 1, textureless",
    "haze": "haze",
    "saturation_ratio": "saturation, of that of the prior's own pictures",
    "janus": "Janus",
    "no_front": "no front at all",
    "watertight": "watertight",
    "empty": "empty",
}
HARDEST = 12


def suites() -> list[str]:
    """All suites that are kept."""
    found = [kept(path.stem) for path in sorted(RESULTS.glob("suite-*.json"))]
    if not found:
        return [*section("A whole suite", "python benchmarks/suite.py --out runs/suite"), *NOTHING]
    return [line for page in found if page for line in suite(page)]


def suite(page: Page) -> list[str]:
    """One suite, its held-out pairs, and the ceiling."""
    preset, name, wide = page["preset"], page["suite"]["name"], page["wide"]
    lines = section(
        f"The suite `{name}`, preset `{preset}`",
        f"python benchmarks/suite.py --out runs/{preset}-{name} --preset {preset} --prompts {name}",
    )
    columns = {
        "assets": page["summary"],
        "of held-out pairs": page["held_out"],
        "the prior's own pictures (the ceiling)": page["ceiling"]["summary"],
        "…, of held-out pairs": page["ceiling"]["held_out"],
    }
    among = f"{wide['prompts']:,} prompts of `{wide['name']}`"
    rows = [[said.format(wide=among), *(counted(c, key) for c in columns.values())] for key, said in FIGURES.items()]
    rows.insert(0, ["prompts", *(str(c["r10"]["count"]) if "r10" in c else "0" for c in columns.values())])
    hardest = sorted(page["prompts"].items(), key=lambda item: (item[1]["r10"], item[1]["r1"], item[0]))[:HARDEST]
    said = [f"{p} ({100 * f['r10']:.0f} %, @ 1 {100 * f['r1']:.0f} %)" for p, f in hardest]
    lines += [
        *table(["", *columns], rows),
        "",
        "Held-out pairs are pairs of a look and a thing that the prior never saw together in training.",
        "",
        f"The lowest R-Precision @ 10: {', '.join(said)}.",
    ]
    if two_faced := [p for p, f in page["prompts"].items() if f.get("janus")]:
        lines += ["", f"Two-faced, by the score: {', '.join(two_faced)}."]
    words = "48 of the assets, from the front and from behind; an asterisk marks a held-out pair"
    return [*lines, "", *picture(f"suite-{preset}-{name}.jpg", words), source(page), ""]
