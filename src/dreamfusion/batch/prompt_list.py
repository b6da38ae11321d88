"""What a batch is to make: a list of prompts from a text, CSV or YAML file, each with settings of its own."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..paths import file_to_read, kind_of, readable
from ..prompts import check_prompt, slug
from ..settings import plain_yaml
from ..settings.names import full_name, full_names, text_names
from ..settings.presets import resolve
from .jobs import Job

MOST = 10_000
"""Most prompts of a batch."""
OWN = ("prompt", "name", "preset")
"""Columns that are no settings."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Row = tuple[str, dict[str, Any]]
"""Where it stands ('line 3'), and what it says by column."""


def read_jobs(
    path: str | Path, out: Path, preset: str = "balanced", settings: Mapping[str, Any] | None = None
) -> list[Job]:
    """The assets that a file asks for, each with its folder in ``out``; what a line says counts more than ``preset`` and
    ``settings``.

    UserError of one line, which says where in the file, for whatever is not allowed.
    """
    path = file_to_read(path)
    if kind_of(path) == "nothing":
        raise UserError(f"there is no file {path}; name a text file with one prompt a line, a .csv or a .yaml")
    try:
        with readable(path):
            text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read as UTF-8 text") from None
    common = full_names(settings or {})
    jobs: list[Job] = []
    seen: dict[str, str] = {}
    try:
        rows = list(_rows(text, path.suffix.lower()))
    except UserError as error:
        raise UserError(f"{path}, {error}") from None
    except (csv.Error, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not 1 <= len(rows) <= MOST:
        raise UserError(f"{path} holds {len(rows) or 'no'} prompts; a batch has 1 to {MOST}, one a line")
    for where, row in rows:
        try:
            job = _job(row, out, preset, common)
            if (first := seen.setdefault(job.folder.name.lower(), where)) != where:
                raise UserError(
                    f"{job.prompt[:60]!r} would get the folder {job.folder.name}, which {first} gets already; give it "
                    "another seed, or a name of its own in the column 'name' of a .csv or .yaml"
                )
        except UserError as error:
            raise UserError(f"{path}, {where}: {error}") from None
        jobs.append(job)
    return jobs


def _job(row: dict[str, Any], out: Path, preset: str, common: Mapping[str, Any]) -> Job:
    own = full_names({name: value for name, value in row.items() if name not in OWN})
    prompt = check_prompt(row.get("prompt", ""))
    job = Job(out, prompt, str(row.get("preset", preset)), {**common, **own})
    seed = resolve(job.preset, job.settings, prompt).seed
    if "name" in row:
        name = str(row["name"])
        if not NAME.fullmatch(name) or name.endswith("."):
            raise UserError(f"the name {name!r} is not allowed: up to 100 letters, digits, '-', '_' and '.'")
    elif plain := slug(prompt, 80, empty=""):
        name = f"{plain}-{seed}"
    else:
        raise UserError(
            f"{prompt[:60]!r} has no letter for a folder's name; give it one in the column 'name' of a .csv or .yaml"
        )
    return Job(out / name, prompt, job.preset, job.settings)


def _rows(text: str, suffix: str) -> Iterator[Row]:
    if suffix in (".yaml", ".yml"):
        return _yaml_rows(text)
    return _csv_rows(text) if suffix in (".csv", ".tsv") else _text_rows(text)


def _text_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"line {number}", {"prompt": line}


def _csv_rows(text: str) -> Iterator[Row]:
    """Rows under a header of names. Empty cells say nothing; commas, semicolons or tabs part the cells."""
    head = text.lstrip("\r\n").partition("\n")[0]
    mark = max(",;\t", key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True, skipinitialspace=True)
    columns: list[str] = []
    for cells in lines:
        cells, where = [cell.strip() for cell in cells], f"line {lines.line_num}"
        if not any(cells):
            continue
        if not columns:
            columns = [_column(cell) for cell in cells]
            if "prompt" not in columns:
                raise UserError(f"{where}: the first line of a CSV names its columns, and 'prompt' is not among them")
            if twice := next((name for name in columns if columns.count(name) > 1), None):
                raise UserError(f"{where}: the column {twice!r} is there twice")
            continue
        if len(cells) > len(columns):
            raise UserError(
                f"{where} has {len(cells)} cells for {len(columns)} columns; put quotes around a cell with '{mark}'"
            )
        yield where, {name: cell for name, cell in zip(columns, cells, strict=False) if cell}


def _yaml_rows(text: str) -> Iterator[Row]:
    """A list of prompts, or of mappings with 'prompt' and what else a line may have; 'settings' may be a group of them."""
    page = plain_yaml.read(text, text_names() | set(OWN))
    if page is not None and not isinstance(page, list):
        raise UserError(
            "as a whole: a YAML file of prompts is a list: '- a red armchair', or '- {prompt: a red armchair, seed: 1}'"
        )
    for number, entry in enumerate(page or (), 1):
        where = f"entry {number}"
        if not isinstance(entry, dict):
            yield where, {"prompt": entry}
            continue
        inside = entry.get("settings") or {}
        if not isinstance(inside, dict):
            raise UserError(f"{where}: 'settings' holds names and values, such as {{steps: 300}}")
        row = {_column(name): value for name, value in entry.items() if name != "settings"}
        if twice := next((name for name in inside if _column(str(name)) in row), None):
            raise UserError(f"{where}: {twice!r} is given twice")
        yield where, row | inside


def _column(name: Any) -> str:
    name = str(name).strip()
    if name in OWN:
        return name
    try:
        return full_name(name)
    except UserError as error:
        raise UserError(str(error).replace("unknown setting", "unknown column")) from None
