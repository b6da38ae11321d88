"""What is evaluated: runs from folders, and the suite that their prompts are ranked among."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from ..errors import UserError
from ..paths import kind_of, names_in, user_path
from ..priors.bundled_prior import WEIGHTS
from ..run import CHECKPOINT, CONFIG, META, Run
from ..suites import load_suite, suite_names


def find_runs(places: Sequence[str | Path]) -> list[Run]:
    """The runs at ``places``: each a run's folder, or a folder of them (by name; those without a checkpoint are left out,
    with a warning). UserError if a place holds no run."""
    runs: list[Run] = []
    for place in map(user_path, places):
        if kind_of(place) != "folder" or CONFIG in names_in(place):
            runs.append(Run.open(place))
            runs[-1].load_checkpoint()
            continue
        inside = [place / name for name in names_in(place) if _is_run(place / name)]
        ready = [path for path in inside if kind_of(path / CHECKPOINT / META) == "file"]
        if not ready:
            what = f"{len(inside)} runs without a checkpoint" if inside else f"neither a {CONFIG} nor folders with one"
            raise UserError(f"there is no run to evaluate in {place}: it holds {what}")
        if len(ready) < len(inside):
            left = next(path.name for path in inside if path not in ready)
            warnings.warn(f"{len(inside) - len(ready)} runs in {place} have no checkpoint yet ({left} …)", stacklevel=2)
        runs += map(Run.open, ready)
    paths = [run.path.resolve() for run in runs]
    return [run for k, run in enumerate(runs) if paths[k] not in paths[:k]]


def _is_run(path: Path) -> bool:
    """Whether a path is a run's folder. One that cannot be read is left out, with a warning."""
    try:
        return kind_of(path) == "folder" and CONFIG in names_in(path)
    except UserError as error:
        warnings.warn(f"left out: {error}", stacklevel=2)
        return False


def choose_suite(prompts: Sequence[str], asked: str | Path | None) -> tuple[str, list[str]]:
    """The suite that was asked for, or else the first bundled one that holds all ``prompts``: its name and prompts.

    UserError if a prompt is not in it: runs of different suites cannot be ranked together.
    """
    if asked is not None:
        name, suite = Path(asked).stem, load_suite(asked)
    else:
        holding = [(n, s) for n in suite_names() if set(prompts) <= set(s := load_suite(n))]
        name, suite = holding[0] if holding else ("bundled-153", load_suite("bundled-153"))
    strange = [p for p in dict.fromkeys(prompts) if p not in set(suite)]
    if strange:
        others = len(dict.fromkeys(prompts)) - len(strange)
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        why = f"; the other {others} are, so these are runs of different suites" if others else ""
        raise UserError(
            f"the prompt {strange[0]!r}{more} is not in the suite {name}{why}; give all prompts with --prompts FILE"
        )
    return name, suite


@cache
def _record() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """What the bundled prior was never shown ('red sofa', 'striped sofa'), its colours and its patterns."""
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    pairs, colours, patterns = (frozenset(record.get(key, ())) for key in ("held_out", "colours", "patterns"))
    return pairs, colours, patterns


def is_held_out(prompt: str) -> bool:
    """Whether the bundled prior was never shown what a prompt ('a red sofa') asks for."""
    return shows_new_look(prompt, *_record())


def shows_new_look(prompt: str, pairs: Collection[str], colours: Collection[str], patterns: Collection[str]) -> bool:
    """Whether a prompt in the words of a suite asks for one of the ``pairs`` of look and thing that were never shown.

    'a red and white striped tent' asks for the pairs 'red tent' and 'striped tent': a look is its main paint and its pattern.
    """
    said = prompt.strip().lower().split()
    said = said[1:] if said[:1] in (["a"], ["an"]) else said
    for k in range(1, len(said)):
        look, name = said[:k], " ".join(said[k:])
        pattern = look.pop() if look[-1] in patterns else ""
        main, _, second = " ".join(look).partition(" and ")
        if second and second not in colours:  # 'red and blue cuckoo' is no look of a clock
            continue
        if any(part and f"{part} {name}" in pairs for part in (main, pattern)):
            return True
    return False
