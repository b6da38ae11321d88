"""A prior that another process serves: the same answers, gradients and assets; one line for whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamfusion import __version__, generate
from dreamfusion.batch.jobs import Job
from dreamfusion.batch.worker import make
from dreamfusion.errors import Unavailable, UserError
from dreamfusion.generation import Loader
from dreamfusion.loading import load_prior
from dreamfusion.priors import prior_client, wire
from dreamfusion.priors.mixture import MixedWords
from dreamfusion.priors.prior import Prior
from dreamfusion.priors.prior_client import PriorClient, address_of
from dreamfusion.priors.question import Question, Tokens, Words
from dreamfusion.priors.served_prior import ServedPrior
from dreamfusion.priors.wire import Message, Packer, Page
from dreamfusion.run import Run
from dreamfusion.serving.prior_desk import Desk, Reply
from tests.fakes import SMALL, GrayBallPrior, PixelPrior, ask, looks
from tests.prior_http import serving


class RowPrior(PixelPrior):
    """Answers each row from all that the row says: words, camera, light, t and picture."""

    id = "row"

    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Tokens:
        size = torch.tensor([[float(len(c))] for c in captions])[:, None].expand(-1, 2, 4)
        return Tokens(size.contiguous(), torch.ones(len(captions), 2, dtype=torch.bool))

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        view = question.view
        row = view.cameras.condition().sum(1) + view.lights.sum(1) + t
        answers = []
        for words in about:
            said = torch.zeros_like(t) if words is None else words.tokens.sum((1, 2))  # type: ignore[attr-defined]
            answers.append(torch.sin(z_t * (row + said)[:, None, None, None]))
        return tuple(answers)


def noise_message(prior: Prior, seed: int, count: int = 2, guided: bool = False, **view: Any) -> Message:
    """A question of a run."""
    g = torch.Generator().manual_seed(seed)
    cameras = (torch.rand(count, 3, generator=g) + torch.tensor([0.0, 0.0, 2.0])).tolist()
    words = prior.embed(["a ball" + "!" * (seed + k) for k in range(count)])
    question = Question(words, replace(looks(cameras, torch.rand(count, 3, generator=g)), **view))
    packer = Packer()
    about = [words, None] if guided else [words]
    page = {"do": "noise", "version": __version__, "sha256": prior.hash}
    page |= {"question": packer.question(question), "about": packer.about(question, about)}
    shape = prior.noise_shape(count)
    mine = {"x": torch.randn(shape, generator=g), "t": torch.rand(count, generator=g)}
    return Message(page, packer.tensors | mine)


def answers(reply: Reply) -> list[Tensor]:
    assert reply.status == 200, reply.body
    found = wire.unpack(reply.body).tensors
    return [found[f"answer{k}"] for k in range(len(found))]


def test_messages_come_out_as_they_went_in() -> None:
    g = torch.Generator().manual_seed(0)
    first = Tokens(
        torch.randn(2, 3, 4, generator=g), torch.tensor([[True, False, True]] * 2), torch.randn(2, 5, generator=g)
    )
    words = MixedWords((first, replace(first, pooled=None)))
    question = ask(words, [[0.1, 0.2, 2.5], [1.0, 0.0, 2.0]], torch.rand(2, 3, generator=g))
    question = replace(question, view=replace(question.view, ambient=0.1 + 0.2, shading="albedo", group=2))
    packer = Packer()
    page: Page = {"question": packer.question(question), "about": packer.about(question, [None, question.words, first])}
    message = wire.unpack(wire.pack(Message(page, packer.tensors)))
    assert message.page == page
    found = wire.read_question(message["question"], message, torch.device("cpu"))
    about = wire.read_about(found, message["about"], message, torch.device("cpu"))
    assert about[0] is None and about[1] is found.words and isinstance(about[2], Tokens)
    assert torch.equal(about[2].tokens, first.tokens) and torch.equal(about[2].mask, first.mask)
    assert isinstance(found.words, MixedWords) and found.words.parts[1].pooled is None  # type: ignore[attr-defined]
    assert torch.equal(found.words.parts[0].pooled, first.pooled)  # type: ignore[attr-defined]
    mine, theirs = question.view, found.view
    assert torch.equal(mine.cameras.condition(), theirs.cameras.condition()) and torch.equal(mine.lights, theirs.lights)
    assert torch.equal(mine.plain_background, theirs.plain_background)  # type: ignore[arg-type]
    for name in ("size", "shading", "ambient", "group"):
        assert getattr(mine, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    "data", [b"", b"x" * 7, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}", (10**15).to_bytes(8, "little")]
)
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(UserError, match="no message"):
        wire.unpack(data)


def test_questions_that_are_alike_are_asked_as_one() -> None:
    prior = RowPrior()
    alike = [noise_message(prior, seed, count) for seed, count in ((0, 2), (1, 1), (2, 3))]
    other = [
        noise_message(prior, 3, guided=True),
        noise_message(prior, 4, ambient=0.25),
        noise_message(prior, 5, guided=True),
    ]
    asked = [wire.pack(m) for m in [*alike, *other]]
    desk = Desk(prior)
    together = [answers(reply) for reply in desk.answer(asked)]
    assert desk.counts.together == {3: 1, 2: 1, 1: 1} and desk.counts.rows == 2 + 1 + 3 + 6
    for data, mine in zip(asked, together, strict=True):
        alone = answers(Desk(prior).answer([data])[0])
        assert len(alone) == len(mine) and all(
            torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, mine, strict=True)
        )
    few = Desk(prior, most=3)
    few.answer(asked[:3])
    assert few.counts.together == {2: 1, 1: 1}  # 2 + 1 rows, then 3
    assert few.counts.page()["occupancy"] == 1.5


def test_what_is_sent_never_ends_the_server() -> None:
    prior = RowPrior()
    desk, good = Desk(prior), noise_message(prior, 0)

    def status(**page: Any) -> int:
        return desk.answer([wire.pack(Message(good.page | page, good.tensors))])[0].status

    assert desk.answer([b"junk"])[0].status == 422
    assert status(version="0.0") == 409 and status(sha256="f" * 64) == 409
    assert status(do="run") == 422 and status(do=None) == 422 and status(question={}) == 400 and status(about=7) == 400
    assert (
        status(about=[{"kind": "pickle"}]) == 400 and status(do="tell", what="__class__", words=[], instance=0) == 422
    )
    ragged = Message(good.page, good.tensors | {"t": torch.rand(5)})
    replies = desk.answer([wire.pack(ragged), wire.pack(good)])
    assert [reply.status for reply in replies] == [422, 200]


def test_gradients_go_through(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = RowPrior()
    with serving(Desk(prior)) as id:
        served = ServedPrior(id)
        words = served.embed(["a ball", "a red ball"])
        question = ask(words, [[0.1, 0.2, 2.5], [1.0, 0.0, 2.0]], torch.rand(2, 3))
        z, t, weight = torch.randn(2, 3, 12, 12), torch.rand(2), torch.randn(2, 3, 12, 12)
        works: list[Callable[[Prior, Tensor], Tensor]] = [
            lambda p, x: p.encode(x),
            lambda p, x: p.decode(x),
            lambda p, x: sum(p.predict_noise(x, t, question, [question.words, None])),  # type: ignore[arg-type,return-value]
        ]
        for work in works:
            found = []
            for asked in (prior, served):
                x = z.clone().requires_grad_()
                y = work(asked, x)
                (y * weight).sum().backward()
                found.append((y.detach(), x.grad))
            assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(served.alpha_sigma(t), prior.alpha_sigma(t), strict=True))


def test_the_bundled_prior_is_the_same_from_afar() -> None:
    own, desk = load_prior("bundled", instance=1), Desk(load_prior("bundled"))  # type: ignore[arg-type]
    assert isinstance(own, Prior)
    with serving(desk) as id:
        served = load_prior(id, instance=1)
        assert isinstance(served, ServedPrior)
        assert (served.id, served.hash, served.limit, served.joint) == (own.id, own.hash, own.limit, own.joint)
        captions = ["a front view of a red armchair", "a blue automobile"]
        assert served.familiar(captions[1]) == own.familiar(captions[1])
        assert served.unknown_words(captions[1]) == own.unknown_words(captions[1]) and served.names == own.names
        questions = [
            ask(p.embed(captions), [[0.1, 0.2, 2.5], [1.0, 0.0, 2.4]], torch.full((2, 3), 0.5)) for p in (own, served)
        ]
        picture, t = torch.rand(2, 3, 96, 96), torch.tensor([0.3, 0.7])
        z = own.encode(picture)
        assert torch.equal(z, served.encode(picture))
        mine, theirs = (p.predict_noise(z, t, q, [q.words])[0] for p, q in zip((own, served), questions, strict=True))
        assert torch.equal(mine, theirs)
    messages = [noise_message(own, seed) for seed in (0, 1)]
    together = [answers(r)[0] for r in desk.answer([wire.pack(m) for m in messages])]
    assert desk.counts.together == {1: 1, 2: 1}
    for message, joint in zip(messages, together, strict=True):
        assert torch.allclose(joint, answers(desk.answer([wire.pack(message)])[0])[0], atol=1e-4)
    # Nothing may be the first row's thing: such questions stay apart.
    assert not own.rows_apart([None]) and own.rows_apart([questions[0].words])


def tensors(folder: Path) -> dict[str, Tensor]:
    return Run.open(folder).load_checkpoint()[0]


def same(one: Path, other: Path) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_makes_the_same_asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate("a ball", "fast", out=tmp_path / "own", prior=GrayBallPrior(), **SMALL)
    with serving(Desk(GrayBallPrior())) as id:
        monkeypatch.setenv(prior_client.ADDRESS, id.removeprefix("ray://"))
        generate("a ball", "fast", out=tmp_path / "served", prior__id="ray://", **SMALL)
    assert same(tmp_path / "own", tmp_path / "served")
    recorded = Run.open(tmp_path / "served").recorded
    assert recorded["prior"] == {"id": "gray-ball", "sha256": GrayBallPrior.hash}
    assert recorded["config"]["prior"]["id"] == "ray://"  # and no name of a machine


def test_a_run_whose_prior_is_away_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_client, "PATIENCE", 0.2)
    generate("a ball", "fast", out=tmp_path / "own", prior=GrayBallPrior(), **SMALL)
    desk = Desk(GrayBallPrior())
    full = lambda _: Reply(500, b"CUDA out of memory") if desk.counts.questions == 3 else None  # noqa: E731
    with serving(desk, before=full) as id:
        job = Job(tmp_path / "run", "a ball", "fast", SMALL | {"prior.id": id, "run.checkpoint_seconds": 1e-6})
        first = job.ask()
        assert first is not None
        answer = make(first, Loader(), lambda _: None)
        assert answer["kind"] == "away" and "does not answer (HTTP 500: CUDA out of memory)" in answer["error"]
    again = job.ask()
    assert again is not None and again["resume"] and job.steps_done() == 2  # the third asks once more after its answer
    answer = make(again, Loader(), lambda _: None)
    assert answer["kind"] == "away" and "Refused" in answer["error"] and "resume the run" in answer["error"]
    other = GrayBallPrior()
    other.hash = "1" * 64
    port = address_of(id)[1]
    with serving(Desk(other), port):
        answer = make(again, Loader(), lambda _: None)
        assert answer["kind"] == "user" and "made with another prior" in answer["error"]
    with serving(Desk(GrayBallPrior()), port):
        assert make(again, Loader(), lambda _: None)["error"] is None
    assert same(tmp_path / "own", job.folder)


def test_a_busy_prior_is_asked_again_and_a_changed_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_client, "PATIENCE", 5.0)
    prior = GrayBallPrior()
    replies = [None, Reply(503, b"busy"), Reply(503, b"busy")]
    busy = lambda _: replies.pop(0) if replies else None  # noqa: E731
    with serving(Desk(prior), before=busy) as id:
        served = ServedPrior(id)
        assert torch.equal(served.alpha_sigma(torch.tensor([0.5]))[0], prior.alpha_sigma(torch.tensor([0.5]))[0])
        prior.hash = "2" * 64
        with pytest.raises(UserError, match="other weights by now") as found:
            served.alpha_sigma(torch.tensor([0.5]))
        assert not isinstance(found.value, Unavailable)
        monkeypatch.setattr("dreamfusion.priors.served_prior.__version__", "9.9")
        with pytest.raises(UserError, match=r"and the run has 9\.9; use the same version"):
            ServedPrior(id)
    with (
        serving(Desk(prior), before=lambda _: Reply(401, b"")) as id,
        pytest.raises(UserError, match="wants its token"),
    ):
        ServedPrior(id)


@pytest.mark.parametrize("id", ["ray://here", "ray://here:0", "ray://a b:1", "ray://user@host:1", "ray://h:99999"])
def test_addresses_that_are_none(id: str) -> None:
    with pytest.raises(UserError, match="ray://HOST:PORT"):
        PriorClient(id)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prior_client.ADDRESS, raising=False)
    assert address_of("ray://") == ("127.0.0.1", 8000) and address_of("ray://[::1]:80/") == ("::1", 80)
    monkeypatch.setenv(prior_client.ADDRESS, "gpu-7:9000")
    assert address_of("ray://") == ("gpu-7", 9000)
