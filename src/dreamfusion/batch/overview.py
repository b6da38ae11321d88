"""The page of a batch: ``index.html``, one file that shows all assets. It has no scripts and fetches nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from ..cost.meter import Part, read_parts, total
from ..display import clock
from .glb_json import asset_figures
from .jobs import Job

SIDE = 160
"""Side of a picture on the page, in pixels."""
LEFT, TOP, KINDS = 92, 20, 3
"""Margins of ``export.turntable.preview_sheet``, and its rows."""
STYLE = """:root{color-scheme:light dark;--line:#8884;--soft:#8882}*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1400px;padding:1.5rem}h1{font-size:1.5rem;margin:0 0 .3rem}
h2{font-size:1.1rem;margin:2rem 0 .6rem}p{margin:.2rem 0}.note{opacity:.7}.bad{color:#c33}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(21rem,1fr));gap:1rem}
article{border:1px solid var(--line);border-radius:10px;overflow:hidden}article div{display:flex;background:var(--soft)}
article img{width:50%;aspect-ratio:1;display:block;object-fit:cover}article section{padding:.7rem .9rem}
article h3{font-size:1rem;margin:0 0 .2rem;overflow-wrap:anywhere}nav a{margin-right:.8rem}
table{border-collapse:collapse}td,th{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line)}"""


def overview(title: str, jobs: Sequence[Job], failed: Mapping[Path, str], out: Path) -> str:
    """The page as HTML; links are relative to ``out``, which holds the runs' folders."""
    cards, missing = [], []
    parts: list[Part] = []
    for job in jobs:
        figures = asset_figures(job.folder / "asset.glb")
        if job.folder in failed or figures is None:
            missing.append((job, failed.get(job.folder, "not made yet")))
            continue
        parts += (own := read_parts(job.folder))
        cards.append(_card(job, figures, total(own) if own else {}, out))
    head = ", ".join([f"{len(cards)} of {len(jobs)} assets", *(costs(total(parts)) if parts else [])])
    rows = "".join(
        f"<tr><th>{escape(job.prompt)}</th><td>{escape(job.folder.name)}</td><td class=bad>{escape(why)}</td></tr>"
        for job, why in missing
    )
    rest = f"<h2>Not made</h2><table>{rows}</table>" if missing else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="note">{head}</p>{rest}<h2>Assets</h2><main>{"".join(cards)}</main></body></html>\n'
    )


def costs(found: Part) -> list[str]:
    """The time, energy and cost of ``cost.meter.total`` in words."""
    energy = f"{found['wh']:.2f} Wh" + (" (estimate)" if "estimate" in found["energy"] else "")
    money = [] if found["cost"] is None else [f"{found['cost']:.4f} {found['currency']}"]
    return [f"{clock(found['seconds'])} min", energy, *money]


def _card(job: Job, figures: dict[str, Any], spent: Part, out: Path) -> str:
    config = job.config
    place = quote(job.folder.relative_to(out).as_posix())
    pictures = "".join(
        f'<img alt="{escape(job.prompt)}, {side}" src="data:image/jpeg;base64,{data}">'
        for side, data in tiles(job.folder / "preview.png")
    )
    said = costs(spent) if spent else []
    said += [f"{spent['peak_mb']:.0f} MB"] if spent.get("peak_mb") else []
    said += [f"{figures['triangles']:,} triangles"] if "triangles" in figures else []
    said += [f"silhouettes {figures['iou']:.2f}"] if figures.get("iou") is not None else []
    said += [f"{figures['pieces']} piece{'s' if figures['pieces'] != 1 else ''}"] if "pieces" in figures else []
    links = "".join(
        f'<a href="{place}/{name}">{label}</a>'
        for name, label in (("asset.glb", "GLB"), ("turntable.mp4", "film"), ("preview.png", "all sides"), ("run.yaml", "settings"))
        if (job.folder / name).is_file()
    )  # fmt: skip
    return (
        f"<article><div>{pictures}</div><section><h3>{escape(job.prompt)}</h3>"
        f'<p class="note">{escape(config.preset)}, seed {config.seed}</p><p>{", ".join(said)}</p><nav>{links}</nav>'
        "</section></article>"
    )


def tiles(sheet: Path) -> list[tuple[str, str]]:
    """The front and the back of a preview sheet, in colour: (side, JPEG as base64). None where there is no sheet."""
    found = ((side, tile(sheet, side == "back")) for side in ("front", "back"))
    return [(side, base64.b64encode(data).decode()) for side, data in found if data is not None]


def tile(sheet: Path, back: bool = False) -> bytes | None:
    """The front of a preview sheet, or the back, in colour, as a JPEG. None where there is no sheet."""
    with suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(sheet) as picture:
        size = (picture.height - TOP) // KINDS
        left = LEFT + (picture.width - LEFT) // size // 2 * size * back
        part = picture.crop((left, TOP, left + size, TOP + size)).convert("RGB")
        buffer = io.BytesIO()
        part.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=85)
        return buffer.getvalue()
    return None
