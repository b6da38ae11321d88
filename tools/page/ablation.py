"""The ablation, where it differs from the reported one, the sweep of guidance scales, and the Janus rates."""

from __future__ import annotations

from typing import Any

from .text import NOTHING, Page, percent, picture, points, seconds_of, section, source, table, times

JANUS_ROWS = ("full", "no-view", "views", "camera")
KEYS = ("wide_r10", "r1", "clay_r1", "haze")


def ablation(page: Page | None, told: dict[str, dict[str, Any]]) -> list[str]:
    """All of it. ``told`` is ``ablation.yaml``."""
    lines = section(
        "Ablation",
        "python benchmarks/ablation.py --out runs/ablation --prompts 16",
        f"python benchmarks/ablation.py --out runs/ablation --rows {','.join(JANUS_ROWS)} --prompts fronts",
    )
    if page is None:
        return [*lines, *NOTHING]
    rows = page["rows"]
    shown = {row: entry for row, entry in rows.items() if "guidance" not in told.get(row, {}) or entry["reported"]}
    among = f"{page['wide']['prompts']:,} prompts of `{page['wide']['name']}`"
    lines += [
        f"Each row differs from the preset `{page['preset']}` in what its name says. All rows have the same {len(page['prompts'])} "
        "prompts. *Reported* is the figure as published for DreamFusion with Imagen. *R* is R-Precision. In brackets are the "
        "interval of R @ 10 and, for the other figures, the difference from full, asset by asset, with the bootstrap's interval. "
        f"*Of all* ranks among the {among}, where a blob of the right colour is not enough. *Seconds* are the optimisation's time "
        "on one core, and the prior's share of it.",
        "",
    ]
    head = ["row", "R @ 10", "R @ 10 of all", "R @ 1", "R @ 1, textureless", "haze", "reported R @ 10", "seconds"]
    ceiling = ["the prior's own pictures (the ceiling)", percent(page["ceiling"].get("r10"))]
    body = [[*ceiling, *(percent(page["ceiling"].get(key), False) for key in KEYS), "", ""]]
    for row, entry in shown.items():
        note = told.get(row, {}).get("note")
        cells = [told.get(row, entry)["title"] + (f" ({note})" if note else ""), percent(entry["summary"].get("r10"))]
        for key in KEYS:
            over = entry.get("over_full", {}).get(key)
            cells.append(percent(entry["summary"].get(key), False) + (f" ({points(over)})" if over else ""))
        body.append([*cells, f"{entry['reported']} %" if entry["reported"] else "", seconds_of(entry["cost"])])
    lines += [*table(head, body), "", ends(shown, "r10", "R @ 10"), ends(shown, "wide_r10", "R @ 10 of all")]
    if away := differences(shown, told):
        lines += ["", *away]
    if page.get("unfinished"):
        begun = (f"{told.get(row, {}).get('title', row)} ({count})" for row, count in page["unfinished"].items())
        lines += ["", f"Rows with too few prompts yet, which are left out: {', '.join(begun)}."]
    if ";" in page["machine"]:
        lines += [
            "",
            "The seconds are from several machines: do not compare them. The prior's share is a better guide.",
        ]
    lines += [*sweep(rows, told), *janus(rows, told), ""]
    return [*lines, *picture("ablation.jpg", "Rows of the table, from the front and from behind"), source(page), ""]


def ends(rows: dict[str, Any], key: str, figure: str) -> str:
    """Whether the ends of the table are those of the paper, by one figure."""
    said = []
    for row, best, where in (("full", max, "top"), ("dream-fields", min, "bottom")):
        if row in rows and len(rows) > 1:
            values = {name: entry["summary"][key]["value"] for name, entry in rows.items()}
            equal = [name for name, value in values.items() if value == best(values.values())]
            shared = f", a place it shares with {len(equal) - 1} more" if row in equal and len(equal) > 1 else ""
            said.append(f"`{row}` is {'' if row in equal else 'not '}at the {where}{shared}")
    return f"By {figure}, {' and '.join(said)}." if said else ""


def differences(rows: dict[str, Any], told: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each row that is reported to be worse than full and here is not, even among all prompts."""
    lines = []
    for row, entry in rows.items():
        away, wide = (entry.get("over_full", {}).get(key) for key in ("r10", "wide_r10"))
        if entry["reported"] and away and away["value"] >= 0 and not (wide and wide["high"] < 0):
            why = told.get(row, {}).get("why", "the cause is not known")
            but = f" (of all: {points(wide)})" if wide else ""
            lines.append(
                f"- *{told.get(row, entry)['title']}* is reported to be worse than full; here it is not{but}: {why}."
            )
    return lines


SAFE = (
    "No w fills space with fog or noise: score distillation takes w = 100, as was published for DreamFusion. But this prior is "
    "sharp without guidance, so guidance only makes colours stronger and shapes larger. (With dynamic thresholding, "
    "`distillation.threshold`, space does fill with noise at any w above 0.)"
)


def sweep(rows: dict[str, Any], told: dict[str, dict[str, Any]]) -> list[str]:
    """The rows with a guidance scale, in its order."""
    scales = {told[row]["guidance"]: rows[row]["summary"] for row in rows if "guidance" in told.get(row, {})}
    if len(scales) < 2:
        return []
    head = ["w", "R @ 10 of all", "R @ 1 of all", "R @ 1, textureless", "haze", "saturation, of the prior's"]
    keys = ("wide_r10", "wide_r1", "clay_r1", "haze")
    body = [
        [f"{w:g}", *(percent(s.get(key)) for key in keys), times(s.get("saturation_ratio"))]
        for w, s in sorted(scales.items())
    ]
    lines = ["", "The guidance scale w, everything else as in full:", "", *table(head, body)]
    if shown := picture("sweep.jpg", "The same prompts with growing w, from the front and from behind"):
        lines += ["", shown[0]]
    if 0 in scales and max(s["haze"]["value"] for s in scales.values()) < scales[0]["haze"]["value"] + 0.05:
        lines += ["", SAFE]
    return lines


def janus(rows: dict[str, Any], told: dict[str, dict[str, Any]]) -> list[str]:
    """The Janus rates, and a warning for rows that mostly have no front."""
    found = {row: rows[row].get("whole", rows[row]["summary"]) for row in JANUS_ROWS if row in rows}
    found = {row: summary for row, summary in found.items() if summary.get("janus")}
    if not found:
        return []
    titles = {row: told.get(row, rows[row])["title"] for row in found}
    body = [
        [titles[row], str(int(s["janus"]["count"])), percent(s["janus"]), percent(s.get("no_front"))]
        for row, s in found.items()
    ]
    lines = ["", "The Janus rate, on all prompts of each row whose thing has a front:", ""]
    lines += table(["row", "prompts", "Janus", "no front at all"], body)
    frontless = [f"*{titles[row]}*" for row, s in found.items() if s.get("no_front", {"value": 0})["value"] > 0.5]
    if frontless:
        lines += [
            "",
            f"Most assets of {' and '.join(frontless)} have no front that could be double, so their Janus rate looks better than "
            "they are. Read it with the column beside it, and with haze above.",
        ]
    return lines
