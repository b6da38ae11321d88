"""``evaluate`` and ``compare`` on whole runs, and the mistakes they answer with one line."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamfusion import cli, generate
from dreamfusion.errors import UserError
from dreamfusion.evaluation import compare, evaluate, evaluate_full, measure, read
from dreamfusion.evaluation.inputs import choose_suite, find_runs
from dreamfusion.evaluation.measure import Judge
from dreamfusion.priors.question import Question, Words
from tests.fakes import SMALL, GrayBallPrior
from tests.test_evaluation import Colours

pytestmark = pytest.mark.usefixtures("few_shapes")
QUICK = SMALL | {"scene.fast": True}
PROMPTS = ("a red ball", "a green ball", "a blue ball", "a red armchair")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short runs: a ball and an armchair."""
    place = tmp_path_factory.mktemp("runs")
    for prompt, name in ((PROMPTS[0], "ball"), (PROMPTS[3], "chair")):
        generate(prompt, out=place / name, prior=GrayBallPrior(), **QUICK)
    return place


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def error_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = cli.main(argv)
    said = capsys.readouterr()
    assert (code, said.out, len(said.err.splitlines())) == (2, "", 1), said
    return said.err.removeprefix("dreamfusion: error: ").strip()


def test_every_figure_of_a_run(runs: Path, suite: Path) -> None:
    lines: list[str] = []
    found, page = evaluate_full([runs], Colours(), suite, views=4, progress=lines.append)
    json.dumps(found, allow_nan=False)
    ball, chair = found["assets"]
    assert (ball["prompt"], chair["prompt"]) == (PROMPTS[0], PROMPTS[3]) and len(lines) == 2
    assert (
        ball["finished"]
        and ball["steps"] == 6
        and ball["prior"] == "gray-ball"
        and ball["held_out"]
        and not chair["held_out"]
    )
    assert len(ball["ranks"]) == len(ball["clay_ranks"]) == 4
    # The judge sees colours only: the two red prompts tie, and share their two places.
    assert ball["ranks"] == chair["ranks"] and all(rank % 1 == 0.5 for rank in ball["ranks"])
    assert ball["janus"] is None, "a ball has no front"
    assert chair["janus"]["fronts"] == 0 and not chair["janus"]["janus"], (
        "what was made is a ball, and shows no chair's front"
    )
    assert set(ball["geometry"]) >= {"empty"} and 0 < ball["haze"] < 1 and found["summary"]["haze"]["count"] == 2
    assert found["summary"]["janus"]["count"] == 1 and found["summary"]["r10"] == {"value": 1.0, "count": 2} | {
        k: found["summary"]["r10"][k] for k in ("low", "high")
    }
    assert found["suite"]["prompts"] == 4 and found["clip"] == {"id": "colours", "sha256": "c" * 64}
    assert page.count("<img") == 4 and "http" not in page and "<script" not in page
    assert all(data.startswith("data:image/jpeg;base64,") for data in re.findall(r'src="([^"]+)"', page))
    assert evaluate([runs / "ball"], Colours(), suite, views=4)["assets"][0]["ranks"] == ball["ranks"]


def test_pictures_that_are_not_numbers_do_not_cost_the_evaluation(
    runs: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the chair: it ranks last and has no similarity, and the ball has all its figures."""
    drawn = measure.draw

    def broken(*given: Any) -> torch.Tensor:
        return drawn(*given) * (1 if next(turns) < 3 else float("nan"))

    turns = itertools.count()  # the ball is drawn three times
    monkeypatch.setattr(measure, "draw", broken)
    found, page = evaluate_full([runs], Colours(), suite, views=2)
    ball, chair = json.loads(json.dumps(found, allow_nan=False))["assets"]
    assert 0 < ball["similarity"] <= 1 and ball["clay_similarity"] is not None
    assert chair["similarity"] is None and chair["clay_similarity"] is None and chair["ranks"] == [4.0, 4.0]
    assert chair["janus"]["belief"] == [None] * 12
    assert found["summary"]["similarity"]["count"] == 1 and "similarity –" in page


def test_the_scene_and_not_the_seed_decides(runs: Path, suite: Path) -> None:
    views = Judge(Colours(), list(PROMPTS), 4, seed=1).views
    assert not torch.equal(views.cameras.azimuth, Judge(Colours(), list(PROMPTS), 4, seed=0).views.cameras.azimuth)


def test_a_prompt_in_html_is_text(runs: Path, tmp_path: Path) -> None:
    evil = "<b>a red ball</b> & co"
    place = tmp_path / "evil"
    generate(evil, out=place, prior=GrayBallPrior(), **QUICK)
    path = tmp_path / "s.txt"
    path.write_text(evil)
    _, page = evaluate_full([place], Colours(), path, views=1)
    assert "<b>a red ball" not in page and "&lt;b&gt;a red ball&lt;/b&gt; &amp; co" in page


class Sampler(GrayBallPrior):
    """The ball's prior, which can be sampled: always pure red, of clay pure blue."""

    def predict_noise(
        self, z_t: torch.Tensor, t: torch.Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[torch.Tensor, ...]:
        colour = [-1.0, -1.0, 1.0] if question.view.shading == "textureless" else [1.0, -1.0, -1.0]
        plain = torch.tensor(colour)[:, None, None].expand_as(z_t)
        return (self.exact_noise(z_t, t, plain),) * len(about)


def test_the_ceiling_judges_the_priors_samples(runs: Path, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamfusion.priors.bundled_prior.BundledPrior", Sampler)
    found, page = evaluate_full([runs], Colours(), suite, views=4, ceiling=True)
    samples = {s["prompt"]: s for s in found["ceiling"]["samples"]}
    assert set(samples) == {PROMPTS[0], PROMPTS[3]} and samples[PROMPTS[0]]["ranks"] == [1.5] * 4
    assert min(samples[PROMPTS[0]]["clay_ranks"]) > 1.5, "of clay the samples are blue, and the prompt is not"
    assert samples[PROMPTS[0]]["saturation"] == 1 and found["ceiling"]["summary"]["r10"]["value"] == 1
    assert "saturation_ratio" in found["assets"][0] and page.count("<img") == 6
    whole = evaluate([], Colours(), suite, ceiling=True)
    first = [s["ranks"][0] for s in whole["ceiling"]["samples"]]
    assert first[0] == first[3] == 1.5 and min(first[1:3]) >= 3, "the samples are red whatever the prompt"


def test_a_judge_that_guided_the_run_is_refused(runs: Path, suite: Path) -> None:
    judge = Colours()
    judge.hash = GrayBallPrior.hash
    with pytest.raises(UserError, match="the judge colours is the model that guided a run"):
        evaluate([runs], judge, suite)


def test_runs_are_found_once_and_unready_ones_are_named(runs: Path, tmp_path: Path) -> None:
    assert [run.path.name for run in find_runs([runs, runs / "ball"])] == ["ball", "chair"]
    place = tmp_path / "some"
    shutil.copytree(runs, place)
    shutil.rmtree(place / "ball" / "checkpoint")
    with pytest.warns(UserWarning, match=r"1 runs in .* have no checkpoint yet \(ball …\)"):
        assert [run.path.name for run in find_runs([place])] == ["chair"]
    with pytest.raises(UserError, match="has no checkpoint yet"):
        find_runs([place / "ball"])


def test_the_suite_is_found_by_its_prompts() -> None:
    assert choose_suite(["a blue television"], None)[0] == "bundled-153"
    name, prompts = choose_suite(["a blue television"], "bundled-24")
    assert name == "bundled-24" and len(prompts) == 24
    with pytest.raises(UserError, match="'a unicorn' and 1 more is not in the suite bundled-153; the other 1 are"):
        choose_suite(["a blue television", "a unicorn", "a griffin"], None)


def test_mistakes_are_one_line_each(
    runs: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice.txt").write_text("a red ball\na cat\na red ball\n")
    (tmp_path / "other.json").write_text("{}")
    ball = str(runs / "ball")
    for argv, line in (
        (["evaluate"], "nothing to evaluate"),
        (["evaluate", "nowhere"], "there is no run at nowhere"),
        (["evaluate", "empty"], "there is no run to evaluate in empty: it holds neither a run.yaml"),
        (["evaluate", ball], "'a red ball' is not in the suite bundled-153"),
        (["evaluate", str(runs)], "'a red ball'"),
        (["evaluate", ball, "--prompts", "twice.txt"], "line 3: 'a red ball' stands in line 1 already"),
        (["evaluate", ball, "--prompts", "nowhere.txt"], "there is no suite or file 'nowhere.txt'"),
        (["evaluate", ball, "--prompts", str(suite), "--clip", "nowhere"], "unknown CLIP 'nowhere'"),
        (["evaluate", ball, "--prompts", str(suite), "--clip", "empty"], "empty is no CLIP model"),
        (["evaluate", ball, "--prompts", str(suite), "--clip", "hf:nonsense"], "hf:OWNER/NAME"),
        (["evaluate", ball, "--views", "0"], "--views = '0' is not allowed"),
        (["evaluate", ball, "--out", "figures.csv"], "must end in .json"),
        (["compare", ball], "RUNS_B"),
        (["compare", "other.json", ball], "other.json is not an evaluation that dreamfusion wrote"),
    ):
        assert line in error_line(argv, capsys), argv


def test_the_commands_write_what_they_say(
    runs: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dreamfusion.evaluation.judging.load_judge", lambda name: Colours())
    options = ["--prompts", str(suite), "--views", "2"]
    assert cli.main(["evaluate", str(runs), *options, "--html", "page.html"]) == 0
    said = capsys.readouterr().out
    assert "R-Precision @ 10" in said and "evaluation.json" in said and "page.html" in said
    figures = read("evaluation.json")
    assert len(figures["assets"]) == 2 and Path("page.html").read_text().startswith("<!doctype html>")
    assert compare(figures, figures)["paired"] == 2
    assert cli.main(["compare", "evaluation.json", "evaluation.json", "--out", "both.json"]) == 0
    assert capsys.readouterr().out.startswith("2 prompts paired\n")
    assert json.loads(Path("both.json").read_text())["figures"]["r10"]["difference"] == 0
