"""What the prior sees: the noisy picture that it was shown and the clean one that it answered, for those who watch a run."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dreamfusion.batch import live_pictures
from dreamfusion.batch import worker as serving
from dreamfusion.distillation.clip_rule import ClipRule
from dreamfusion.distillation.rules import GUIDED
from dreamfusion.priors.question import Question, Words
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Progress, Trainer
from tests.fakes import SMALL, GrayBallPrior

KINDS = [cls.model_fields["kind"].default for cls in GUIDED if "rfds" not in cls.__name__.lower()]


class Listening(GrayBallPrior):
    """Keeps the last z_t that it was asked about with words."""

    z_t: Tensor

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        if about[0] is question.words:
            self.z_t = z_t.detach().clone()
        return super().predict_noise(z_t, t, question, about)


class LatentBall(GrayBallPrior):
    """The same picture in a space of half the side: its latents are means of 2 x 2 pixels, and its pictures blocks of them."""

    def __init__(self) -> None:
        super().__init__()
        self.clean = avg_pool2d(self.clean, 2)

    def encode(self, picture: Tensor) -> Tensor:
        return avg_pool2d(picture * 2 - 1, 2)

    def decode(self, z: Tensor) -> Tensor:
        return interpolate((z + 1) / 2, scale_factor=2.0, mode="nearest")

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, 6, 6)


def trainer_of(prior: GrayBallPrior, kind: str = "sds", **settings: Any) -> Trainer:
    extra = {"distillation.negative_prompt": "a cube", "distillation.reference_views": 1} if kind == "dds" else {}
    return Trainer(resolve("fast", {**SMALL, "distillation.kind": kind, **extra, **settings}, "a ball"), prior)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_what_the_prior_knows(kind: str) -> None:
    prior = Listening()
    *_, progress = trainer_of(prior, kind, steps=2).steps()  # the first step of dds asks nothing
    assert progress.glimpse is not None
    noisy, clean = progress.glimpse.pictures()
    torch.testing.assert_close(clean, (prior.clean[0] + 1) / 2, atol=1e-3, rtol=0)
    if kind not in ("asd", "dds", "vsd"):  # they ask once more, at another level or about another picture
        assert torch.equal(noisy, ((prior.z_t[0] + 1) / 2).clamp(0, 1)) and noisy.std() > 0.05


def test_a_latent_prior_decodes_both() -> None:
    prior = LatentBall()
    (progress, *_) = trainer_of(prior, steps=1).steps()
    assert progress.glimpse is not None and progress.glimpse.z_t.shape == (1, 3, 6, 6)
    noisy, clean = progress.glimpse.pictures()
    assert noisy.shape == (3, 12, 12) and noisy[:, ::2].equal(noisy[:, 1::2])
    torch.testing.assert_close(clean, prior.decode(prior.clean)[0], atol=1e-3, rtol=0)


def test_a_step_that_asks_nothing_shows_nothing() -> None:
    steps = trainer_of(GrayBallPrior(), "ancestral", **{"distillation.repeat_views": 1}).steps()
    assert next(steps).glimpse is not None and next(steps).glimpse is None  # the sample is remembered
    assert ClipRule(None).glimpse() is None  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [GrayBallPrior, LatentBall])
def test_watching_changes_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PRIOR_SHARE", 1e9)
    said: list[dict[str, Any]] = []
    alone, watched = trainer_of(make()), trainer_of(make())
    gaze = live_pictures.Gaze()
    telling = serving.Telling(said.append, every=0.0, live=8, gaze=gaze)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    for step, progress in enumerate(watched.steps()):
        if step == 2:
            gaze.watch(100.0)
        telling.step(progress)
    assert torch.equal(torch.random.get_rng_state(), before)
    for _ in alone.steps():
        pass
    one, other = alone.state()[0], watched.state()[0]
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert ["prior" in message for message in said] == [False] * 2 + [True] * 4
    picture = Image.open(io.BytesIO(base64.b64decode(said[-1]["prior"])))
    assert picture.size == (12, 6) and 0 < said[-1]["prior_t"] < 1  # halves of 12 pixels, of which 8 were the most


def test_pictures_take_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 0.1 s and pictures that take 1 s: in 100 s a picture is begun only while they took at most 3 s."""
    clock, made = [0.0], []

    def slow(*_: Any) -> str:
        clock[0] += 1.0
        made.append(clock[0])
        return ""

    monkeypatch.setattr(serving, "prior_picture", slow)
    for module in (serving, live_pictures):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    gaze = live_pictures.Gaze()
    telling = serving.Telling(lambda message: None, every=0.0, live=8, gaze=gaze)
    glimpse = SimpleNamespace(t=torch.tensor([0.5]))
    for step in range(1, 1000):
        clock[0] += 0.1
        gaze.watch(1.0)
        telling.step(Progress(step, 1000, {}, clock[0], glimpse=glimpse))  # type: ignore[arg-type]
    assert 2 <= len(made) <= 0.03 * clock[0] + 1


def test_the_page_gets_it_while_somebody_watches(
    tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")
    from tests.test_studio import client_of, environment, new_desk, submit, wait

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    desk = new_desk(tmp_path / "runs", made_once, 0.3)
    client = client_of(desk)
    id = submit(client)
    assert client.get(f"/runs/{id}/prior.jpg").status_code == 404  # it waits
    desk.start()
    found = wait(lambda: (now := client.get(f"/runs/{id}").json()).get("step") and now)
    assert found["prior_picture"] == 0 and "prior_t" not in found  # to ask for a run is not to watch it
    assert client.get(f"/runs/{id}/prior.jpg").status_code == 404
    found = wait(lambda: (now := client.get(f"/runs/{id}").json()).get("prior_picture") and now)
    answer = client.get(f"/runs/{id}/prior.jpg")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg" and found["prior_t"] == 0.42
    assert client.get("/runs/other/prior.jpg").status_code == 404
    desk.close()
