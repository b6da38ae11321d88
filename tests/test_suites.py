"""The suites hold what their card claims, and prompt files are read with clear mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dreamfusion.errors import UserError
from dreamfusion.evaluation.inputs import is_held_out
from dreamfusion.priors.bundled_prior import WEIGHTS
from dreamfusion.suites import HOME, MOST, load_suite, suite_names

RECORD = json.loads(WEIGHTS.with_suffix(".json").read_text())


def parts(prompt: str) -> tuple[str, str]:
    """Colour ('' for none) and name of a prompt."""
    words = prompt.split()
    words = words[1:] if words[0] in ("a", "an") else words
    return (words[0], " ".join(words[1:])) if words[0] in RECORD["colours"] else ("", " ".join(words))


def test_the_scripts_suites_are_the_packages() -> None:
    code = "import suites; print({k: v == (suites.HOME / k).read_text() for k, v in suites.texts().items()})"
    root = Path(__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(root / "src")}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=root / "tools", env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "{'bundled-2756.txt': True, 'bundled-153.txt': True, 'bundled-24.txt': True}", (
        "run: python tools/suites.py"
    )


def test_bundled_153_is_broad_and_half_new() -> None:
    prompts = load_suite("bundled-153")
    assert len(prompts) == len(set(prompts)) == 153
    held = [p for p in prompts if is_held_out(p)]
    assert len(held) == 72 >= 60 and len({parts(p)[1] for p in held}) == 72
    assert {" ".join(parts(p)) for p in held} <= set(RECORD["held_out"])
    kinds = Counter("held" if is_held_out(p) else "shown" if parts(p)[0] else "plain" for p in prompts)
    assert kinds == {"held": 72, "shown": 51, "plain": 30}
    names = Counter(parts(p)[1] for p in prompts)
    assert (
        set(names) <= {w for n, said in RECORD["vocabulary"].items() for w in (n, *said.get("synonyms", ()))}
        and len(names) == 113
    )
    assert sum(n == 2 for n in names.values()) == 40 and max(names.values()) == 2, "40 things in two colours"
    colours = Counter(parts(p)[0] for p in prompts if parts(p)[0])
    assert len(colours) == 12 and max(colours.values()) <= 2 * min(colours.values())


def test_bundled_24_is_a_part_of_it() -> None:
    few = load_suite("bundled-24")
    assert len(set(few)) == 24 and set(few) <= set(load_suite("bundled-153"))
    assert len({parts(p)[1] for p in few}) == 24 and sum(map(is_held_out, few)) == 12


def test_bundled_2756_is_everything_the_prior_was_taught() -> None:
    every = load_suite("bundled-2756")
    assert len(every) == 2756 == 212 * 13 and set(load_suite("bundled-153")) < set(every)
    assert Counter(Counter(parts(p)[1] for p in every).values()) == {13: 212}
    assert abs(sum(map(is_held_out, every)) / (212 * 12) - 0.15) < 0.02


def test_articles_are_right() -> None:
    for prompt in load_suite("bundled-2756"):
        first, _, rest = prompt.partition(" ")
        assert first not in ("a", "an") or (first == "an") == (rest[0] in "aeiou"), prompt


def test_held_out_is_asked_by_prompt() -> None:
    pair = RECORD["held_out"][0]
    assert is_held_out(f"a {pair}") and is_held_out(pair.upper()) and not is_held_out(f"a very {pair}")


def test_a_prompt_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\n a red chair \r\n\n\na cat\n", encoding="utf-8-sig")
    assert load_suite(path) == ["a red chair", "a cat"]
    path.write_text("".join(f"thing {k}\n" for k in range(MOST)))
    assert len(load_suite(path)) == 10_000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a cat\n\na dog\n  a cat\n", r"line 4: 'a cat' stands in line 1 already"),
        ("a cat\na\x07dog\n", r"line 2: the prompt is not text"),
        ("x" * 1001, r"line 1: the prompt has 1001 characters"),
        ("\n \n", "holds no prompts"),
        ("".join(f"thing {k}\n" for k in range(MOST + 1)), "more than 10000 prompts"),
    ],
)
def test_prompt_files_that_are_refused(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=line):
        load_suite(path)


def test_suites_that_are_not_there(tmp_path: Path) -> None:
    assert suite_names() == ["bundled-153", "bundled-24", "bundled-2756"] and HOME.is_dir()
    with pytest.raises(UserError, match=r"no suite or file 'bundled-4' \(did you mean 'bundled-24'"):
        load_suite("bundled-4")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as UTF-8 text"):
        load_suite(tmp_path / "binary")
