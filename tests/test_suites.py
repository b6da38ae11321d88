"""The suites hold what their card claims, and prompt files are read with clear mistakes."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import open_suites
from captions import usual
from looks import Look, held_out
from models import CATEGORIES, generals, read_models, read_names

from dreamfusion.errors import UserError
from dreamfusion.evaluation.inputs import is_held_out, shows_new_look
from dreamfusion.priors.appearance import COLOURS, MATERIALS, PATTERN_WORDS
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
    found = ast.literal_eval(done.stdout)
    assert found == {f"{name}.txt": True for name in suite_names()}, "run: python tools/suites.py"


@pytest.mark.parametrize(
    ("suite", "sha256"),
    [
        ("bundled-153", "3af752ca6fbd4d0e"),
        ("bundled-24", "3b18df8a7a0557c5"),
        ("bundled-2756", "63fc8c32ada77e38"),
    ],
)
def test_the_first_suites_never_change(suite: str, sha256: str) -> None:
    """Figures that were published with them would no longer hold."""
    assert hashlib.sha256((HOME / f"{suite}.txt").read_bytes()).hexdigest()[:16] == sha256


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


NAMES = read_names()


def test_open_153_is_broad_and_a_third_is_new() -> None:
    items = open_suites.items()["open-153"]
    assert set(items) == set(load_suite("open-153")) and len(items) == 153
    new = [name for name, look in items.values() if held_out(name, look)]
    assert len(new) == len(set(new)) == 51
    kinds = Counter("new" if held_out(n, x) else "plain" if x == Look() else "shown" for n, x in items.values())
    assert kinds == {"new": 51, "shown": 72, "plain": 30}
    things = Counter(name for name, _ in items.values())
    assert len(things) == 113 and Counter(things.values()) == {1: 73, 2: 40}
    assert {NAMES[name].category for name in things} == set(CATEGORIES)
    parts = Counter(part for _, look in items.values() for part in (look.main, look.pattern) if part)
    assert set(parts) == {*COLOURS, *MATERIALS, *PATTERN_WORDS} and max(parts.values()) <= 8


def test_no_prompt_of_open_153_is_true_of_another_ones_thing() -> None:
    items = list(open_suites.items()["open-153"].values())
    things = {name for name, _ in items}
    assert not any(general in things for name in things for general in generals(name, NAMES))
    wide = set(open_suites.items()["open-wide"].values())
    assert not any((general, look) in wide for name, look in items for general in generals(name, NAMES))
    words = {w: n.name for n in NAMES.values() for w in (n.name, *n.synonyms)}
    for name in things:
        own = {name, *generals(name, NAMES)}
        inside = {of for word, of in words.items() if f" {word} " in f" {name} "}
        assert inside <= own, f"{name} has another thing's name in it"


def test_open_wide_is_everything_in_a_few_looks() -> None:
    prompts = load_suite("open-wide")
    items = open_suites.items()["open-wide"]
    assert set(prompts) == set(items) and set(load_suite("open-153")) < set(prompts) and 3900 < len(prompts) < 4300
    assert len(set(items.values())) == len(items), "no two prompts mean the same"
    assert {usual(name) for name in NAMES.values()} <= set(prompts)
    looks = Counter(name for name, look in items.values() if look != Look())
    assert set(looks) == set(NAMES) and set(looks.values()) <= {2, 3, 4}
    for prompt in prompts:
        assert (
            prompt.split()[0] not in ("a", "an")
            or (prompt[:3] == "an ") == (prompt.split()[1][0] in "aeiou")
            or (prompt.split()[1] in ("ufo", "utensil", "utility", "urinal"))
        ), prompt


def test_instances_24_are_names_of_many_shapes() -> None:
    prompts = load_suite("instances-24")
    names = [name for name, _ in open_suites.items()["instances-24"].values()]
    own = Counter(model.name for model in read_models())
    assert len(prompts) == len(set(names)) == 24 and all(own[name] >= 4 for name in names)
    assert len({NAMES[name].category for name in names}) >= 12


def test_new_looks_are_asked_by_prompt() -> None:
    """Against the rule that chose them."""
    pairs = {f"{part} {name}" for name in NAMES for part in (*COLOURS, *MATERIALS) if held_out(name, Look(part))}
    pairs |= {f"{p} {name}" for name in NAMES for p in PATTERN_WORDS if held_out(name, Look("", "", p))}
    for prompt, (name, look) in open_suites.items()["open-153"].items():
        assert shows_new_look(prompt, pairs, COLOURS, PATTERN_WORDS) == held_out(name, look), prompt


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
    first, wide = ["bundled-153", "bundled-24", "bundled-2756"], ["instances-24", "open-153", "open-wide"]
    assert suite_names() == first + wide and HOME.is_dir()
    with pytest.raises(UserError, match=r"no suite or file 'bundled-4' \(did you mean 'bundled-24'"):
        load_suite("bundled-4")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as UTF-8 text"):
        load_suite(tmp_path / "binary")
