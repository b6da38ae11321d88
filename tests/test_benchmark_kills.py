"""Workers that are killed and resumed, as benchmarks/kills.py and worker_kills.py count them."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamfusion.batch.crew import Worker, make_all

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


def checkpoint(run: Path, step: int) -> None:
    (run / "checkpoint").mkdir(parents=True)
    (run / "checkpoint" / "checkpoint.json").write_text(json.dumps({"state": {"step": step}}))


SLOW = """
import json, sys, time
from pathlib import Path
for line in sys.stdin:
    run = Path(json.loads(line)["folder"])
    again = run.exists()
    run.mkdir(exist_ok=True)
    (run / "run.yaml").touch()
    time.sleep(0 if again else 60)
    print(json.dumps({"error": None}), flush=True)
"""
"""A worker whose new runs take a minute. A run that it finds in its folder is done at once."""


class Asked:
    """A job that is never looked into."""

    def __init__(self, folder: Path):
        self.folder = folder

    def ask(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}


def test_each_run_of_a_batch_loses_its_worker_once_and_is_made(tmp_path: Path) -> None:
    from worker_kills import MOMENTS, Killer

    killer = Killer(random.Random(0), 0.05, 5, lambda: Worker((sys.executable, "-c", SLOW)))
    jobs: list[Any] = [Asked(tmp_path / name) for name in "ab"]
    result = make_all(jobs, 1, killer, retries=1, hire=killer.hire)
    assert not result.failed and killer.moments == dict.fromkeys((tmp_path / "a", tmp_path / "b"), MOMENTS[0])


def test_the_moment_of_a_kill_and_the_tally(tmp_path: Path) -> None:
    from worker_kills import MOMENTS, moment_of, tally

    for name, step in (("some", 2), ("all", 5)):
        checkpoint(tmp_path / name, step)
    moments = {run: moment_of(run, 5) for run in (tmp_path / "none", tmp_path / "some", tmp_path / "all")}
    assert tuple(moments.values()) == MOMENTS
    found = tally(moments, lambda run: run.name != "some")
    assert (found["trials"], found["exact"], found["failed"]) == (3, 2, ["some"])
    assert found["moments"] == dict.fromkeys(MOMENTS, 1)


def test_a_run_is_exact_only_with_the_same_tensors_asset_and_steps(tmp_path: Path) -> None:
    from kills import done, traces

    def made(name: str, tensors: str = "a", asset: str = "b", steps: tuple[int, ...] = (1, 2)) -> Path:
        run = tmp_path / name
        checkpoint(run, 2)
        (run / "checkpoint" / f"{tensors}.safetensors").touch()
        (run / "asset.glb").write_text(asset)
        (run / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))
        return run

    one = traces(made("one"))
    assert one == traces(made("same"))
    others = (made("x", tensors="c"), made("y", asset="c"), made("z", steps=(1, 1, 2)))
    assert all(traces(run) != one for run in others)
    assert not done(tmp_path / "one")  # its film is missing


def test_figures_of_workers_stand_beside_those_of_single_runs() -> None:
    from kills import page_with

    single, batch = {"trials": 100, "commit": "a"}, {"trials": 34, "commit": "b"}
    page = page_with(page_with({}, "run", single), "batch", batch)
    assert page == {"what": "kills", **single, "workers": {"batch": batch}}
    page = page_with(page, "studio", batch)
    assert page["workers"] == {"batch": batch, "studio": batch}
    assert page_with(page, "run", {"trials": 5}) == {"what": "kills", "trials": 5, "workers": page["workers"]}


def test_the_page_says_what_the_kills_say() -> None:
    from page.kills import kills

    origin = {"commit": "abc", "date": "2026-01-02", "machine": "a machine"}
    moments = {"before the first checkpoint": 0, "in the steps": 30, "in the export": 4}
    batch = {"trials": 34, "exact": 33, "failed": ["7"], "moments": moments, **origin, "commit": "def"}
    page = {"kinds": {"SIGTERM": {"trials": 17, "exact": 16}}, "workers": {"batch": batch}, **origin}
    lines = kills(page)
    assert "| `generate` | SIGTERM | 17 | 16 |" in lines and "| the worker of a batch | SIGKILL | 34 | 33 |" in lines
    said = "\n".join(lines)
    assert "of a batch came at these moments: 30 in the steps, 4 in the export." in said
    assert "Commit abc, 2026-01-02, a machine. Commit def" in said and "studio |" not in said
    assert "No result is kept yet." in "\n".join(kills(None))
