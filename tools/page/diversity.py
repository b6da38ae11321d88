"""Whether seeds give different things."""

from __future__ import annotations

from .text import Page, made, picture, section, table

HEAD = ["preset", "names", "shapes of the seeds", "names with three or more", "between assets", "between models"]


def diversity(pages: dict[str, Page | None]) -> list[str]:
    """A row for each preset that there is a result of."""
    lines = section(
        "Do seeds differ?", *(f"python benchmarks/diversity.py --out runs/diversity --preset {p}" for p in pages)
    )
    there = {preset: page for preset, page in pages.items() if page is not None}
    if not there:
        return [*lines, "No result is kept yet.", ""]
    body = []
    for preset, page in there.items():
        found = page["summary"]
        between = [
            f"{found[key]['value']:.3f} ({found[key]['low']:.3f} to {found[key]['high']:.3f})"
            for key in ("assets", "models")
        ]
        shapes = f"{found['shapes']['value']:.2f} ({found['shapes']['low']:.2f} to {found['shapes']['high']:.2f})"
        cells = [f"`{preset}`", str(found["count"]), f"{shapes} of {page['seeds']}", str(found["three_or_more"])]
        body.append([*cells, *between])
    lines += [
        "Each prompt is a name that four or more models of the vocabulary show, made with several seeds. *Between* is the mean distance of "
        "two bare shapes for the judge (1 - cosine similarity of the same side); *models* are those that show the name, drawn by the "
        "prior. An asset counts as the model that it is nearest to: *shapes* is how many different ones the seeds gave.",
        "",
        *table(HEAD, body),
        "",
    ]
    for preset in there:
        lines += picture(f"diversity-{preset}.jpg", f"Some names, a column for each seed, preset {preset}")
    return [*lines, *(f"*`{preset}`: {made(page)}*" for preset, page in there.items()), ""]
