"""Write docs/benchmarks.md from the results that are kept in benchmarks/results: ``python tools/benchmarks_page.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
ROWS = ROOT / "benchmarks" / "ablation.yaml"
JUDGE = ROOT / "src" / "dreamfusion" / "clip" / "weights" / "judge.json"

HEAD = """# Benchmarks

`python tools/benchmarks_page.py` writes this page from the files in `benchmarks/results`, which the commands below write. All
assets of a table are made and judged in the same way. The judge is a CLIP that took no part in making them.

- **R-Precision @ k** is the share of renders for which the true prompt is among the k prompts of the suite that the judge finds
  most similar. The renders are from views that no training step used.
- **Textureless** is the same on renders of the bare shape.
- **Haze** is how much of what is seen shines through. R-Precision does not see it: a veil of the right colour ranks well.
- **Janus** is the share of things with a front that show two fronts, or one on their back. In the paint of the first prior,
  of which these tables are, the score calls 1.4 % of real objects a Janus, and finds 95.1 % of objects that were made two-faced. On today's
  names and paint the same eye calls {false_janus:.1%} a Janus, and finds {found_janus:.1%}.
- **In brackets** are 95 % intervals: Wilson's for shares, which counts assets and not views, and the bootstrap's for differences.
"""

JANUS_ROWS = ("full", "words-only", "no-view")
WHOLE_ROWS = ("full", "dream-fields")

Figure = dict[str, float]


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
    return f"{percent(figure)}, n = {figure['count']}"


def points(figure: Figure | None) -> str:
    """A difference: '-12.5 (-20 to -5)' percentage points."""
    if figure is None:
        return "–"
    return f"{100 * figure['value']:+.1f} ({100 * figure['low']:+.0f} to {100 * figure['high']:+.0f})"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def source(page: dict[str, Any]) -> str:
    """Where the figures come from."""
    judge = f"Judge: {page['clip']['id']} (SHA-256 {page['clip']['sha256'][:12]}…), {page['views']} views an asset"
    among = f"ranked among the {page['suite']['prompts']} prompts of {page['suite']['name']}"
    return f"*{judge}, {among}. Commit {page['commit']}, {page['date']}, {page['machine']}.*"


def picture(name: str, words: str) -> list[str]:
    """A picture of the results, if there is one."""
    return [f"![{words}](benchmarks/{name})", ""] if (PAGE.parent / "benchmarks" / name).is_file() else []


def commands(*lines: str) -> list[str]:
    """Commands in a block of their own."""
    return ["```sh", *lines, "```", ""]


def suite_section(page: dict[str, Any] | None) -> list[str]:
    """A whole suite, its held-out pairs, and the ceiling."""
    lines = [
        "## A whole suite",
        "",
        *commands("python benchmarks/suite.py --out runs/ablation/full  # the ablation's first row too"),
    ]
    if page is None:
        return [*lines, "No result is kept yet.", ""]
    columns = {
        f"preset `{page['preset']}`": page["summary"],
        "its held-out pairs": page["held_out"],
        "the prior's own pictures (the ceiling)": page["ceiling"]["summary"],
        "…, held-out pairs": page["ceiling"]["held_out"],
    }
    keys = {
        "r10": "R-Precision @ 10",
        "r1": "R-Precision @ 1",
        "wide_r10": "R-Precision @ 10 among all 2,756 prompts of `bundled-2756`",
        "wide_r1": "R-Precision @ 1 among them",
        "clay_r10": "R-Precision @ 10, textureless",
        "haze": "haze",
        "janus": "Janus",
        "watertight": "watertight",
        "empty": "empty",
    }
    rows = [[name, *(counted(c, key) for c in columns.values())] for key, name in keys.items()]
    rows.insert(0, ["prompts", *(str(c["r10"]["count"]) if "r10" in c else "0" for c in columns.values())])
    lines += [*table(["", *columns], rows), ""]
    lines.append("Held-out pairs are pairs of a colour and a thing that the prior never saw together in training.")
    hardest = sorted(page["prompts"].items(), key=lambda item: (item[1]["r10"], item[1]["r1"], item[0]))[:12]
    said = [f"{p} ({100 * f['r10']:.0f} %, @ 1 {100 * f['r1']:.0f} %)" for p, f in hardest]
    lines += ["", f"The lowest R-Precision @ 10: {', '.join(said)}."]
    if two_faced := [p for p, f in page["prompts"].items() if f.get("janus")]:
        lines += ["", f"Two-faced, by the score: {', '.join(two_faced)}."]
    return [
        *lines,
        "",
        *picture("suite.jpg", "48 of the assets, from the front and from behind; an asterisk marks a held-out pair"),
        source(page),
        "",
    ]


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


def same_as_full(entry: dict[str, Any], key: str) -> bool:
    """Whether a row's figure is full's, asset by asset."""
    away = entry.get("over_full", {}).get(key)
    return away is not None and away["low"] == away["value"] == away["high"] == 0


def prompts_with(rows: dict[str, Any], key: str) -> int:
    """The number of prompts for which all rows have a figure."""
    return min(int(entry["summary"].get(key, {"count": 0})["count"]) for entry in rows.values())


def differences(rows: dict[str, Any], told: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each row that is reported to be worse than full and here is not, and for a last row that is not the lowest."""
    lines = []
    unknown = "the cause is not known"
    for row, entry in rows.items():
        away = entry.get("over_full", {}).get("r10")
        if entry["reported"] and away and away["value"] >= 0:
            why = told.get(row, {}).get("why", unknown)
            wide = entry["over_full"].get("wide_r10")
            but = f" (of 2,756: {points(wide)})" if wide else ""
            lines.append(f"- *{entry['title']}* is reported to be worse than full; here it is not{but}: {why}.")
    least, name = min((entry["summary"]["r10"]["value"], name) for name, entry in rows.items())
    if "dream-fields" in rows and rows["dream-fields"]["summary"]["r10"]["value"] > least:
        why = told.get("dream-fields", {}).get("why", unknown)
        lines.append(
            f"- *{rows['dream-fields']['title']}* is reported to be the lowest; here *{rows[name]['title']}* is lower: {why}."
        )
    return lines


def janus_lines(rows: dict[str, Any], told: dict[str, dict[str, Any]]) -> list[str]:
    """The Janus rates, and a warning for rows that mostly have no front."""
    lines: list[str] = []
    faces = {row: entry.get("whole", entry["summary"]).get("janus") for row, entry in rows.items()}
    if any(faces.get(row) for row in JANUS_ROWS):
        body = []
        for row in (row for row in JANUS_ROWS if faces.get(row)):
            s = rows[row].get("whole", rows[row]["summary"])
            two, none = s["janus"], s.get("no_front")
            body.append([told.get(row, rows[row])["title"], str(int(two["count"])), percent(two), percent(none)])
        lines += ["", "The Janus rate, on all prompts of each row whose thing has a front:", ""]
        lines += table(["row", "prompts", "Janus", "no front at all"], body)
        frontless = [
            f"*{told.get(row, rows[row])['title']}*"
            for row in JANUS_ROWS
            if row in rows and rows[row].get("whole", rows[row]["summary"]).get("no_front", {"value": 0})["value"] > 0.5
        ]
        if frontless:
            lines += [
                "",
                f"Most assets of {' and '.join(frontless)} are fog with no front that could be double, so their Janus rate looks "
                "better than they are. Read it with the column beside it, and with haze above.",
            ]
    return lines


def whole_lines(rows: dict[str, Any], told: dict[str, dict[str, Any]]) -> list[str]:
    """The two ends of the table on all of their prompts."""
    lines: list[str] = []
    whole = {row: entry["whole"] for row, entry in rows.items() if row in WHOLE_ROWS and "whole" in entry}
    if whole:
        body = []
        for row, summary in whole.items():
            figures = (percent(summary.get(key)) for key in ("r10", "r1", "wide_r10", "clay_r1"))
            body.append([told.get(row, rows[row])["title"], str(summary["r10"]["count"]), *figures])
        lines += ["", "The first and the last row of the published table, on all of their prompts:", ""]
        lines += table(["row", "prompts", "R @ 10", "R @ 1", "R @ 10 of 2,756", "R @ 1, textureless"], body)
    return lines


def ablation_section(page: dict[str, Any] | None, told: dict[str, dict[str, Any]]) -> list[str]:
    """The ablation table, and where it differs from the reported one. ``told`` is ``ablation.yaml``."""
    lines = ["## Ablation", ""]
    lines += commands(
        "python benchmarks/ablation.py --out runs/ablation --prompts 16",
        "python benchmarks/ablation.py --out runs/ablation --rows full,words-only,no-view --prompts fronts",
        "python benchmarks/ablation.py --out runs/ablation --rows full,dream-fields --prompts bundled-153",
    )
    if page is None:
        return [*lines, "No result is kept yet.", ""]
    rows = page["rows"]
    count = len(page["prompts"])
    lines += [
        f"Each row differs from the preset `{page['preset']}` in what its name says. All rows have the same {count} prompts. "
        "*Reported* is the figure as published for DreamFusion with Imagen. *R* is R-Precision. In brackets are the interval of R @ 10 "
        "and, for the other figures, the difference from full, asset by asset, with the bootstrap's interval. *Of 2,756* ranks among "
        "everything that the prior knows, in every colour, where a blob of the right colour is not enough. *Seconds* are the "
        "optimisation's time on one core, and the prior's share of it.",
        "",
    ]
    head = ["row", "R @ 10", "R @ 10 of 2,756", "R @ 1", "R @ 1, textureless", "haze", "reported R @ 10", "seconds"]
    body = []
    for row, entry in rows.items():
        s, reported, seconds = entry["summary"], entry["reported"], entry["cost"]
        title = told.get(row, entry)["title"] + (f" ({told[row]['note']})" if told.get(row, {}).get("note") else "")
        cells = [title, percent(s.get("r10"))]
        for key in ("wide_r10", "r1", "clay_r1", "haze"):
            over = entry.get("over_full", {}).get(key)
            cells.append(percent(s.get(key), False) + (f" ({points(over)})" if over else ""))
        cells.append(f"{reported} %" if reported else "")
        share = seconds["seconds_prior"] / max(seconds["seconds"], 1e-9) if seconds else 0
        body.append([*cells, f"{seconds['seconds']:.0f}, {share:.0%}" if seconds else "–"])
    lines += [
        *table(head, body),
        "",
        ends(rows, "r10", "R-Precision @ 10"),
        ends(rows, "wide_r10", "R-Precision @ 10 of 2,756"),
        *([""] if differences(rows, told) else []),
        *differences(rows, told),
    ]
    if any(same_as_full(entry, "r1") for entry in rows.values()):
        lines += [
            "",
            "+0.0 (+0 to +0): the assets are not the same (R-Precision of the bare shapes differs, and so does haze), but the judge "
            "ranks their pictures alike, view by view. This prior is given the camera and leaves little open, whichever rule asks it.",
        ]
    if page.get("unfinished"):
        begun = (f"{told.get(row, {}).get('title', row)} ({count})" for row, count in page["unfinished"].items())
        lines += ["", f"Rows with too few prompts yet, which are left out: {', '.join(begun)}."]
    if 0 < (hazes := prompts_with(rows, "haze")) < count:
        lines += ["", f"Haze is of {hazes} of the prompts: it was not measured yet when the other prompts were judged."]
    if ";" in page["machine"]:
        lines += [
            "",
            "The seconds are from several machines: do not compare them. The prior's share of them is a better guide.",
        ]
    lines += [*janus_lines(rows, told), *whole_lines(rows, told)]
    return [*lines, "", *picture("ablation.jpg", "Rows of the table, from the front and from behind"), source(page), ""]


def opinion_section(page: dict[str, Any] | None) -> list[str]:
    """How far the prior's answer follows the picture that it sees."""
    lines = ["## How sure the prior is", "", *commands("python benchmarks/opinion.py")]
    if page is None:
        return [*lines, "No result is kept yet.", ""]
    head = ["it is given", *(f"t = {t}" for t in page["levels"])]
    return [
        *lines,
        "The prior is shown its own sample of a prompt, and then mid-gray, under the same noise. The figure is the share of the "
        "difference between the two that is left between its two answers (clean pictures). At 100 % it believes what it sees. At 0 it "
        "knows what there is to see without looking.",
        "",
        *table(head, [[told, *(f"{share:.0%}" for share in shares)] for told, shares in page["shares"].items()]),
        "",
        f"*{len(page['prompts'])} prompts from four sides. Commit {page['commit']}, {page['date']}, {page['machine']}.*",
        "",
    ]


def assets_section(page: dict[str, Any] | None) -> list[str]:
    """The exported assets of a few prompts: mesh, texture, files, film."""
    lines = ["## The exported asset", "", *commands("python benchmarks/assets.py --out runs/assets")]
    if page is None:
        return [*lines, "No result is kept yet.", ""]
    head = [
        "prompt",
        "triangles",
        "silhouettes, IoU",
        "missing",
        "pieces",
        "slivers",
        "slivers at 5,000",
        "texels used",
        "charts",
    ]
    head += ["GLB, MB", "film, s", "field over mesh", "albedo slope"]
    body = []
    for prompt, found in page["prompts"].items():
        mesh, few, film = found["default"], found["few"], found["film_seconds"]
        shown = mesh["silhouettes"]
        cells = [
            prompt,
            f"{mesh['triangles']:,}",
            f"{shown['iou']:.3f}",
            f"{shown['missing']:.1%}",
            str(found["pieces"]),
        ]
        cells += [f"{mesh['slivers']:.2%}", f"{few['slivers']:.2%}", f"{mesh['texels_used']:.0%}", str(mesh["charts"])]
        cells += [f"{found['bytes']['glb'] / 1e6:.2f}", f"{film['mesh']:.1f}", f"{film['ratio']:.1f}"]
        body.append([*cells, f"{found['albedo_slope']:+.2f}"])
    return [
        *lines,
        f"Runs of the preset `{page['preset']}`, exported with the defaults. *Slivers* are triangles with an angle below 10 degrees. "
        "*Texels used* belong to a chart. *Film* is the time of 120 frames at 512 x 512, drawn from the mesh and encoded; *field over "
        "mesh* is how much longer the frames of the field take. *Albedo slope* is the correlation of the albedo's luminance with the "
        "upward component of the normal: 0 where the albedo knows nothing of the light, negative where undersides are too bright.",
        "",
        *table(head, body),
        "",
        f"*Commit {page['commit']}, {page['date']}, {page['machine']}, {page['threads']} threads.*",
        "",
    ]


def kept(name: str) -> dict[str, Any] | None:
    """A result, or None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def page() -> str:
    """The whole page."""
    told = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    head = HEAD.format(**json.loads(JUDGE.read_text(encoding="utf-8"))["view"])
    return "\n".join(
        [
            head,
            *suite_section(kept("suite")),
            *ablation_section(kept("ablation"), told),
            *opinion_section(kept("opinion")),
            *assets_section(kept("assets")),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
