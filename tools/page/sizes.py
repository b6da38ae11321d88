"""Two sizes of a prior, and what both make of names whose other model they never saw."""

from __future__ import annotations

from typing import Any

from .text import NOTHING, Page, percent, picture, points, section, source, table

REPORTED = {"full": "78.6 %", "small": "71.5 %"}
FIGURES = {
    "r10": "R @ 10",
    "r1": "R @ 1",
    "wide_r10": "R @ 10 of all",
    "wide_r1": "R @ 1 of all",
    "clay_r1": "R @ 1, textureless",
    "haze": "haze",
}
SHARES = {
    "nearest": "nearest name",
    "judged": "the judge says the name",
    "judged_unseen": "…, of the unseen model itself",
    "unseen": "nearest to the unseen model",
    "unseen_real": "…, for a picture of the model that the prior draws",
}


def sizes(page: Page | None) -> list[str]:
    """Both."""
    prompts = len(page["prompts"]) if page else 16
    lines = section(
        "A smaller prior, and models that were never seen",
        "python tools/prior/build_dataset.py --out data/some --models data/models --names benchmarks/sizes.txt --views 32 --passes 2",
        "for side in 32 16; do",
        "  python tools/prior/fit.py --data data/some --run data/run-$side --side $side --leave-out 100 --rounds 300 \\",
        "    --init src/dreamfusion/priors/weights/bundled.safetensors",
        "  python tools/prior/pack.py --data data/some --run data/run-$side --to data/prior-$side",
        "  python tools/prior/unseen.py --data data/some --run data/run-$side --weights data/prior-$side/bundled.safetensors",
        "done",
        f"python benchmarks/sizes.py --full data/prior-32 --small data/prior-16 --out runs/sizes --prompts {prompts}",
    )
    if page is None:
        return [*lines, *NOTHING]
    found = page["sizes"]
    return [
        *lines,
        *by_size(page, found),
        *unseen(found),
        *picture(
            "unseen.jpg", "Pairs: what the larger prior makes of a name, and the model of that name that it never saw"
        ),
        *picture("sizes.jpg", "Assets of both sizes, from the front and from behind"),
        source(page),
        "",
    ]


def by_size(page: Page, found: dict[str, Any]) -> list[str]:
    """What the smaller prior costs."""
    full, small = found["full"], found["small"]
    columns = {size: f"{entry['side']} × {entry['side']}" for size, entry in found.items()}
    body = [
        ["parameters", *(f"{e['parameters'] / 1e6:.1f} M" for e in found.values()), ""],
        ["packed weights", *(f"{e['megabytes']:.1f} MB" for e in found.values()), ""],
        ["error of the coverage in held-out views", *(f"{e['losses']['held_cover']:.4f}" for e in found.values()), ""],
        ["reported R-Precision", *(REPORTED[size] for size in found), "-7.1"],
    ]
    for key, said in FIGURES.items():
        over = small["over_full"].get(key)
        body.append([said, *(percent(e["summary"].get(key)) for e in found.values()), points(over)])
    for key in ("r10", "r1", "clay_r1"):
        own = f"{FIGURES[key]}, the prior's own pictures"
        body.append([own, *(percent(e["ceiling"].get(key)) for e in found.values()), ""])
    return [
        f"Two priors learned the same {full['shapes']} models of {full['names']} names in the same {full['visits']:,} visits. They differ "
        f"in the size of their feature planes alone. The {len(page['prompts'])} prompts and the preset (`{page['preset']}`) are the same "
        "too. The names (`benchmarks/sizes.txt`) are those of the first 16 prompts of `bundled-153`, and up to nine of each category that "
        "three or more models show. "
        "The hulls, which say where a shape can be, have 32 cells a side in both. *Reported* is what a smaller prior costs as it was "
        "published. In brackets are intervals; the last column is the difference, asset by asset.",
        "",
        *table(["", *columns.values(), "difference"], body),
        "",
    ]


def unseen(found: dict[str, Any]) -> list[str]:
    """What both make of names of which they never saw one model."""
    first = found["full"]["unseen"]
    body = [[said, *(percent(e["unseen"]["shares"][key]) for e in found.values())] for key, said in SHARES.items()]
    sides = [f"{entry['side']} × {entry['side']}" for entry in found.values()]
    lines = [
        f"Of {first['names']} of the {first['among']} names, one model was left out of both trainings. The prior knows these names from "
        "their other models. It draws each name in a colour from two cameras of views that it never saw. *Nearest name*: its picture is "
        "nearer (by mean squared error) to a picture of the name than to one of any other name. The *judge* chooses among all names in "
        "that colour, and some of them mean nearly the same. *Unseen model*: the picture is nearer to the model that was left out than "
        "to all models of other names. The rows that begin with dots are yardsticks: the same for a real picture. They are low because "
        "two models of one name can look very different.",
        "",
        *table(["", *sides], body),
        "",
        f"By category, of {sides[0]}:",
        "",
    ]
    head = ["category", "names", *SHARES.values()]
    body = [
        [category, str(entry["names"]), *(f"{entry[key]:.0%}" for key in SHARES)]
        for category, entry in first["by_category"].items()
    ]
    lines += [*table(head, body), ""]
    if wrong := first["not_nearest"]:
        lines += [f"With a sample that is nearer to another name: {', '.join(wrong)}.", ""]
    return lines
