"""Batches of runs stop, go on and are told apart; the benchmarks' page says what the results say."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from dreamfusion import generate
from dreamfusion.errors import UserError
from dreamfusion.priors.prior import broadcast
from dreamfusion.priors.question import Question
from dreamfusion.settings.presets import resolve
from tests.fakes import SMALL, GrayBallPrior, PixelPrior

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import jobs

    return jobs


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import benchmarks_page

    return benchmarks_page


@pytest.fixture
def rows() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "benchmarks" / "ablation.yaml").read_text())


def test_rows_are_one_page_of_changes_each(rows: dict[str, dict[str, Any]], bench: Any, tmp_path: Path) -> None:
    seen = []
    for row in rows.values():
        job = bench.Job(tmp_path / "x", "a ball", row.get("preset", "words"), row["settings"])
        ask = json.loads(json.dumps(job.ask()))
        asked = resolve(ask["preset"], ask["settings"], ask["prompt"])
        assert asked.threads == 1 and not ask["resume"]
        assert asked not in seen
        seen.append(asked)
    full, dream_fields = (seen[list(rows).index(name)] for name in ("full", "dream-fields"))
    assert full.scene == dream_fields.scene and full.view.elevation_deg == dream_fields.view.elevation_deg


def test_a_job_is_new_goes_on_or_is_done(bench: Any, tmp_path: Path) -> None:
    job = bench.Job(tmp_path / "run", "a ball", "fast", SMALL | {"steps": 3})
    assert not job.ask()["resume"] and job.ask()["folder"] == str(job.folder)

    class Stop(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.step == 2:
            raise Stop

    often = {"run.checkpoint_seconds": 1e-6}
    settings = bench.PLAIN | job.settings | often
    with pytest.raises(Stop):
        generate("a ball", "fast", out=job.folder, prior=GrayBallPrior(), callbacks=[stop], **settings)
    assert job.steps_done() == 2 and job.ask()["resume"]
    generate(resume=job.folder, prior=GrayBallPrior())
    assert job.steps_done() == 3 and job.ask() is None
    other = bench.Job(job.folder, "a ball", "fast", job.settings | {"view.words": False})
    with pytest.raises(UserError, match=r"was made with view\.words = true, now false"):
        other.ask()
    changed = bench.Job(tmp_path / "changed", "a ball", "fast", job.settings)
    with pytest.raises(Stop):
        generate("a ball", "fast", out=changed.folder, prior=GrayBallPrior(), callbacks=[stop], **settings)
    generate(resume=changed.folder, prior=GrayBallPrior(), guidance_scale=5)
    with pytest.raises(UserError, match=r"was changed .* \(distillation.guidance_scale = 5 from step 2 on\); move it"):
        changed.ask()
    found = bench.cost(job.folder)
    lines = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and found["seconds"] == pytest.approx(sum(x["seconds"] for x in lines), abs=0.01)


def fake(script: str) -> list[str]:
    """A worker that runs a script for each job: ``name`` is its folder, ``say`` answers."""
    head = "import json, os, signal, sys, time; from pathlib import Path\n"
    head += "say = lambda error: print(json.dumps({'error': error}), flush=True)\n"
    loop = "for line in sys.stdin:\n    name = json.loads(line)['folder']\n"
    return [sys.executable, "-c", head + loop + "".join(f"    {line}\n" for line in script.splitlines())]


def test_failures_are_named_and_the_others_made(bench: Any, tmp_path: Path) -> None:
    script = "if name.endswith('0'): os._exit(9)\nsay('one clear line' if name.endswith('1') else None)"
    said: list[str] = []
    jobs = [bench.Job(tmp_path / str(k), "a ball") for k in range(4)]
    assert sorted(bench.run(jobs, 2, said.append, fake(script)), key=jobs.index) == jobs[:2]
    assert any(line.endswith("0: failed: its process ended (9)") for line in said)
    assert any(line.endswith("1: failed: one clear line") for line in said)
    assert sum(" s, " in line for line in said) == 2


def test_a_stop_reaches_every_run_and_waits_for_it(bench: Any, tmp_path: Path) -> None:
    script = (
        "def stop(*_): time.sleep(0.2); Path(name + '.stopped').touch(); os._exit(143)\n"
        "signal.signal(signal.SIGTERM, stop); Path(name + '.started').touch(); time.sleep(60)"
    )

    def stop_when_both_run() -> None:
        while len(list(tmp_path.glob("*.started"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_both_run, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        bench.run([bench.Job(tmp_path / str(k), "a ball") for k in range(5)], 2, lambda _: None, fake(script))
    assert stopped.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before
    assert sorted(p.name for p in tmp_path.glob("*.st*")) == ["0.started", "0.stopped", "1.started", "1.stopped"]


def test_prompts_by_suite_file_or_number(bench: Any, tmp_path: Path) -> None:
    assert bench.choose_prompts("3") == bench.choose_prompts("bundled-153")[:3]
    fronts = bench.choose_prompts("fronts")
    assert (
        len(fronts) == 48
        and "a red rabbit" in fronts
        and "a basin" not in fronts
        and set(fronts) < set(bench.choose_prompts("bundled-153"))
    )
    (tmp_path / "mine.txt").write_text("a red ball\n\na blue ball\n")
    assert bench.choose_prompts(str(tmp_path / "mine.txt")) == ["a red ball", "a blue ball"]
    for wrong in ("0", "154", "nothing"):
        with pytest.raises(UserError):
            bench.choose_prompts(wrong)


def record(prompt: str, **figures: Any) -> dict[str, Any]:
    base = {"prompt": prompt, "janus": None, "saturation": None, "clay_r10": 0.5}
    return {"seconds": 10.0, "seconds_prior": 4.0, "figures": base | figures}


def test_rows_are_compared_on_the_prompts_that_all_have(bench: Any) -> None:
    import ablation

    right = {"full": [1.0, 1.0, 0.0], "dream-fields": [0.5, 0.0]}
    found = {row: [record(f"p{k}", r10=r) for k, r in enumerate(values)] for row, values in right.items()}
    page = ablation.results(found)
    assert page["prompts"] == ["p0", "p1"]
    full, other = page["rows"]["full"], page["rows"]["dream-fields"]
    assert full["summary"]["r10"]["value"] == 1.0 and other["summary"]["r10"]["value"] == 0.25
    over = other["over_full"]["r10"]
    assert over["value"] == pytest.approx(-0.75) and over["low"] <= -0.75 <= over["high"] and "over_full" not in full
    assert full["whole"]["r10"]["count"] == 3 and "whole" not in other
    assert (other["reported"], other["cost"]) == (38.5, {"seconds": 10.0, "seconds_prior": 4.0})
    json.dumps(page, allow_nan=False)


def test_a_row_that_has_only_begun_does_not_shorten_the_table(bench: Any) -> None:
    import ablation

    found = {
        row: [record(f"p{k}", r10=1.0) for k in range(count)]
        for row, count in (("full", 20), ("no-view", 16), ("dream-fields", 15))
    }
    page = ablation.results(found)
    assert len(page["prompts"]) == 16 and list(page["rows"]) == ["full", "no-view"]
    assert page["unfinished"] == {"dream-fields": 15}


@pytest.fixture
def assets(bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Two-prompt assets whose judge looks at nothing, with the kept figures in a folder of the test's own."""
    import kept

    class Blind:
        def __init__(self, clip: Any, suite: list[str], views: int, seed: int, textureless: bool = True):
            self.place = {prompt: k for k, prompt in enumerate(suite)}

        def rank(self, pictures: str, prompt: str) -> dict[str, Any]:
            assert pictures == "pictures"
            return {"ranks": [3.0], "r1": 0.0, "r10": 1.0}

        def run(self, run: Any) -> Any:
            figures = record(run.config.prompt, r1=0.123456, r10=1.0, run=str(run.path), ranks=[1.0])["figures"]
            return SimpleNamespace(figures=figures, pictures={"colour": "pictures"})

    monkeypatch.setattr(kept, "Judge", Blind)
    monkeypatch.setattr(kept, "load_suite", lambda _: ["a ball", "a cube"])
    monkeypatch.setattr(kept, "prior_hash", lambda _: GrayBallPrior().hash)
    (tmp_path / "suite.txt").write_text("a ball\na red ball\n")
    return lambda: kept.Assets(str(tmp_path / "suite.txt"), ["a ball"], tmp_path / "kept")


def test_what_is_kept_is_not_made_again(
    bench: Any, assets: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import kept

    def make(jobs: list[Any], workers: int, say: Any) -> list[Any]:
        for job in jobs:
            generate("a ball", "fast", out=job.folder, prior=GrayBallPrior(), **bench.PLAIN | job.settings)
        made.extend(jobs)
        return []

    made: list[Any] = []
    monkeypatch.setattr(kept, "run", make)
    job = bench.Job(tmp_path / "run", "a ball", "fast", SMALL | {"steps": 2})
    first = assets()
    first.judge([("row", job)], lambda _: None)
    assert first.of("row", [job]) == []  # there is nothing to judge yet
    first.make([("row", job)], 1, lambda _: None)
    late = assets()
    assert not late.is_kept("row", job)
    first.judge([("row", job)], lambda _: None)
    late.judge([("row", job)], pytest.fail)  # it sees what another process has judged meanwhile
    shutil.rmtree(job.folder)
    again = assets()  # another process, another machine: the runs' folders are gone
    again.make([("row", job)], 1, lambda _: None)
    (known,) = again.of("row", [job])
    assert made == [job] and known == first.of("row", [job])[0]
    assert known["figures"]["r1"] == 0.1235 and known["seconds"] > 0 and not {"run", "ranks"} & set(known["figures"])
    assert (known["figures"]["wide_r1"], known["figures"]["wide_r10"]) == (0.0, 1.0)
    assert str(tmp_path) not in (tmp_path / "kept" / "row.jsonl").read_text()
    longer = bench.Job(tmp_path / "other", "a ball", "fast", SMALL | {"steps": 3})
    assert not again.is_kept("row", longer) and again.of("row", [longer]) == []
    again.key = again.key | {"sha256": "another judge"}
    assert not again.is_kept("row", job)


def test_a_run_of_another_prior_is_not_taken_for_one_of_this(bench: Any, assets: Any, tmp_path: Path) -> None:
    job = bench.Job(tmp_path / "run", "a ball", "fast", SMALL | {"steps": 1})
    prior = GrayBallPrior()
    prior.hash = "1" * 64
    generate("a ball", "fast", out=job.folder, prior=prior, **bench.PLAIN | job.settings)
    for ask in (lambda: assets().make([("row", job)], 1), lambda: assets().judge([("row", job)])):
        with pytest.raises(UserError, match=r"was made with another prior \(SHA-256 111111111111…"):
            ask()


def test_a_prior_in_a_file_is_known_by_its_weights_and_not_by_its_place(bench: Any, tmp_path: Path) -> None:
    import kept

    hashes = []
    for place, weights in (("here", b"one"), ("there", b"one"), ("elsewhere", b"two")):
        (tmp_path / place).mkdir()
        file = tmp_path / place / "bundled.safetensors"
        file.write_bytes(weights)
        kept.prior_hash.cache_clear()
        hashes.append(kept.settings_hash(bench.Job(tmp_path / "run", "a ball", "words", {"prior.id": str(file)})))
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[0] != kept.settings_hash(bench.Job(tmp_path / "run", "a ball", "words"))


def figure(value: float, count: int = 16) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "count": count}


ORIGIN: dict[str, Any] = {
    "commit": "abc", "machine": "a machine", "date": "2026-01-01", "views": 8, "seed": 0, "clip": {"id": "bundled", "sha256": "d" * 64},
    "suite": {"name": "bundled-153", "prompts": 153}, "wide": {"name": "bundled-2756", "prompts": 2756},
}  # fmt: skip


def test_the_page_says_what_the_ablation_says(pages: Any, rows: dict[str, dict[str, Any]]) -> None:
    def row(name: str, r10: float, over: float) -> dict[str, Any]:
        summary = {"r10": figure(r10), "wide_r10": figure(r10 / 2), "clay_r1": figure(0.3), "haze": figure(0.2)}
        cost = {"seconds": 100.0, "seconds_prior": 40.0}
        entry = {"title": rows[name]["title"], "reported": rows[name].get("seed"), "summary": summary, "cost": cost}
        return entry | ({"over_full": {"r10": figure(over), "wide_r10": figure(over / 2)}} if name != "full" else {})

    page = {"preset": "words", "prompts": ["x"] * 16} | ORIGIN
    page["rows"] = {
        "full": row("full", 0.8, 0.0),
        "w-7.5": row("w-7.5", 0.9, 0.1),
        "no-view": row("no-view", 0.2, -0.6),
        "dream-fields": row("dream-fields", 0.2, -0.6),
        "w-100": row("w-100", 0.1, -0.7),
    }
    page["rows"]["full"]["whole"] = {"r10": figure(0.77, 153), "janus": figure(0.125, 48)}
    page |= {"unfinished": {"narrow-t": 5}, "ceiling": {"r10": figure(0.9), "haze": figure(0.1)}}
    text = "\n".join(pages.ablation(page, rows))
    assert "| the prior's own pictures (the ceiling) | 90.0 % (80 to 100) | – | – | – | 10.0 % |  |  |" in text
    assert "left out: narrow t, 0.02 to 0.5 (5)." in text and "of several machines" not in text
    assert "| 80.0 % (70 to 90) | 40.0 % | – | 30.0 % | 20.0 % | 78.6 % | 100, 40% |" in text
    assert "| 10.0 % (-30.0 (-40 to -20)) | – | 30.0 % |" in text
    assert "`full` is not at the top and `dream-fields` is at the bottom, a place it shares with 1 more" in text
    assert "*guidance w = 7.5* is reported to be worse than full; here it is not (of all: +5.0 (-5 to +15)):" in text
    assert "*Dream Fields* is reported" not in text and "Commit abc, 2026-01-01, a machine" in text
    assert "| guidance w = 100" not in text and "| 100 | 5.0 % (-5 to 15) |" in text, "the sweep has a table of its own"
    assert text.index("| 0 | 40.0 %") < text.index("| 7.5 | 45.0 %") < text.index("| 100 | 5.0 %")
    assert "| full | 48 | 12.5 % (2 to 22) | – |" in text and "have no front that could be double" not in text
    page["rows"]["full"]["whole"]["no_front"] = figure(0.6, 48)
    assert "Most assets of *full* have no front" in "\n".join(pages.ablation(page, rows))


def test_the_picture_of_the_sweep_has_the_scales_in_order(
    bench: Any, pages: Any, rows: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ablation
    from PIL import Image

    begun = {"w-100": "a ball", "full": "a ball", "w-7.5": "a ball", "w-20": "a cup", "no-view": "a ball"}
    for row, prompt in begun.items():
        folder = bench.folder_of(tmp_path / row, prompt) / "checkpoint"
        folder.mkdir(parents=True)
        (folder / "checkpoint.json").touch()
    labels = ablation.sweep_rows(tmp_path, ["a ball"])
    assert list(labels.items()) == [("full", "w = 0"), ("w-7.5", "w = 7.5"), ("w-100", "w = 100")]
    drawn: list[Any] = []
    monkeypatch.setattr("sheet.sheet", lambda *given: drawn.append(given) or Image.new("RGB", (8, 8)))
    path = tmp_path / "docs" / "benchmarks" / "sweep.jpg"
    ablation.draw(tmp_path, labels, ["a cup"], path)
    assert not drawn and not path.exists()
    ablation.draw(tmp_path, labels, ["a cup", "a ball"], path)
    cells, across, _ = drawn[0]
    assert across == 1 and [label for label, _ in cells] == ["w = 0: a ball", "w = 7.5: a ball", "w = 100: a ball"]
    summary = {key: figure(0.5) for key in ("wide_r10", "wide_r1", "clay_r1", "haze", "saturation_ratio")}
    from page.ablation import sweep

    embedded = []
    for docs in (tmp_path, tmp_path / "docs"):
        monkeypatch.setattr("page.text.DOCS", docs)
        embedded.append(
            "](benchmarks/sweep.jpg)" in "".join(sweep({row: {"summary": summary} for row in labels}, rows))
        )
    assert embedded == [False, True]


def test_the_page_says_what_a_suite_says(pages: Any) -> None:
    from page.suites import suite

    page = ORIGIN | {"preset": "fast", "held_out": {"r10": figure(0.5, 60)}}
    page["summary"] = {"r10": figure(0.81, 153), "janus": figure(0.5, 48)}
    page |= {
        "ceiling": {"summary": {"r10": figure(0.95, 153)}, "held_out": {}},
        "prompts": {"a pig": {"r10": 0.125, "r1": 0, "janus": 1}},
    }
    text = "\n".join(suite(page))
    assert (
        "| prompts | 153 | 60 | 153 | 0 |" in text
        and "a pig (12 %, @ 1 0 %)" in text
        and "by the score: a pig." in text
    )
    assert "| Janus | 50.0 % (40 to 60), n = 48 | – | – | – |" in text
    assert "| R-Precision @ 10 | 81.0 % (71 to 91) | 50.0 % (40 to 60) | 95.0 % (85 to 105) | – |" in text
    assert "among all 2,756 prompts of `bundled-2756`" in text


def test_the_page_says_what_rules_scenes_and_batches_say(pages: Any) -> None:
    summary = {"r1": figure(0.5), "wide_r1": figure(0.25), "haze": figure(0.1), "saturation_ratio": figure(1.2)}
    cost = {"seconds": 50.0, "seconds_prior": 25.0}
    entry = {"claim": "the baseline", "answers": 1, "summary": summary, "over_sds": {}, "cost": cost}
    entry |= {"diversity": [0.1, 0.2]}
    other = entry | {
        "claim": "another",
        "answers": 4,
        "why": "so it is",
        "over_sds": {"r1": figure(-0.1)},
        "diversity": [],
    }
    page = ORIGIN | {"budget": 600, "prompts": ["x"] * 16, "rows": {"sds": entry, "vsd": other}}
    text = "\n".join(pages.rules({"calls": page, "time": None}))
    assert "| `sds` | the baseline | 25.0 % | 50.0 % | – | 10.0 % | – | 1.20 (1.10 to 1.30) | 0.150 | 50, 50% |" in text
    assert "| `vsd` | another | 25.0 % | 50.0 % (-10.0 (-20 to +0)) |" in text and "as 600 steps of SDS" in text
    assert "have fewer steps: `vsd` 150." in text and "- `vsd`: so it is." in text
    assert "fewer steps" not in "\n".join(pages.rules({"calls": None, "time": page}))
    cost = {"seconds_per_step": 0.5, "cpu_seconds_per_asset": 90.0}
    presets = {"fast": {"steps": 200, "summary": summary, "over_fast": {}, "cost": cost, "silhouettes": figure(0.9)}}
    presets["fast"]["normals_off"] = figure(20.0)
    text = "\n".join(pages.scenes(ORIGIN | {"prompts": ["x"], "presets": presets}))
    assert "| `fast` | 200 | 25.0 % | – | 10.0 % | – | 90.0 % (80 to 100) | 20.0° | 0.50 | 90 |" in text
    crew = {"workers": 2, "assets": 32, "per_hour": 100.0, "of_linear": 0.9, "peak_mb": 800, "exact": 32}
    served = crew | {"prior": {"occupancy": 1.5}}
    settings = {"steps": "24", "views_per_step": "1"}
    text = "\n".join(
        pages.batch(ORIGIN | {"assets": 32, "settings": settings, "rows": {"crew-2": crew, "served-2": served}})
    )
    assert "| crew-2 | 2 | 100 | 0.90 | 800 | – | 32 of 32 |" in text and "| 800 | 1.50 |" in text
    assert "No result is kept yet." in "\n".join(
        [*pages.batch(None), *pages.scenes(None), *pages.rules({"calls": None})]
    )


def test_the_page_says_what_a_rule_costs_relative_to_sds(pages: Any) -> None:
    rows = {"sds": {"seconds": 2.0, "megabytes": 400.0}, "vsd": {"seconds": 5.0, "megabytes": 1200.0}}
    page = ORIGIN | {"guidance_scale": 7.5, "repeats": 3, "priors": {"if": rows, "sd": rows}}
    lines = pages.costs(page)
    assert "| `vsd` | 5.0 | 2.5 | 1,200 | 5.0 | 2.5 | 1,200 |" in lines
    assert any("with guidance (7.5)" in line for line in lines) and "No result is kept yet." in pages.costs(None)


@pytest.mark.parametrize(("belief", "expected"), [(1.0, 1.0), (0.25, 0.25), (0.0, 0.0)])
def test_opinion_tells_how_much_of_the_picture_is_left(
    bench: Any, monkeypatch: pytest.MonkeyPatch, belief: float, expected: float
) -> None:
    import opinion

    class Stubborn(PixelPrior):
        """Answers with a gray of its own, mixed with a share ``belief`` of the true picture: it was told the noise."""

        def predict_noise(self, z_t: Any, t: Any, question: Question, about: Any) -> Any:
            asked.append((question.asks, about[0] is None))
            alpha, sigma = (broadcast(x, z_t) for x in self.alpha_sigma(t))
            seen = (z_t - sigma * noise) / alpha
            return (self.exact_noise(z_t, t, belief * seen + (1 - belief) * 0.3),) * len(about)

    def sample(prior: Any, question: Question, generator: Any, guidance_scale: float) -> Any:
        assert question.asks == "camera" and guidance_scale == 0
        return torch.rand((len(question.view), 3, 8, 8), generator=generator)

    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(opinion, "sample", sample)
    generator = torch.Generator().manual_seed(0)
    torch.rand((4, 3, 8, 8), generator=generator)
    noise = torch.randn((4, 3, 8, 8), generator=generator)
    found = opinion.shares(Stubborn(), "a ball", torch.Generator().manual_seed(0))
    each = 2 * len(opinion.LEVELS)  # about two pictures
    assert asked == [("camera", False)] * each + [("words", False)] * each + [("words", True)] * each
    assert tuple(found) == opinion.TOLD
    for shares in found.values():
        assert shares == pytest.approx([expected] * len(opinion.LEVELS), abs=1e-4)


def test_the_page_says_what_the_live_view_says(pages: Any) -> None:
    from page.live_view import live_view

    origin = {"commit": "abc", "date": "2026-01-02", "machine": "a machine"}
    running = {"frames_per_second": 11.26, "steps_per_second": 2.5, "http_cpu_ms": 1.25}
    stopped = {"frames_per_second": 17.5, "frame_cpu_ms": 57.2, "jpeg_cpu_ms": 0.13}
    page = {"preset": "fast", "prompt": "a chair", "side": 128, "running": running, "stopped": stopped, **origin}
    said = "\n".join(live_view(page))
    assert "| in progress | 11.3 | 2.5 |" in said and "| stopped | 17.5 | – |" in said
    assert "57 ms, of which 0.1 ms are the JPEG" in said and "No result is kept yet." in "\n".join(live_view(None))


def test_two_sizes_need_packed_weights_and_their_figures(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sizes

    words = [str(word) for word in ("--full", tmp_path, "--small", tmp_path, "--out", tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sizes", *words])
    for name, said in (("bundled.safetensors", "pack.py"), ("unseen.json", "unseen.py")):
        with pytest.raises(SystemExit) as end:
            sizes.main()
        assert end.value.code == 2
        assert capsys.readouterr().err == f"sizes: {tmp_path} has no {name}: tools/prior/{said} writes it\n"
        (tmp_path / name).write_text("{}")
    assert sizes.weights_in(tmp_path) == tmp_path.resolve() / "bundled.safetensors"


def test_the_page_says_what_a_smaller_prior_costs(pages: Any) -> None:
    def size(side: int, r1: float, nearest: float, **others: Any) -> dict[str, Any]:
        shares = ("nearest", "judged", "judged_unseen", "unseen", "unseen_real")
        unseen = {
            "names": 100,
            "among": 130,
            "shares": dict.fromkeys(shares, figure(nearest, 100)),
            "not_nearest": ["ring"],
        }
        unseen["by_category"] = {"animal": {"names": 5} | dict.fromkeys(shares, 0.9)}
        prior = {"side": side, "parameters": 9.1e6, "megabytes": 11.5, "names": 130, "shapes": 354, "visits": 1000}
        figures = {"summary": {"r10": figure(1.0), "r1": figure(r1)}, "ceiling": {"r10": figure(1.0)}}
        return prior | {"losses": {"held_cover": 0.004}, "unseen": unseen} | figures | others

    small = size(16, 0.5, 0.8, over_full={"r1": figure(-0.2)})
    page = {"preset": "words", "prompts": ["x"] * 16, "sizes": {"full": size(32, 0.7, 0.9), "small": small}} | ORIGIN
    text = "\n".join(pages.sizes(page))
    assert (
        "|  | 32 × 32 | 16 × 16 | difference |" in text and "| reported R-Precision | 78.6 % | 71.5 % | -7.1 |" in text
    )
    assert "| R @ 1 | 70.0 % (60 to 80) | 50.0 % (40 to 60) | -20.0 (-30 to -10) |" in text
    assert "| nearest name | 90.0 % (80 to 100) | 80.0 % (70 to 90) |" in text and "| animal | 5 | 90% |" in text
    assert "another name: ring." in text and "No result is kept yet." in "\n".join(pages.sizes(None))


def test_the_benchmarks_page_is_up_to_date(pages: Any) -> None:
    assert pages.page() == pages.PAGE.read_text(encoding="utf-8"), "run: python tools/benchmarks_page.py"


def test_scenes_are_compared_on_the_prompts_that_all_have(bench: Any) -> None:
    """Costs by the step and the asset, agreement of silhouettes, and differences asset by asset."""
    spec = importlib.util.spec_from_file_location("scenes_benchmark", ROOT / "benchmarks" / "scenes.py")
    assert spec is not None and spec.loader is not None
    scenes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scenes)

    def record(prompt: str, wide: float, seconds: float, iou: float | None) -> dict[str, Any]:
        figures = {"prompt": prompt, "wide_r1": wide, "haze": 0.1, "geometry": {}, "janus": None}
        agreement = None if iou is None else {"iou": iou}
        return {"figures": figures, "seconds": seconds, "cpu_seconds": 2 * seconds, "silhouettes": agreement} | (
            {"normals_off": seconds / 2} if iou else {}
        )

    found = {
        "fast": {p: record(p, 0.5, 20, 0.9) for p in "abc"},
        "magic3d": {"a": record("a", 1, 30, 0.8), "b": record("b", 0.5, 50, None)},
    }
    page = scenes.results(found, {"fast": 200, "magic3d": 400})
    assert page["prompts"] == ["a", "b"]
    fast, magic = page["presets"]["fast"], page["presets"]["magic3d"]
    assert fast["cost"] == {"seconds_per_step": 0.1, "cpu_seconds_per_asset": 40}
    assert magic["cost"] == {"seconds_per_step": 0.1, "cpu_seconds_per_asset": 80}
    assert (fast["silhouettes"]["value"], fast["silhouettes"]["count"]) == (0.9, 2)
    assert magic["silhouettes"]["count"] == 1 and "janus" not in magic["over_fast"]
    away = magic["over_fast"]["wide_r1"]
    assert away["value"] == 0.25 and away["low"] == 0 and away["high"] == 0.5 and away["count"] == 2
    assert not fast["over_fast"]
    assert fast["normals_off"]["value"] == 10 and magic["normals_off"]["value"] == 15
    assert magic["over_fast"]["normals_off"]["value"] == 5


def test_labels_of_a_sheet_keep_to_their_cell(bench: Any) -> None:
    from PIL import Image, ImageDraw
    from sheet import fitting

    draw = ImageDraw.Draw(Image.new("RGB", (8, 8)))
    assert fitting(draw, "a chair", 200) == "a chair"
    short = fitting(draw, "a turquoise pinball machine", 60)
    assert short.endswith("...") and draw.textlength(short) <= 60 < draw.textlength("a turquoise pinball machine")
