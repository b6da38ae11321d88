"""How the CLIPs' pictures are drawn and put together, and what their training asks for."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dreamfusion.clip.bundled_clip import write
from dreamfusion.view.cameras import orbit_cameras

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "clip"))

import draw
import pictures
import roughen
import table
from looks import Look, held_out
from models import read_models, read_names, stem_of
from paint import places

from dreamfusion.priors.appearance import CLAY, FACTORS

TOOLS = Path(__file__).parents[1] / "tools"
SHOWN = {
    "armchair": ["armchair"], "soccer ball": ["soccer_ball"], "chair": ["chair", "office_chair"], "office chair": ["office_chair"],
}  # fmt: skip
DRAWN = ("armchair", "soccer_ball")


def script(name: str) -> ModuleType:
    """A script of tools/clip; tools/prior has scripts of the same names."""
    spec = importlib.util.spec_from_file_location(f"clip_{name}", TOOLS / "clip" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of four shapes, twelve views each: a disc whose albedo is white, half of it lit, half way through the unit sphere."""
    place = tmp_path_factory.mktemp("views")
    (place / "instances.json").write_text(json.dumps(SHOWN))
    x = np.linspace(-1, 1, 64)
    disc = (x[:, None] ** 2 + x[None] ** 2 < 0.4) * 255.0
    lit = disc * (x[None] > 0)
    for stem in DRAWN:
        pixels = np.stack([disc, disc, disc, disc, lit, disc / 2]).astype(np.uint8)[None].repeat(12, 0)
        cameras = np.stack([np.linspace(-180, 150, 12), np.zeros(12), np.full(12, 47), np.full(12, 2.5)], 1)
        np.savez(place / f"{stem}.0.npz", pixels=pixels, cameras=cameras.astype(np.float32))
    return place


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> Any:
    return table.Vocabulary.of(folder)


@pytest.fixture(scope="module")
def views(folder: Path, vocabulary: Any) -> Any:
    return pictures.Views(folder, vocabulary)


@pytest.fixture(scope="module")
def captions(vocabulary: Any) -> Any:
    """A table of 400 captions with made-up sentence embeddings."""
    said = [*table.usual_captions(vocabulary, 200), *table.random_captions(vocabulary, 200)]
    sentences = torch.nn.functional.normalize(torch.randn(400, 384, generator=torch.Generator().manual_seed(0)), dim=1)
    names = torch.tensor([vocabulary.order.index(name) for _, name, _ in said])
    return table.Table(sentences, names, torch.tensor([look.numbers for _, _, look in said]))


def test_the_judges_cameras_and_lights_are_spread() -> None:
    rng = np.random.default_rng(0)
    cameras = draw.sample_cameras(96, rng)
    sectors = np.sort(((cameras[:, 0] + 180) // 3.75).astype(int))
    assert (sectors == np.arange(96)).all(), "one azimuth in each of 96 sectors"
    filled = 1 / (cameras[:, 3] * np.sin(np.radians(cameras[:, 2]) / 2))
    assert filled.min() > 0.8 and filled.max() < 1.16
    assert np.ptp(cameras[:, 2]) > 20, "lenses differ; the prior has one"
    lights = np.array([draw.sample_light(rng) for _ in range(50)])
    np.testing.assert_allclose(np.linalg.norm(lights, axis=1), 1)
    assert (lights[:, 2] > 0).all() and lights[:, 0].std() > 0.3


def test_a_ring_is_what_the_janus_score_sees() -> None:
    seen = orbit_cameras([30 * k for k in range(draw.RING)])
    found = torch.from_numpy(draw.ring_cameras())
    torch.testing.assert_close(found[:, 0].deg2rad(), seen.azimuth)
    torch.testing.assert_close(found[:, 1].deg2rad(), seen.elevation)
    assert (found[:, 3] == 2.5).all() and seen.radius.tolist() == [2.5] * draw.RING


def test_shapes_are_drawn_once_and_rings_of_what_has_a_front() -> None:
    names, models = read_names(), [m for m in read_models() if m.name]
    every = draw.chosen(models, SHOWN, names, False)
    assert sorted(stem_of(m.file) for m in every) == ["armchair", "chair", "office_chair", "soccer_ball"]
    rings = draw.chosen(models, SHOWN, names, True)
    assert [stem_of(m.file) for m in rings] == ["armchair", "chair", "office_chair"], "the first of each name"


def test_the_true_names_of_a_shape_are_its_own_and_the_more_general_ones(vocabulary: Any) -> None:
    order, shapes = vocabulary.order, vocabulary.shapes
    names = [[order[n] for n in row.nonzero()[:, 0].tolist()] for row in vocabulary.true]
    assert dict(zip(shapes, names, strict=True)) == {
        "armchair": ["armchair"], "chair": ["chair"], "office_chair": ["chair", "office chair"], "soccer_ball": ["soccer ball"],
    }  # fmt: skip
    assert [[shapes[k] for k in some] for some in vocabulary.shown] == list(SHOWN.values())


def test_captions_name_all_things_in_all_looks_and_none_is_stretched(vocabulary: Any) -> None:
    usual, wild = table.usual_captions(vocabulary, 400), table.random_captions(vocabulary, 1600)
    assert {*Counter(name for _, name, _ in usual).values()} == {100}
    assert {*Counter(name for _, name, _ in wild).values()} == {400}
    assert any(held_out(name, look) for _, name, look in usual), "a judge must know what a prior never saw"
    own = {word for text, _, _ in wild for word in text.split(" on a ")[0].split()}  # "on a tall building" may be there
    assert not {"tall", "squat", "slender", "elongated"} & own
    assert ("a clay model of an armchair", "armchair", Look(CLAY)) in usual
    assert table.random_captions(vocabulary, 30) == wild[:30] and table.usual_captions(vocabulary, 30) == usual[:30]


def test_captions_that_were_read_already_are_means_of_tokens(tmp_path: Path) -> None:
    tokens = torch.randn(3, 5, 384, generator=torch.Generator().manual_seed(0)).half()
    labels = torch.tensor([[7, 3, 0, 0, 0], [8, 2, 1, 1, 4], [9, 0, 1, 2, 0]])  # the second names a proportion
    save_file({"tokens": tokens, "lengths": torch.tensor([5, 4, 2]), "labels": labels}, tmp_path / "readings")
    found = table.already_read(tmp_path / "readings")
    assert found["name"].tolist() == [7, 9] and found["look"].tolist() == [[3, 0, 0], [0, 1, 2]]
    mean = tokens[2, :2].float().mean(0)
    torch.testing.assert_close(found["sentences"][1].float(), mean / mean.norm(), rtol=0, atol=1e-3)


def test_the_same_is_said_by_general_names_of_the_same_look(vocabulary: Any) -> None:
    red, striped, plain = Look("red").numbers, Look("red", "white", "striped").numbers, Look().numbers
    rows = [("office chair", red), ("chair", red), ("chair", striped), ("armchair", red), ("chair", plain)]
    names = torch.tensor([vocabulary.order.index(name) for name, _ in rows])
    some = table.Table(torch.zeros(5, 384), names, torch.tensor([look for _, look in rows]))
    shapes = [vocabulary.shapes.index(stem) for stem in ("office_chair", "chair")]
    same = some.same(vocabulary.true[shapes], torch.tensor([red, red]), torch.arange(5))
    assert same.tolist() == [[True, True, False, False, False], [False, True, False, False, False]]


def test_held_out_views_are_never_trained_on(views: Any, folder: Path, vocabulary: Any) -> None:
    assert [vocabulary.shapes[k] for k in views.shapes] == list(DRAWN)
    for k in views.shapes:
        assert (
            len(views.rows[k]) == 10 and len(views.held_out[k]) == 2 and not set(views.rows[k]) & set(views.held_out[k])
        )
    with pytest.raises(pictures.DataError, match="has no pictures of a shape"):
        pictures.Views(folder / "rings", vocabulary)


def test_a_second_pass_adds_views(views: Any, folder: Path, vocabulary: Any, tmp_path: Path) -> None:
    for k in (0, 1):
        shutil.copy(folder / "armchair.0.npz", tmp_path / f"armchair.{k}.npz")
    more = pictures.Views(tmp_path, vocabulary)
    (shape,) = more.shapes
    assert len(more.rows[shape]) == 20 and more.held_out[shape].tolist() == [0, 6, 12, 18]


def test_light_is_ambient_and_bare_light_times_paint(views: Any, vocabulary: Any) -> None:
    shapes = np.array([vocabulary.shapes.index("armchair")] * 2)
    look = torch.tensor([Look(CLAY).numbers, Look().numbers])
    tone = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 0.25]])
    drawn = pictures.lit(views, shapes, np.array([0, 1]), look, torch.tensor([0.25, 0.5]), tone)
    assert drawn[0, :, 32, 40].tolist() == pytest.approx([0.8] * 3 + [1]), "clay in full light"
    assert drawn[0, :, 32, 24].tolist() == pytest.approx([0.8 * 0.25] * 3 + [1]), "in the shade: the ambient share"
    assert drawn[1, :, 32, 24].tolist() == pytest.approx([0.46, 0.25, 0.125, 1]), "an albedo ends at 0.92"
    assert not drawn[:, :, 0, 0].any()
    over = pictures.plain_pictures(views, shapes, np.array([0, 1]), look, gray=0.3)
    assert over[:, :, 0, 0].flatten().tolist() == pytest.approx([0.3] * 6)
    assert over[0, :, 32, 24].tolist() == pytest.approx([0.4] * 3)


def test_patterns_lie_where_the_lens_of_the_view_puts_them() -> None:
    """Against points that are projected by hand: 30 degrees wide, two units away, on the optical axis' plane."""
    depth, camera = torch.full((1, 64, 64), 0.5), torch.tensor([[0.0, 0.0, 2.0]])
    found = places(depth, camera, torch.tensor([30.0]))[0]
    edge = 2.0 * math.tan(math.radians(15)) * (63 / 64)
    torch.testing.assert_close(found[0, 0], torch.tensor([-edge, edge, 0.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[63, 63], torch.tensor([edge, -edge, 0.0]), rtol=0, atol=1e-5)


def test_a_batch_has_its_captions_and_junk_is_nothing(views: Any, vocabulary: Any, captions: Any) -> None:
    among = views.drawable(captions)
    assert {vocabulary.order[k] for k in captions.name[among].tolist()} == {"armchair", "soccer ball"}
    for side in (32, 64):
        rngs = np.random.default_rng(0), torch.Generator().manual_seed(0)
        some = pictures.batch(views, captions, among, 80, *rngs, side=side)
        assert some.pictures.shape == (80, 3, side, side) and 0 <= some.pictures.min() and some.pictures.max() <= 1
        assert (some.row[:4] == -1).all() and (some.row[4:] >= 0).all()
        assert vocabulary.true[some.shape[4:], captions.name[some.row[4:]]].all()
        assert torch.equal(some.look[4:], captions.look[some.row[4:]])
    again = pictures.batch(views, captions, among, 80, np.random.default_rng(0), torch.Generator().manual_seed(0))
    assert torch.equal(again.pictures, some.pictures)


def test_mirrored_views_are_mirrored(views: Any) -> None:
    pixels = torch.from_numpy(views.pixels).float() / 255
    rng = torch.Generator().manual_seed(1)
    same, other = (
        roughen.moved(pixels, torch.full((len(pixels),), flip), torch.ones(len(pixels)), rng) for flip in (False, True)
    )
    lit_right = [float((p[:, 4, :, 34:].sum() - p[:, 4, :, :30].sum()) / p[:, 4].sum()) for p in (same, other)]
    assert lit_right[0] > 0.5 and lit_right[1] < -0.5


def test_the_loss_is_cross_entropy_without_what_says_the_same(views: Any, vocabulary: Any, captions: Any) -> None:
    """Against a loop over pictures and captions."""
    train = script("train")
    torch.manual_seed(0)
    model = train.Trainee(train.Guide(), len(SHOWN)).eval()
    rngs, extra = (np.random.default_rng(1), torch.Generator().manual_seed(1)), torch.arange(100)
    some = pictures.batch(views, captions, views.drawable(captions), 24, *rngs, side=32)
    found = model.loss(some, captions, vocabulary, extra)
    clip = model.net
    rows = [*some.row[1:].tolist(), *extra.tolist()]
    logits = clip(some.pictures) @ clip.words(captions.sentences[rows]).T * clip.scale.exp()
    total = -logits[0].log_softmax(0).mean()  # the batch begins with one piece of junk: like every caption alike
    for k in range(23):
        name = captions.name[some.row[k + 1]]  # no general name is drawn here, so a caption's name is the shape's own
        others = [
            j for j, row in enumerate(rows)
            if j == k or captions.name[row] != name or not torch.equal(captions.look[row], some.look[k + 1])
        ]  # fmt: skip
        total = total - logits[k + 1, k] + logits[k + 1, others].logsumexp(0)
    torch.testing.assert_close(found["loss"], total / 24)
    assert found["help"] > 0 and model.look.out_features == sum(FACTORS)
    check = model.check(
        clip, pictures.held_out_batch(views, captions, views.drawable(captions), 16, 7), captions, vocabulary, extra
    )
    assert set(check) == {"top1", "name_top1"} and 0 <= check["top1"] <= check["name_top1"] <= 1


def test_training_begins_with_packed_weights_or_spread_words(captions: Any, tmp_path: Path) -> None:
    train = script("train")
    judge = train.Trainee(train.KINDS["judge"](), 4)
    train.begin(judge, captions.sentences, None)
    said = judge.net.words(captions.sentences).detach()
    assert float((said @ said.T).fill_diagonal_(0).abs().mean()) < 0.2, "sentences point everywhere"
    write(judge.net, tmp_path / "judge.safetensors", {})
    again = train.Trainee(train.KINDS["judge"](), 4)
    train.begin(again, captions.sentences, tmp_path / "judge.safetensors")
    assert torch.equal(again.net.tower.query.weight, judge.net.tower.query.weight.half().float())


def test_the_card_reads_the_suites(views: Any) -> None:
    card = script("card")
    for suite in ("open-153", "bundled-153"):
        prompts, items = card.suite_items(suite)
        assert len(items) == 153 and len({(name, look.numbers) for name, look in items}) == 153
        told = dict(zip(prompts, items, strict=True))
    assert told["a red desk"] == ("desk", Look("red")) and told["a basin"] == ("basin", Look())
    shots = card.Shots(views, [("armchair", Look("red")), ("chair", Look()), ("soccer ball", Look("blue"))])
    assert shots.truth.tolist() == [0, 0, 2, 2], "held-out views of what has pictures"
    assert shots.plain().shape == shots.rough().shape == (4, 3, 64, 64)
