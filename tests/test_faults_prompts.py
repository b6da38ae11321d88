"""What of a prompt is not drawn, not read or not known is said in one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamfusion import cli
from dreamfusion.models.unread import unread_end
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.mixture import Mixture
from dreamfusion.priors.prior import Unknown
from dreamfusion.prompt_checks import asked_notes, prompt_notes, things_of, unread_notes
from dreamfusion.settings.presets import resolve
from tests.fakes import SMALL, GrayBallPrior, options


class Knowing(GrayBallPrior):
    """It has a list of names, and reads 12 words."""

    memory = 12
    names = ("car", "chair", "sofa", "lamp", "desk lamp", "desk", "cup of coffee", "cup", "coffee table", "table")  # type: ignore[assignment]
    words = frozenset("a an the red blue and on next to of with view front back".split())

    def unknown_words(self, prompt: str) -> list[Unknown]:
        known = {word for name in self.names for word in name.split()} | self.words
        words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
        return [Unknown(word, "car", 0.5) for word in dict.fromkeys(words) if word not in known]

    def familiar(self, caption: str) -> str:
        return caption.replace("automobile", "car").replace("12345", "cup")

    def unread(self, caption: str) -> str:
        return " ".join(caption.split()[self.memory :])


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("a red car", ["car"]),
        ("a red car and a blue chair", ["car", "chair"]),
        ("a desk lamp", ["desk lamp"]),
        ("a lamp on a desk", ["lamp", "desk"]),
        ("a cup of coffee", ["cup of coffee"]),
        ("a cup on a coffee table", ["cup", "coffee table"]),
        ("a car table", ["table"]),  # a table for cars
        ("A CAR, a car!", ["car"]),
        ("a thing", []),
        ("", []),
    ],
)
def test_the_things_of_a_prompt(prompt: str, things: list[str]) -> None:
    assert things_of(prompt, Knowing.names) == things


@pytest.mark.parametrize(
    ("prompt", "lines"),
    [
        ("a red car", []),
        ("a red desk lamp", []),
        ("a red car and a blue chair", ["the prompt names 2 things (car, chair)"]),
        ("a lamp next to a chair on a table", ["the prompt names 3 things (lamp, chair, table)"]),
        ("12345", ["names no thing that the bundled prior can read (it reads English words); it will be asked for 'cup'"]),
        ("椅子", ["names no thing that the bundled prior can read"]),
        ("красный стул", ["names no thing that the bundled prior can read"]),
        ("كرسي", ["names no thing that the bundled prior can read"]),
        ("🪑", ["names no thing that the bundled prior can read (it reads English words), so it draws something"]),
        ("red", ["names no thing"]),
        ("???", ["names no thing"]),
        ("a red automobile", ["never taught 'automobile' (nearest: 'car', similarity 0.50); it will be asked for 'a red car'"]),
        ("a car 椅子", ["never taught '椅子'"]),
        ("a chair with b c d e f g h", ["'f' (nearest: 'car', similarity 0.50), and 2 more words"]),
        ("a back view of a car", ["asks for 'back view', but a run looks from all sides"]),
    ],
)  # fmt: skip
def test_what_of_a_prompt_is_not_drawn_is_said(prompt: str, lines: list[str]) -> None:
    found = prompt_notes(Knowing(), prompt)
    assert len(found) == len(lines), found
    assert all(line in said and "\n" not in said for line, said in zip(lines, found, strict=True))


def test_priors_without_a_list_of_names_are_left_alone() -> None:
    assert prompt_notes(GrayBallPrior(), "a red car and 12345 椅子") == []
    mixed = Mixture([(0.5, GrayBallPrior()), (0.5, Knowing())])
    assert "2 things" in prompt_notes(mixed, "a car and a chair")[0]


def test_the_bundled_prior_has_names_and_says_it() -> None:
    prior = BundledPrior()
    assert prompt_notes(prior, "a red car") == []
    assert "2 things (car, chair)" in prompt_notes(prior, "a red car and a blue chair")[0]
    for prompt in ("12345", "椅子", "🪑"):
        (line,) = prompt_notes(prior, prompt)
        assert "names no thing" in line
    assert prior.unread("a red car") == ""
    tail = prior.unread("a red car " + "and very small doors " * 80)
    assert tail.endswith("very small doors") and 20 < len(tail.split()) < 300


def test_the_end_that_is_not_read_is_shown() -> None:
    config = resolve("fast", {}, " ".join(f"w{k}" for k in range(12)))
    (line,) = unread_notes(Knowing(), config)
    # "an overhead view of a clay model of" takes 8 of the 12 words that this prior reads
    assert line.startswith("the prompt is too long for") and line.endswith("'w4 w5 w6 w7 w8 w9 w10 w11'")
    assert (
        unread_notes(Knowing(), resolve("fast", {"view.words": False, "shading.textureless": 0}, config.prompt)) == []
    )
    negative = {"distillation.negative_prompt": "n " * 50}
    (line,) = unread_notes(Knowing(), resolve("fast", negative, "a car"))
    assert line.startswith("distillation.negative_prompt is too long") and line.endswith("…'")


def test_tokens_are_counted_with_the_two_that_stand_around_them() -> None:
    class Tokenizer:
        def __call__(self, text: str, **_: Any) -> dict[str, list[str]]:
            return {"input_ids": ["[", *text.split(), "]"]}

        def decode(self, ids: list[str], **_: Any) -> str:
            return " ".join(x for x in ids if x not in "[]")

    assert unread_end(Tokenizer(), "a b c", 5) == ""
    assert unread_end(Tokenizer(), "a b c d", 5) == "d"
    assert unread_end(Tokenizer(), "a b c d e f", 5) == "d e f"


def test_a_prior_that_reads_words_only_is_not_told_the_camera_in_silence() -> None:
    prior = GrayBallPrior()
    prior.reads_camera = False
    (line,) = asked_notes(prior, resolve("fast", {}, "x"))
    assert "reads words only" in line and "set prior.asks to words" in line and "in words" in line
    (line,) = asked_notes(prior, resolve("fast", {"view.words": False}, "x"))
    assert "nothing tells it the side" in line
    assert (
        asked_notes(prior, resolve("words", {}, "x")) == []
        and asked_notes(GrayBallPrior(), resolve("fast", {}, "x")) == []
    )


def test_the_command_line_says_it_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dreamfusion.generation.load_prior", lambda *_, **__: Knowing())
    monkeypatch.setattr(Knowing, "memory", 99)
    for module in ("generation", "loop"):
        monkeypatch.setattr(f"dreamfusion.{module}.write_preview", lambda *_, **__: None)
    out = tmp_path / "run"
    given = [*options(SMALL), "--distillation.negative-prompt", "blurry", "--out", str(out)]
    assert cli.main(["generate", "a red car and a blue chair", "--preset", "fast", *given]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 2 and all(line.startswith("dreamfusion: warning: ") for line in said)
    assert "2 things (car, chair)" in said[0] and "distillation.negative_prompt = 'blurry' has no effect" in said[1]
