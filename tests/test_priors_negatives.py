"""Negative prompts and Perp-Neg against their formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamfusion.captions import Captions
from dreamfusion.distillation.rule_settings import SdsSettings
from dreamfusion.distillation.sds import predict_guided, without_component
from dreamfusion.errors import UserError
from dreamfusion.priors.prior_settings import PriorSettings
from dreamfusion.priors.question import Question, Tokens, Words, stacked
from dreamfusion.settings.config import Config
from dreamfusion.view.perp_neg import between
from dreamfusion.view.view_settings import ViewSettings
from tests.fakes import PixelPrior, looks


class Reader(PixelPrior):
    """A caption is one token, its number in ``texts``; its noise is a fixed random picture of that number."""

    id, hash, resolution = "words", "", 4

    def __init__(self) -> None:
        self.texts: Sequence[str] = []
        g = torch.Generator().manual_seed(0)
        self.table = torch.randn(16, 3, 4, 4, generator=g)
        self.empty = torch.randn(3, 4, 4, generator=g)
        self.calls = 0

    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Tokens:
        self.texts = captions
        return Tokens(torch.eye(16)[: len(captions)][:, None], torch.ones(len(captions), 1, dtype=torch.bool))

    def noise(self, words: Words | None) -> Tensor:
        if words is None:
            return self.empty[None]
        assert isinstance(words, Tokens)
        return torch.einsum("bk,kchw->bchw", words.tokens[:, 0], self.table)

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        self.calls += 1
        return tuple(self.noise(words).expand_as(z_t) for words in about)

    def of(self, start: str) -> Tensor:
        return self.table[next(i for i, text in enumerate(self.texts) if text.startswith(start))]


def ask(azimuth: float, elevation: float = 0.0, **settings: Any) -> tuple[Reader, Tensor]:
    rule = SdsSettings(guidance_scale=2.0, threshold=0, **settings)
    config = Config(prompt="a cat", distillation=rule, prior=PriorSettings(asks="words"))
    prior = Reader()
    question = Captions(prior, config).ask(looks([[math.radians(azimuth), math.radians(elevation), 2.5]]))
    noise, _ = predict_guided(prior, torch.zeros(1, 3, 4, 4), torch.tensor([0.5]), question, rule)
    return prior, noise[0]


def test_without_negatives_nothing_is_the_priors_own() -> None:
    prior, noise = ask(0)
    torch.testing.assert_close(noise, 3 * prior.of("a front") - 2 * prior.empty)


def test_a_negative_prompt_takes_the_place_of_nothing() -> None:
    prior, noise = ask(0, negative_prompt="ugly")
    torch.testing.assert_close(noise, 3 * prior.of("a front") - 2 * prior.of("ugly"))
    assert prior.calls == 1


@pytest.mark.parametrize("azimuth", [0.0, 30.0, -60.0, 90.0, 130.0, 180.0, 250.0])
def test_perp_neg_is_its_formula(azimuth: float) -> None:
    prior, noise = ask(azimuth, perp_neg=True)
    turn = abs((azimuth + 180) % 360 - 180)
    if turn < 90:
        r = 1 - turn / 90
        wanted = r * prior.of("a front") + (1 - r) * prior.of("a side")
        weights = {"a front": 4 * math.exp(-r / 2) - 2.426, "a side": 4 * math.exp(-(1 - r) / 2) - 2.426}
    else:
        r = 2 - turn / 90
        wanted = r * prior.of("a side") + (1 - r) * prior.of("a back")
        weights = {"a side": math.exp(-r / 2) - 0.606, "a front": math.exp(-r / 2) + 0.967}
    main = (wanted - prior.empty).flatten().double()
    total = main.clone()
    for name, weight in weights.items():
        other = (prior.of(name) - prior.empty).flatten().double()
        total -= max(weight, 0) * (other - (other @ main) / (main @ main) * main)
    expected = prior.empty.flatten().double() + 3 * total
    torch.testing.assert_close(noise.flatten().double(), expected, rtol=1e-4, atol=1e-4)
    assert prior.calls == 2


def test_from_above_nothing_repels() -> None:
    prior, noise = ask(10, elevation=75, perp_neg=True)
    torch.testing.assert_close(noise, 3 * prior.of("an overhead") - 2 * prior.empty)


def test_the_weights_are_continuous_and_fade() -> None:
    assert between(0).share == 1 and between(0).front == pytest.approx(0, abs=1e-3)
    assert between(89.9).front == pytest.approx(between(90.1).front, abs=5e-3)
    assert between(180).first == "back" and between(180).share == 0 and between(180).front > between(91).front
    assert between(-45) == between(45) == between(405)


def test_the_perpendicular_part_is_perpendicular() -> None:
    x, y = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert ((without_component(x, y) * y).flatten(1).sum(1).abs() < 1e-4).all()
    assert torch.equal(without_component(x, torch.zeros_like(y)), x)


def test_perp_neg_needs_words_for_views() -> None:
    config = Config(prompt="a cat", distillation=SdsSettings(perp_neg=True), view=ViewSettings(words=False))
    with pytest.raises(UserError, match=r"view\.words"):
        Captions(Reader(), config)


def test_stacked_words_are_padded() -> None:
    short = Tokens(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    long = Tokens(torch.ones(2, 5, 3), torch.ones(2, 5, dtype=torch.bool))
    both = stacked([short, long])
    assert both.tokens.shape == (3, 5, 3) and both.mask.sum(1).tolist() == [2, 5, 5]
    assert both.tokens[0, 2:].abs().sum() == 0


def test_rows_and_blends_are_of_all_that_is_read() -> None:
    count = torch.arange(4.0)
    words = Tokens(count.reshape(4, 1, 1), count[:, None] > 1, pooled=10 * count[:, None])
    some = words.rows([2, 0])
    assert some.tokens.flatten().tolist() == [2, 0] and some.mask.flatten().tolist() == [True, False]
    assert some.pooled is not None and some.pooled.flatten().tolist() == [20, 0]
    mixed = some.blend(words.rows([0, 1]), torch.tensor([0.25, 0.5]))
    assert mixed.tokens.flatten().tolist() == [1.5, 0.5] and mixed.mask.flatten().tolist() == [True, False]
    assert mixed.pooled is not None and mixed.pooled.flatten().tolist() == [15, 5]


def test_negatives_are_of_each_look_its_own() -> None:
    """Two looks at once: the same answers as each look alone."""
    turns, rule = [40.0, -100.0], SdsSettings(guidance_scale=2.0, threshold=0, perp_neg=True, negative_prompt="ugly")
    config = Config(prompt="a cat", distillation=rule, prior=PriorSettings(asks="words"))
    prior, t = Reader(), torch.tensor([0.5, 0.5])
    question = Captions(prior, config).ask(looks([[math.radians(turn), 0.0, 2.5] for turn in turns]))
    noise, _ = predict_guided(prior, torch.zeros(2, 3, 4, 4), t, question, rule)
    for k, turn in enumerate(turns):
        torch.testing.assert_close(noise[k], ask(turn, perp_neg=True, negative_prompt="ugly")[1])
