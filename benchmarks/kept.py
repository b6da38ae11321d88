"""What is kept of every asset: its figures, and the settings, prior, judge, commit, machine and date behind them.

A line of JSON an asset in ``results/assets/<row>.jsonl``. A benchmark makes and judges only what is not kept, so it goes on
on another machine with nothing but the repository. Delete a line (or a file) to have its asset made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jobs import Job, cost, made, run
from machine import provenance

from dreamfusion.clip import bundled_clip as clips
from dreamfusion.clip import load_judge
from dreamfusion.errors import UserError
from dreamfusion.evaluation.ceiling import judge_samples
from dreamfusion.evaluation.inputs import choose_suite
from dreamfusion.evaluation.judging import said, suite_hash
from dreamfusion.evaluation.measure import Judge, Judgement
from dreamfusion.evaluation.summary import with_ceiling
from dreamfusion.files import write_atomic
from dreamfusion.loading import load_prior
from dreamfusion.models.hashes import file_sha256
from dreamfusion.priors import bundled_prior as bundled
from dreamfusion.priors.prior import Prior
from dreamfusion.run import Run
from dreamfusion.suites import load_suite

HOME = Path(__file__).parent / "results" / "assets"
VIEWS, SEED = 8, 0
WIDE = {"open-153": "open-wide", "instances-24": "open-wide"}
"""The suite with everything that a suite's prompts are drawn from, by default ``bundled-2756``: its R-Precision (``wide_r1``,
``wide_r10``) is kept beside that of the suite."""
WEIGHTS = {"bundled": bundled.WEIGHTS, "guide": clips.WEIGHTS / "guide.safetensors"}
LATER: dict[str, Any] = {
    "distillation.warps": 0,
    "distillation.warp": 0.6,
    "regularizers.total_variation": 0.0,
    "regularizers.sketch": 0.0,
    "scene.sketch": "",
    "scene.sketch_width": 0.3,
    "shading.depth": 0.0,
}
"""Settings that are younger than kept records, and the value at which they do nothing: with it they are not hashed."""
DROPPED = ("run", "ranks", "clay_ranks", "wide_ranks")
"""Figures that are not kept: a path of the machine, and what the precisions say already."""

Record = dict[str, Any]


@cache
def prior_hash(id: str) -> str:
    """SHA-256 of a prior's weights as they are now, of the package's or in a file; the id of any other prior."""
    if id.endswith(".safetensors"):
        return file_sha256(Path(id))
    return json.loads(WEIGHTS[id].with_suffix(".json").read_bytes())["sha256"] if id in WEIGHTS else id


def settings_hash(job: Job) -> str:
    """SHA-256 of every setting that could change the asset, and of the prior's weights."""
    settings = job.all_settings()
    settings.pop("changes")  # of a run that was stopped; no benchmark makes any
    settings = {name: value for name, value in settings.items() if name not in LATER or value != LATER[name]}
    settings |= {"export.unwrap_seconds": 300.0, "export.faces": 50_000}  # nothing that is judged depends on them
    weights = prior_hash(settings["prior.id"])
    if settings["prior.id"].endswith(".safetensors"):
        settings["prior.id"] = "file"  # which may lie anywhere
    return hashlib.sha256(json.dumps([settings, weights], sort_keys=True).encode()).hexdigest()


def judge_key(suite: Sequence[str], wide: str) -> Record:
    """Who judges, among what, from which views."""
    suites = {"suite": suite_hash(list(suite)), "wide": suite_hash(load_suite(wide))}
    return {"sha256": load_judge().hash, "views": VIEWS, "seed": SEED} | suites


def read(row: str, home: Path = HOME) -> dict[str, Record]:
    """What is kept of a row, by prompt."""
    path = home / f"{row}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {record["figures"]["prompt"]: record for record in map(json.loads, lines)}


def write(row: str, records: Iterable[Record], home: Path = HOME) -> None:
    """Keep a row, in the order of its prompts."""
    home.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(r, sort_keys=True) for r in sorted(records, key=lambda r: r["figures"]["prompt"])]
    write_atomic(home / f"{row}.jsonl", "".join(f"{line}\n" for line in lines).encode())


def rounded(value: Any) -> Any:
    """Figures with four digits behind the point, in whatever they stand."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


class TwoSuites:
    """A judge who ranks the same pictures among the suite and among the suite named ``wide``."""

    def __init__(self, suite: list[str], wide: str):
        self.clip = load_judge()
        self.judge = Judge(self.clip, suite, VIEWS, SEED)
        self.wide = Judge(self.clip, load_suite(wide), VIEWS, SEED, textureless=False)

    def figures(self, judgement: Judgement) -> dict[str, Any]:
        """A judgement's figures, and the wide ones where the prompt is in that suite; as they are kept."""
        figures, prompt = dict(judgement.figures), judgement.figures["prompt"]
        if prompt in self.wide.place:
            found = self.wide.rank(judgement.pictures["colour"], prompt)
            figures |= {f"wide_{key}": value for key, value in found.items()}
        return rounded({k: v for k, v in figures.items() if k not in DROPPED})


def origins(records: Sequence[Record]) -> dict[str, str]:
    """{commit, machine, date} of records, the different ones one after another, the newest last."""
    ordered = sorted(records, key=lambda r: r["date"])
    return {key: "; ".join(dict.fromkeys(r[key] for r in ordered)) for key in ("commit", "machine", "date")}


class Assets:
    """The assets of one suite, made and judged once: ``make`` and ``judge`` do what is missing, ``of`` tells what is kept."""

    def __init__(self, suite: str | None, prompts: Sequence[str], home: Path = HOME):
        self.home = home
        self.suite_name, self.suite = choose_suite(list(prompts), suite)
        self.wide = WIDE.get(self.suite_name, "bundled-2756")
        self.key = judge_key(self.suite, self.wide)
        self.rows: dict[str, dict[str, Record]] = {}

    def row(self, row: str) -> dict[str, Record]:
        """All that is kept of a row, by prompt."""
        return self.rows.setdefault(row, read(row, self.home))

    def is_kept(self, row: str, job: Job) -> bool:
        """Whether the job's asset is known: of these settings and this prior, by this judge."""
        record = self.row(row).get(job.prompt)
        return record is not None and record["settings"] == settings_hash(job) and record["judge"] == self.key

    def steps_done(self, job: Job) -> int | None:
        """Steps of the job's run in its folder. UserError where another prior has made it, or other settings."""
        done = job.steps_done()
        if done is not None:
            wanted = prior_hash(job.all_settings()["prior.id"])
            if (recorded := Run.open(job.folder).recorded["prior"]["sha256"]) != wanted:
                raise UserError(
                    f"{job.folder} was made with another prior (SHA-256 {recorded[:12]}…, now {wanted[:12]}…); move it away"
                )
        return done

    def make(self, jobs: Sequence[tuple[str, Job]], workers: int, say: Callable[[str], None] = print) -> None:
        """Make the assets of (row, job) that are not kept, several at a time."""
        new = [job for row, job in jobs if not self.is_kept(row, job)]
        for job in new:
            self.steps_done(job)
        say(f"{len(jobs) - len(new)} of {len(jobs)} assets are kept")
        run(new, workers, say)

    def judge(self, jobs: Sequence[tuple[str, Job]], say: Callable[[str], None] = print) -> None:
        """Judge the runs that are finished and not kept, and keep their figures, row by row."""
        judge: TwoSuites | None = None
        origin = provenance()
        for row in dict.fromkeys(row for row, _ in jobs):
            self.rows.pop(row, None)  # another process may have judged some meanwhile
            new = [job for r, job in jobs if r == row and not self.is_kept(row, job)]
            ready = [job for job in new if self.steps_done(job) is not None and job.ask() is None]
            for job in ready:
                judge = judge or TwoSuites(self.suite, self.wide)
                judgement = judge.judge.run(Run.open(job.folder))
                say(f"{row}: {said(judgement.figures)}")
                record = (
                    {"settings": settings_hash(job), "judge": self.key} | origin | cost(job.folder) | made(job.folder)
                )
                self.row(row)[job.prompt] = record | {"figures": judge.figures(judgement)}
            if ready:
                write(row, self.row(row).values(), self.home)

    def of(self, row: str, jobs: Sequence[Job]) -> list[Record]:
        """The records of a row's jobs that are kept, in their order."""
        return [self.row(row)[job.prompt] for job in jobs if self.is_kept(row, job)]

    def beside_prior(self, records: Sequence[Record]) -> list[Record]:
        """The records, with each asset's saturation as a multiple of that of the prior's own samples (``saturation_ratio``)."""
        samples = self.ceiling([r["figures"]["prompt"] for r in records])
        figures = with_ceiling([r["figures"] for r in records], samples)
        return [r | {"figures": f} for r, f in zip(records, figures, strict=True)]

    def by_prompt(self, jobs: Mapping[str, tuple[str, Sequence[Job]]], out: Path) -> dict[str, dict[str, Record]]:
        """The records that are kept, by entry of a table and prompt; ``jobs`` has each entry's row and jobs. Entries without any
        are left out. UserError if nothing is kept of any."""
        found = {}
        for entry, (row, wanted) in jobs.items():
            if records := self.beside_prior(self.of(row, wanted)):
                found[entry] = {r["figures"]["prompt"]: r for r in records}
        if not found:
            raise UserError(f"there are no finished runs in {out}, and nothing is kept")
        return found

    def ceiling(self, prompts: Sequence[str], say: Callable[[str], None] = print) -> list[dict[str, Any]]:
        """The figures of the bundled prior's own samples of prompts, sampled where they are not kept yet."""
        settings, row = prior_hash("bundled"), f"ceiling-{self.suite_name}"
        found = self.row(row)
        new = [
            p for p in prompts if p not in found or (found[p]["settings"], found[p]["judge"]) != (settings, self.key)
        ]
        if new:
            judge, prior, origin = TwoSuites(self.suite, self.wide), load_prior("bundled"), provenance()
            assert isinstance(prior, Prior)
            for prompt in new:
                judgement = judge_samples(prior, prompt, judge.judge)
                say(f"ceiling: {said(judgement.figures)}")
                record = {"settings": settings, "judge": self.key} | origin
                found[prompt] = record | {"figures": judge.figures(judgement)}
            write(row, found.values(), self.home)
        return [found[p]["figures"] for p in prompts]
