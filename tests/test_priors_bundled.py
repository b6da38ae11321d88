"""The bundled prior: its weights on disk, what it answers, what it warns of."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamfusion.errors import UserError
from dreamfusion.loading import load_prior
from dreamfusion.priors import name_meanings
from dreamfusion.priors.bundled_prior import NAMES, WEIGHTS, BundledPrior
from dreamfusion.priors.prior import clean_from_noise, guide
from dreamfusion.priors.question import Question
from dreamfusion.priors.sampler import sample
from dreamfusion.priors.subjects import CLAY_PAINT
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import ask

pytestmark = pytest.mark.usefixtures("few_hypotheses")
RECORD = json.loads(WEIGHTS.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def prior() -> BundledPrior:
    return load_prior("bundled", precision="float32")


def both(prior: BundledPrior, z_t: torch.Tensor, t: torch.Tensor, question: Question) -> tuple[torch.Tensor, ...]:
    """e(y), e(nothing)."""
    return prior.predict_noise(z_t, t, question, [question.words, None])


def test_weights_are_what_the_card_says(prior: BundledPrior) -> None:
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert prior.hash == record["sha256"] and WEIGHTS.stat().st_size <= 80e6
    assert len(record["vocabulary"]) >= 200 and len(prior.names) >= 260 and len(record["colours"]) >= 12
    kinds = {x.dtype for x in load_file(WEIGHTS).values()}
    assert kinds == {torch.float16, torch.int8, torch.uint8, torch.int32, torch.int64}


def test_altered_missing_or_foreign_weights_are_one_line(tmp_path: Path) -> None:
    altered = tmp_path / "bundled.safetensors"
    data = bytearray(WEIGHTS.read_bytes())
    data[-1] ^= 1
    altered.write_bytes(data)
    altered.with_suffix(".json").write_text(WEIGHTS.with_suffix(".json").read_text())
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, foreign)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(bytes(data[: len(data) // 2]))
    for path, words in (
        (altered, "altered"),
        (tmp_path / "no.safetensors", "missing"),
        (foreign, "neither a whole checkpoint nor the bundled prior's kind"),
        (torn, "does not hold"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            load_prior(str(path))
        assert "\n" not in str(caught.value)


def test_noise_prediction_is_plausible_and_deterministic(prior: BundledPrior) -> None:
    g = torch.Generator().manual_seed(0)
    question = ask(prior.embed(["a red armchair"] * 2), [[0.0, 0.3, 2.5], [math.pi, 0.3, 2.5]])
    clean = prior.mean_picture(question).clamp(-1, 1)
    noise, t = torch.randn(2, 3, 64, 64, generator=g), torch.tensor([0.5, 0.5])
    alpha, sigma = prior.alpha_sigma(t)
    z_t = alpha[:, None, None, None] * clean + sigma[:, None, None, None] * noise
    yes, no = both(prior, z_t, t, question)
    assert yes.shape == no.shape == z_t.shape and not yes.requires_grad
    # A model that had learned nothing would answer e = sigma z_t or so: an error of about alpha^2 = 0.5.
    assert (yes - noise).square().mean() < 0.05
    again, _ = both(prior, z_t, t, question)
    assert torch.equal(yes, again)
    assert not any(p.requires_grad or p.grad is not None for p in prior.layout.parameters())


def test_asked_alone_it_answers_the_same(prior: BundledPrior) -> None:
    question = ask(prior.embed(["a green vase"] * 2), [[0.5, 0.3, 2.5], [2.0, 0.1, 2.4]])
    z, t = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)), torch.tensor([0.3, 0.8])
    expected, nothing = both(prior, z, t, question)
    (answer,) = prior.predict_noise(z, t, question, [question.words])
    torch.testing.assert_close(answer, expected, rtol=1e-3, atol=1e-4)
    assert (nothing - expected).abs().max() > 0.01


def test_other_words_are_told_the_camera_and_nothing_is_not(prior: BundledPrior) -> None:
    cameras, colours = [[0.5, 0.3, 2.5], [2.0, 0.1, 2.4]], torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.3, 0.8]])
    z, t = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)), torch.tensor([0.3, 0.8])
    other = prior.embed(["a red car"] * 2)
    vase = ask(prior.embed(["a green vase"] * 2), cameras, colours)
    car, turned = ask(other, cameras, colours), ask(vase.words, cameras[::-1], colours)
    yes, instead, nothing = prior.predict_noise(z, t, vase, [vase.words, other, None])
    (told,) = prior.predict_noise(z, t, car, [car.words])
    torch.testing.assert_close(instead, told, rtol=1e-3, atol=1e-4)
    assert all((instead - x).abs().max() > 0.01 for x in (yes, nothing))
    elsewhere = prior.predict_noise(z, t, turned, [other, None])
    assert (elsewhere[0] - instead).abs().max() > 0.01
    torch.testing.assert_close(elsewhere[1], nothing, rtol=1e-3, atol=1e-4)
    gray = ask(vase.words, cameras)
    for found, before in zip(prior.predict_noise(z, t, gray, [other, None]), (instead, nothing), strict=True):
        assert (found - before).abs().max() > 0.01


def test_it_knows_colours_and_cameras(prior: BundledPrior) -> None:
    asked = ask(prior.embed(["a red sofa", "a green sofa", "a blue sofa"]), [[0.5, 0.3, 2.5]] * 3)
    picture = prior.decode(prior.mean_picture(asked))[:, :, 24:48, 16:48].mean((2, 3))
    assert picture.argmax(1).tolist() == [0, 1, 2]
    one = ask(prior.embed(["a green car"] * 2), [[0.0, 0.2, 2.5], [math.pi / 2, 0.2, 2.5]])
    front, side = prior.mean_picture(one)
    wide = [(x.abs().amax(0) > 0.25).any(0).sum().item() for x in (front, side)]
    assert wide[1] > 1.3 * wide[0], "a car is longer than it is wide"


def test_told_of_a_background_it_expects_it(prior: BundledPrior) -> None:
    colours = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.3, 0.8], [1.0, 1.0, 1.0]])
    words, cameras = prior.embed(["a green vase"] * 3), [[0.5, 0.3, 2.5]] * 3
    noise, t = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(4)), torch.full((3,), 0.9)
    for asked in (words, words.rows([0, 1, 2])):
        question = ask(asked, cameras, colours)
        layout = prior.decode(prior.mean_picture(question))
        clean = prior.decode(clean_from_noise(noise, both(prior, noise, t, question)[0], *prior.alpha_sigma(t)))
        for picture, bound in ((layout, 0.05), (clean, 0.12)):
            corner, middle = picture[:, :, :8, :8].mean((2, 3)), picture[:, :, 30:40, 29:35].mean((2, 3))
            assert (corner - colours).abs().max() < bound
            assert (middle.argmax(1) == 1).all() and (middle - middle.mean(0)).abs().max() < bound
    gray = prior.mean_picture(ask(words, cameras))
    torch.testing.assert_close(gray, prior.mean_picture(ask(words, cameras, torch.full((3, 3), 0.5))))


@pytest.mark.skipif(not RECORD["materials"], reason="these weights were taught no materials")
def test_it_knows_materials_patterns_and_two_colours(prior: BundledPrior) -> None:
    def middle(caption: str) -> torch.Tensor:
        question = ask(prior.embed([caption]), [[0.5, 0.3, 2.5]])
        return prior.decode(prior.mean_picture(question))[0, :, 20:48, 20:44]

    gold, stone = middle("a golden barrel").mean((1, 2)), middle("a stone barrel").mean((1, 2))
    assert gold[0] > gold[2] + 0.25 and (stone.max() - stone.min()) < 0.12
    rows = middle("a red and white striped barrel").mean(2)  # bands from top to bottom
    redness = rows[0] - rows[2]
    assert redness.max() - redness.min() > 0.25 and (redness.diff().sign().diff() != 0).sum() >= 3
    plain = middle("a red barrel").mean(2)
    assert (plain[0] - plain[2]).std() < 0.5 * redness.std()


@pytest.mark.skipif(not RECORD["proportions"], reason="these weights were taught no proportions")
def test_depths_are_answered_with_the_depths_of_the_thing_whatever_the_guidance(prior: BundledPrior) -> None:
    cameras, noise = (
        orbit_cameras([20.0, 200.0], 15.0),
        torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    )
    words = prior.embed(["a red armchair"] * 2)
    t = torch.full((2,), 0.9)
    alpha, sigma = (x[:, None, None, None] for x in prior.alpha_sigma(t))
    thing = prior.layout.thing(prior.embed(["a red armchair"])[0].shape)
    depths = prior.layout.draw_shape(thing, cameras.condition(), "depth")[:, :3]
    told, nothing = both(
        prior, alpha * depths + sigma * noise, t, Question(words, orbit_view(cameras, 64, "depth"), "camera")
    )
    assert torch.equal(told, nothing)
    torch.testing.assert_close(told, noise, atol=1e-3, rtol=0)


def test_clay_hides_every_look(prior: BundledPrior) -> None:
    camera = orbit_cameras([30.0]).condition()
    shown = ["a red and turquoise keypad", "a dotted keypad", "a brick keypad", "a red and white striped keypad"]
    plain, *others = prior.embed([f"a front view of a clay model of {words}" for words in ("a keypad", *shown)]).look
    assert all(torch.equal(look, plain) for look in others)
    assert plain.sum() == 3 and plain[CLAY_PAINT] == 1
    colour = prior.layout(prior.embed(["a clay model of a red and turquoise keypad"]), camera)[0, :3]
    assert (colour.max(0).values - colour.min(0).values).max() < 0.01, "clay is gray"


def test_a_flat_chest_is_flat(prior: BundledPrior) -> None:
    def height(caption: str) -> int:
        picture = prior.mean_picture(ask(prior.embed([caption]), [[0.5, 0.0, 2.5]]))
        return int((picture[0].abs().amax(0) > 0.2).any(1).sum())

    assert height("a flat chest") < 0.7 * height("a chest")


def test_instances_of_a_name_are_its_shapes(prior: BundledPrior) -> None:
    other = load_prior("bundled", precision="float32", instance=1)
    for name in ("chair", "xylophone"):
        first, second = (p.mean_picture(ask(p.embed([f"a {name}"]), [[0.5, 0.2, 2.5]])) for p in (prior, other))
        several = prior.vocabulary[name]["shapes"] > 1
        assert ((first - second).abs().mean() > 0.02) == several


def test_the_meanings_of_the_names_are_kept(prior: BundledPrior, tmp_path: Path) -> None:
    kept = name_meanings.kept(WEIGHTS.with_name(NAMES), prior.names)
    assert kept is not None and kept.shape == (len(prior.names), 384)
    some = [0, 7, len(prior.names) - 1]
    torch.testing.assert_close(kept[some], prior.encoder.sentence([prior.names[k] for k in some]), rtol=0, atol=1e-3)
    assert name_meanings.kept(WEIGHTS.with_name(NAMES), prior.names[1:]) is None, "they are of other names"
    assert name_meanings.kept(tmp_path / "none", prior.names) is None
    (tmp_path / "cut").write_bytes(b"x")
    assert name_meanings.kept(tmp_path / "cut", prior.names) is None
    name_meanings.write(tmp_path / "new", ["chair", "boat"], prior.encoder)
    new = name_meanings.kept(tmp_path / "new", ["chair", "boat"])
    assert new is not None and new.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_names_are_found_by_meaning(prior: BundledPrior) -> None:
    found = dict(prior.search("something to sit on"))
    assert {"chair", "stool", "bench"} & set(found) and all(-1 <= value <= 1 for value in found.values())
    assert prior.search("armchair", 3)[0][0] == "armchair" and len(prior.search("armchair", 3)) == 3
    assert prior.entry("couch") == prior.vocabulary["sofa"]


def test_one_step_from_noise_is_the_asked_colour(prior: BundledPrior) -> None:
    question = ask(prior.embed(["a red armchair"]), [[0.4, 0.3, 2.5]])
    z = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.97])
    clean = clean_from_noise(z, guide(*both(prior, z, t, question), 2.0), *prior.alpha_sigma(t))
    red, green, blue = clean[0, :, 26:44, 24:40].mean((1, 2)).tolist()
    assert red > green + 0.2 and red > blue + 0.2


def test_samples_repeat(prior: BundledPrior) -> None:
    question = ask(prior.embed(["a teapot"]), [[0.4, 0.3, 2.5]])
    first, second = (sample(prior, question, torch.Generator().manual_seed(5), 0.0, steps=3) for _ in range(2))
    assert torch.equal(first, second) and first.min() >= 0 and first.max() <= 1


def test_half_precision_agrees(prior: BundledPrior) -> None:
    half = load_prior("bundled", precision="bfloat16")
    question = ask(prior.embed(["a blue vase"]), [[1.0, 0.2, 2.5]])
    z, t = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)), torch.tensor([0.4])
    full, short = both(prior, z, t, question)[0], both(half, z, t, question)[0]
    assert (full - short).abs().mean() < 0.03


def test_unknown_words_are_named_with_their_nearest(prior: BundledPrior) -> None:
    assert prior.unknown_words("a red armchair") == []
    (unknown,) = prior.unknown_words("a red limousine")
    assert unknown.word == "limousine" and unknown.nearest == "saloon car" and 0.5 < unknown.similarity < 1


def test_a_caption_without_a_known_name_is_read_with_the_nearest_one(prior: BundledPrior) -> None:
    assert prior.familiar("a back view of a Red Limousine") == "a back view of a Red saloon car"
    for known in ("a red armchair", "an enormous armchair", "a side view of a teapot"):
        assert prior.familiar(known) == known
    assert torch.equal(prior.embed(["a red limousine"]).shape, prior.embed(["a red saloon car"]).shape)


def test_a_name_that_is_not_there_is_not_meant(prior: BundledPrior) -> None:
    names = list(prior.vocabulary)
    for caption, held in (
        ("a green car", {"car"}), ("a police car", {"police car"}), ("an orange armchair", {"orange", "armchair"}),
        ("a back view of a red Fauteuil", set(names)),
    ):  # fmt: skip
        assert {names[k] for k in prior.possible([caption])[0].nonzero()[:, 0].tolist()} == held, caption
    shown = prior.layout.shown[names.index("car")].tolist()
    share = prior.embed(["a green car"]).shape[0]
    assert share[sorted(set(shown))].sum() > 0.99 and float(share.max()) > 0.99
    assert prior.embed(["an orange armchair"]).shape[0].argmax() == prior.embed(["an armchair"]).shape[0].argmax()


def test_unknown_prior_names_the_known() -> None:
    with pytest.raises(UserError, match="bundled"):
        load_prior("bundeld")
