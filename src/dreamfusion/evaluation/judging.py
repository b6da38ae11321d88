"""``evaluate``: all runs, one judge, one page of figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..clip import load_judge
from ..clip.clip import Clip
from ..errors import UserError
from ..paths import readable, user_path
from ..torch_state import kept_random, own_torch, threads
from .ceiling import judge_samples
from .html import page
from .inputs import choose_suite, find_runs
from .measure import Judge, Judgement
from .summary import summarise, with_ceiling

FORMAT = 1
CEILING_VIEWS = 4


def evaluate(
    runs: Sequence[str | Path],
    clip: str | Clip = "bundled",
    prompts: str | Path | None = None,
    *,
    views: int = 8,
    seed: int = 0,
    ceiling: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Judge runs (folders, or folders of run folders): {clip, suite, views, seed, assets, summary, held_out, ceiling}.

    ``prompts``: the suite's name or a file, by default the bundled suite that holds all the runs' prompts. ``ceiling`` also
    judges the prior's own samples of the same prompts (of the whole suite where no runs are given). UserError for input that
    cannot be judged.
    """
    return evaluate_full(runs, clip, prompts, views=views, seed=seed, ceiling=ceiling, progress=progress)[0]


@own_torch()
@kept_random()
def evaluate_full(
    runs: Sequence[str | Path],
    clip: str | Clip = "bundled",
    prompts: str | Path | None = None,
    *,
    views: int = 8,
    seed: int = 0,
    ceiling: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], str]:
    """The same, and the HTML page with pictures."""
    found = find_runs(runs)
    if not found and not ceiling:
        raise UserError("there is nothing to evaluate: name runs, or ask for the prior's --ceiling")
    asked = [run.config.prompt for run in found]
    name, suite = choose_suite(asked, prompts)
    judge = Judge(load_judge(clip) if isinstance(clip, str) else clip, suite, views, seed)
    judged: list[Judgement] = []
    for k, run in enumerate(found):
        with threads(run.config.threads):
            judged.append(judge.run(run))
        progress(f"{k + 1}/{len(found)} {said(judged[-1].figures)}")
    samples = _ceiling(judge, list(dict.fromkeys(asked)) or suite, progress) if ceiling else []
    assets = with_ceiling([j.figures for j in judged], [s.figures for s in samples])
    result: dict[str, Any] = {
        "format": FORMAT,
        "dreamfusion": __version__,
        "clip": {"id": judge.clip.id, "sha256": judge.clip.hash},
        "suite": {"name": name, "prompts": len(suite), "sha256": suite_hash(suite)},
        "views": views,
        "seed": seed,
        "summary": summarise(assets),
        "held_out": summarise([a for a in assets if a["held_out"]]),
        "assets": assets,
        "ceiling": None,
    }
    if samples:
        figures = [s.figures for s in samples]
        new = [f for f in figures if f["held_out"]]
        result["ceiling"] = {"summary": summarise(figures), "held_out": summarise(new), "samples": figures}
    shots = {s.figures["prompt"]: s.pictures["colour"] for s in samples}
    return result, page(result, [j.pictures for j in judged], shots)


def _ceiling(judge: Judge, prompts: Sequence[str], progress: Callable[[str], None]) -> list[Judgement]:
    from ..priors.bundled_prior import BundledPrior

    prior, out = BundledPrior(), []
    for k, prompt in enumerate(prompts):
        out.append(judge_samples(prior, prompt, judge, min(CEILING_VIEWS, len(judge.views))))
        progress(f"prior {k + 1}/{len(prompts)} {said(out[-1].figures)}")
    return out


def said(figures: dict[str, Any]) -> str:
    """One asset in a line."""
    janus = figures.get("janus")
    fronts = "" if janus is None else f"  {janus['fronts']} fronts{' JANUS' if janus['janus'] else ''}"
    half = "" if figures.get("finished", True) else f"  (unfinished, step {figures['steps']})"
    return f"{figures['prompt']}: R@1 {figures['r1']:.2f}  R@10 {figures['r10']:.2f}{fronts}{half}"


def suite_hash(prompts: Sequence[str]) -> str:
    """SHA-256 of a suite's prompts, one a line."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()


def read(path: str | Path) -> dict[str, Any]:
    """An ``evaluation.json`` that was written earlier. UserError if the file is something else."""
    try:
        with readable(path := user_path(path)):
            found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise UserError(
                f"{path} has format {found['format']}; this is dreamfusion {__version__}, which reads {FORMAT}"
            )
        for key in ("clip", "suite", "views", "seed", "assets"):
            found[key]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not an evaluation that dreamfusion wrote") from None
    return found
