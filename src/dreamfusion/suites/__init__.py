"""Prompt suites: what runs are made of and ranked among. One prompt a line; ``docs/suites.md`` is their card."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError, nearest
from ..paths import kind_of, readable, user_path
from ..prompts import check_prompt

HOME = Path(__file__).parent
MOST = 10_000
"""Most prompts of a suite."""


def suite_names() -> list[str]:
    """The suites that come with the package."""
    return sorted(path.stem for path in HOME.glob("*.txt"))


def load_suite(name: str | Path) -> list[str]:
    """The prompts of a bundled suite or of a text file (UTF-8), in order; blank lines are skipped.

    UserError of one line, with the line's number, for a prompt that appears twice or is not allowed; for an empty file, and
    for more than ``MOST`` prompts.
    """
    path = HOME / f"{name}.txt" if str(name) in suite_names() else user_path(name)
    if kind_of(path) == "nothing":
        raise UserError(f"there is no suite or file {str(name)!r}{nearest(str(name), suite_names())}")
    try:
        with readable(path):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read as UTF-8 text; a suite holds one prompt a line") from None
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = check_prompt(line)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if prompt in first:
            raise UserError(f"{path}, line {number}: {prompt[:80]!r} stands in line {first[prompt]} already")
        first[prompt] = number
        if len(first) > MOST:
            raise UserError(f"{path} has more than {MOST} prompts, the most a suite may have")
    if not first:
        raise UserError(f"{path} holds no prompts; a suite holds one prompt a line")
    return list(first)
