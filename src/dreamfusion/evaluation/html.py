"""One self-contained page: the table, and each asset's pictures beside its figures. No scripts, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..export.turntable import to_uint8
from .summary import NAMES, shown

SHOWN = 4
STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}
td,th{padding:3px 10px;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}img{display:block}
.bad{color:#b00}.note{color:#777}"""


def strip(pictures: Tensor, size: int = 96) -> str:
    """The first pictures of (B, 3, H, W) side by side as an <img> with its data inside (JPEG)."""
    row = [Image.fromarray(p).resize((size, size), Image.Resampling.LANCZOS) for p in to_uint8(pictures[:SHOWN])]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([np.asarray(p) for p in row], 1)).save(buffer, format="JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'


def number(value: Any, digits: str = ".2f") -> str:
    """One number as text, or a dash for None."""
    return "–" if value is None else f"{value:{digits}}"


def words(figures: dict[str, Any]) -> str:
    """An asset's figures as HTML."""
    out = [
        f"R@1 {number(figures['r1'])}, R@10 {number(figures['r10'])}, similarity {number(figures['similarity'])}",
        "ranks " + " ".join(f"{rank:g}" for rank in figures["ranks"]),
    ]
    if "clay_r10" in figures:
        out.append(f"textureless: R@1 {number(figures['clay_r1'])}, R@10 {number(figures['clay_r10'])}")
    if janus := figures.get("janus"):
        facing = "" if janus["facing_deg"] is None else f", strongest at {janus['facing_deg']:g}°"
        said = f"fronts {janus['fronts']}{facing}"
        out.append(f'<span class="bad">Janus: {said}</span>' if janus["janus"] else said)
    if shape := figures.get("geometry"):
        if shape["empty"]:
            out.append('<span class="bad">empty</span>')
        else:
            tight = "watertight" if shape["watertight"] else "not watertight"
            out.append(
                f"{tight}, {shape['components']} components, {shape['floaters']} floaters, {shape['triangles']} triangles, "
                f"genus {number(shape['genus'], 'd')}, flatness {number(shape['flatness'])}"
            )
    out.append(f"haze {number(figures['haze'])}, saturation {number(figures['saturation'])}")
    return "<br>".join(out)


def page(evaluation: dict[str, Any], pictures: Sequence[dict[str, Tensor]], samples: dict[str, Tensor]) -> str:
    """The page of an evaluation; ``pictures`` of each asset, ``samples`` of the prior by prompt (may be empty)."""
    columns = {"all assets": evaluation["summary"], "held-out pairs": evaluation["held_out"]}
    if evaluation.get("ceiling"):
        columns["the prior's samples"] = evaluation["ceiling"]["summary"]
    head = "".join(f"<th>{name}</th>" for name in ("", *columns))
    body = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{shown(key, c[key])}</td>' if key in c else '<td></td>' for c in columns.values())}</tr>"
        for key, name in NAMES.items()
        if any(key in c for c in columns.values())
    )
    rows = []
    for figures, shots in zip(evaluation["assets"], pictures, strict=True):
        mark = ' <span class="note">never shown together</span>' if figures["held_out"] else ""
        drawn = "".join(strip(shots[kind]) for kind in ("colour", "clay") if kind in shots)
        prior = samples.get(figures["prompt"])
        beside = "" if prior is None else f'<span class="note">the prior\'s own</span>{strip(prior)}'
        where = escape(f"{figures['run']}, {figures['preset']}, seed {figures['seed']}")
        rows.append(
            f"<tr><td>{drawn}{beside}</td><td><b>{escape(figures['prompt'])}</b>{mark}<br>"
            f'<span class="note">{where}</span><br>{words(figures)}</td></tr>'
        )
    judge, suite = escape(evaluation["clip"]["id"]), escape(evaluation["suite"]["name"])
    said = f"Judge {judge}; prompts ranked among the {evaluation['suite']['prompts']} of {suite}; {evaluation['views']} views an asset."
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>'
        f"<h1>Evaluation</h1><p>{said}</p><table><tr>{head}</tr>{body}</table>"
        f"<h2>Assets</h2><table>{''.join(rows)}</table></html>\n"
    )
