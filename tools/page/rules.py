"""The rules against each other."""

from __future__ import annotations

from typing import Any

from .text import NOTHING, Page, made, percent, picture, points, seconds_of, section, table, times

EQUAL = {"calls": "the same number of the prior's answers", "time": "the same time"}
KEYS = ("wide_r1", "r1", "clay_r1", "haze", "janus")


def rules(pages: dict[str, Page | None]) -> list[str]:
    """``pages``: by what all rules get the same of."""
    lines = section("The rules", *(f"python benchmarks/rules.py --out runs/rules --equal {equal}" for equal in pages))
    found = {equal: page for equal, page in pages.items() if page}
    if not found:
        return [*lines, *NOTHING]
    for equal, page in found.items():
        lines += one(equal, page)
    return [*lines, *picture("rules.jpg", "A rule a line, from the front and from behind")]


def one(equal: str, page: Page) -> list[str]:
    """One table."""
    count = len(page["prompts"])
    head = [
        "rule",
        "claim",
        "R @ 1 of all",
        "R @ 1",
        "R @ 1, textureless",
        "haze",
        "Janus",
        "saturation, of the prior's",
    ]
    head += ["diversity", "seconds"]
    body = []
    for row, entry in page["rows"].items():
        cells = [f"`{row}`", entry["claim"]]
        for key in KEYS:
            over = entry["over_sds"].get(key)
            cells.append(percent(entry["summary"].get(key), False) + (f" ({points(over)})" if over else ""))
        apart = entry["diversity"]
        cells += [times(entry["summary"].get("saturation_ratio")), f"{sum(apart) / len(apart):.3f}" if apart else "–"]
        body.append([*cells, seconds_of(entry["cost"])])
    return [
        f"Every rule has {EQUAL[equal]} as {page['budget']} steps of SDS, on the same {count} things with fronts, asked with words "
        "alone. In brackets is the difference to `sds`, asset by asset. *Diversity* is the mean distance between the judge's "
        "embeddings of four seeds.",
        "",
        *table(head, body),
        "",
        *found_here(equal, page),
        f"*{made(page)}*",
        "",
    ]


def found_here(equal: str, page: Page) -> list[str]:
    """What the claims come to, and how few steps the dear rules have."""
    dear = {row: entry["answers"] for row, entry in page["rows"].items() if entry["answers"] > 3 and equal == "calls"}
    few = {row: round(page["budget"] / answers) for row, answers in dear.items()}
    steps = ", ".join(f"`{row}` {count}" for row, count in few.items())
    lines = [f"- At the same price, rules that ask the prior more often have fewer steps: {steps}."] if few else []
    lines += [f"- `{row}`: {entry['why']}." for row, entry in page["rows"].items() if entry.get("why")]
    return [*lines, ""] if lines else []


ARCHITECTURES = {"if": "IF-I-M", "sd": "Stable Diffusion 1.5", "bundled": "the bundled prior"}


def costs(page: Page | None) -> list[str]:
    """What a step of each rule costs with large networks."""
    lines = section("What a rule costs", "python benchmarks/rules_cost.py")
    if page is None:
        return [*lines, *NOTHING]
    priors = page["priors"]
    head = ["rule"]
    for prior in priors:
        head += [f"{ARCHITECTURES[prior]}: seconds", "of SDS", "MB"]
    body = []
    for rule in next(iter(priors.values())):
        row = [f"`{rule}`"]
        for rows in priors.values():
            seconds, sds = rows[rule]["seconds"], rows["sds"]["seconds"]
            row += [f"{seconds:.1f}", f"{seconds / sds:.1f}", f"{rows[rule]['megabytes']:,.0f}"]
        body.append(row)
    return [
        *lines,
        f"A step for one picture, with guidance ({page['guidance_scale']:g}), random weights, without scene and VAE: the median of "
        f"{page['repeats']}, and the memory on top of the weights.",
        "",
        *table(head, body),
        "",
        f"*{made(page)}*",
        "",
    ]


def scenes(page: Page | None) -> list[str]:
    """The kinds of scenes against each other."""
    lines = section("Scenes", "python benchmarks/scenes.py --out runs/scenes")
    if page is None:
        return [*lines, *NOTHING]
    keys = {
        "wide_r1": "R @ 1 of all", "clay_r1": "R @ 1, textureless", "haze": "haze", "janus": "Janus",
    }  # fmt: skip
    body = []
    for preset, entry in page["presets"].items():
        cells = [f"`{preset}`", str(entry["steps"])]
        cells += [figure(entry, key) for key in keys]
        cost = entry.get("cost", {})
        cells += [percent(entry.get("silhouettes")), degrees(entry), f"{cost.get('seconds_per_step', 0):.2f}"]
        body.append([*cells, f"{cost.get('cpu_seconds_per_asset', 0):.0f}"])
    head = [
        "preset",
        "steps",
        *keys.values(),
        "silhouettes, IoU",
        "normals off",
        "seconds a step",
        "CPU seconds an asset",
    ]
    return [
        *lines,
        f"Presets on the same {len(page['prompts'])} things with fronts, a core each. In brackets is the difference to `fast`, "
        "asset by asset. *Normals off* is the mean angle between the normals of the exported surface and those of the thing that the prior "
        "means, at 64 pixels a side.",
        "",
        *table(head, body),
        "",
        *picture("scenes.jpg", "A preset a line, from the front and from behind"),
        f"*{made(page)}*",
        "",
    ]


def degrees(entry: dict[str, Any]) -> str:
    """How far a preset's normals are off, and the difference to ``fast``."""
    off, over = entry.get("normals_off"), entry["over_fast"].get("normals_off")
    if off is None:
        return "–"
    return f"{off['value']:.1f}°" + (
        f" ({over['value']:+.1f} ({over['low']:+.1f} to {over['high']:+.1f}))" if over else ""
    )


def figure(entry: dict[str, Any], key: str) -> str:
    """A figure of a preset, and its difference to ``fast``."""
    over = entry["over_fast"].get(key)
    return percent(entry["summary"].get(key), False) + (f" ({points(over)})" if over else "")
