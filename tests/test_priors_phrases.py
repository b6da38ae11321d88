"""What a caption names, what it says of its paint, and what is behind."""

from __future__ import annotations

import pytest

from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.phrases import Named, named, paint_of, tail_of, without_tail, words_of
from dreamfusion.prompt_checks import prompt_notes

NAMES = {
    "house",
    "desk",
    "desk lamp",
    "lamp",
    "bowl",
    "skull on a post",
    "chair",
    "orange",
    "glass door",
    "door",
    "toy",
    "train",
}


@pytest.fixture(scope="module")
def prior() -> BundledPrior:
    found = load_prior("bundled")
    assert isinstance(found, BundledPrior)
    return found


def test_the_longest_name_is_meant_and_the_last_of_those_that_follow_one_another() -> None:
    assert named(words_of("A desk lamp!"), NAMES) == [Named("desk lamp", 1, 3)]
    assert named(words_of("a toy train on a desk"), NAMES) == [Named("train", 2, 3), Named("desk", 5, 6)]


@pytest.mark.parametrize(
    ("caption", "tail"),
    [
        ("a small wooden house with a red roof", "with a red roof"),
        ("a front view of a house, with a red roof", "with a red roof"),
        ("a lamp on a desk", "on a desk"),
        ("skull on a post", ""),
        ("a bowl with white dots", ""),
        ("a bowl in red and blue", ""),
        ("a bowl in sky blue", ""),
        ("a bowl made of wood", ""),
        ("a bowl made of soup", "made of soup"),
        ("a thing with a house", ""),  # nothing stands in front of it
        ("", ""),
    ],
)
def test_the_tail_is_what_is_said_behind_the_thing_and_not_of_its_look(caption: str, tail: str) -> None:
    assert tail_of(caption, NAMES) == tail
    if not tail:
        assert without_tail(caption, NAMES) == caption
    else:
        assert f"{without_tail(caption, NAMES)} {tail}" == " ".join(words_of(caption))


@pytest.mark.parametrize(
    ("caption", "paint"),
    [
        ("a wooden house", "wooden"), ("a house made of wood", "wooden"), ("a red chair", "red"), ("an orange", ""), ("a glass door", ""),
        ("a golden glass door", "golden"), ("a red and white chair", ""), ("a red striped chair", ""), ("a red wooden chair", ""),
        ("a red chair with stripes", ""), ("a chair", ""),
        ("a sky blue chair", "sky blue"), ("a sky blue and blue chair", ""), ("a cast iron chair", "iron"),
    ],
)  # fmt: skip
def test_one_paint_is_told_from_two_and_from_patterns_and_names(caption: str, paint: str) -> None:
    assert paint_of(caption, NAMES) == paint


def test_a_wooden_house_with_a_red_roof_is_wooden_and_the_rest_is_said(prior: BundledPrior) -> None:
    whole, plain = (
        prior.embed(["a small wooden house with a red roof", "a wooden house"])[0],
        prior.embed(["a wooden house"])[0],
    )
    assert (whole.look - plain.look).abs().max() == 0 and (whole.shape - plain.shape).abs().max() == 0
    main = int(plain.look[: prior.layout.sizes.looks[0]].argmax())
    assert (
        main == 2 + len(prior.record["colours"]) + prior.record["materials"].index("wooden") and plain.look[main] == 1
    )
    (note,) = prompt_notes(prior, "a small wooden house with a red roof")
    assert note.endswith("ignores 'small', 'with a red roof'; it will be asked for 'a small wooden house'")


def test_a_side_and_clay_are_read_in_front_of_a_tail(prior: BundledPrior) -> None:
    found = prior.embed(["a back view of a clay model of a red house with a green roof"])
    plain = prior.embed(["a back view of a clay model of a red house"])
    assert (found.look - plain.look).abs().max() == 0 and (found.sides - plain.sides).abs().max() == 0
    assert found.sides.sum() == 1
