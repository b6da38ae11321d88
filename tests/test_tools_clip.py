"""How the CLIPs' pictures are drawn and put together, and what their training asks for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

TOOLS = Path(__file__).parents[1] / "tools"
sys.path[:0] = [str(TOOLS / "clip"), str(TOOLS / "prior")]
draw, pictures = (importlib.import_module(name) for name in ("draw", "pictures"))
LOOKS, NAMES, Views = pictures.LOOKS, pictures.NAMES, pictures.Views


def script(name: str) -> ModuleType:
    """A script of tools/clip; tools/prior has scripts of the same names."""
    spec = importlib.util.spec_from_file_location(f"clip_{name}", TOOLS / "clip" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two names, twelve views each: a disc whose albedo is white, half of it lit."""
    place = tmp_path_factory.mktemp("views")
    x = np.linspace(-1, 1, 64)
    disc = (x[:, None] ** 2 + x[None] ** 2 < 0.4) * 255.0
    lit = disc * (x[None] > 0)
    for name in ("armchair", "soccer ball"):
        pixels = np.stack([disc, disc, disc, disc, lit]).astype(np.uint8)[None].repeat(12, 0)
        cameras = np.stack([np.linspace(-180, 150, 12), np.zeros(12), np.full(12, 47), np.full(12, 2.5)], 1)
        np.savez(place / f"{name.replace(' ', '_')}.npz", pixels=pixels, cameras=cameras.astype(np.float32))
    return place


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


def test_held_out_views_are_never_trained_on(folder: Path) -> None:
    kept, held, every = (Views(folder, bare=True, held_out=h) for h in (False, True, None))
    assert (len(kept.pixels), len(held.pixels), len(every.pixels)) == (20, 4, 24)
    assert not set(kept.azimuth) & set(held.azimuth)
    assert [NAMES[n] for n in kept.names] == ["armchair", "soccer ball"]


def test_compose_is_light_times_paint_over_the_background(folder: Path) -> None:
    views = Views(folder, bare=True)
    pixels = torch.from_numpy(views.pixels[:2]).float() / 255
    look, half = torch.tensor([LOOKS.index("clay"), LOOKS.index("")]), torch.tensor([0.5, 0.5])
    drawn = pictures.compose(
        pixels,
        look,
        half,
        torch.tensor([0, 0]),
        torch.tensor([0.25, 0.25]),
        torch.tensor(0.3),
        torch.tensor([1.0, 0.5]),
    )
    assert drawn[0, :, 32, 40].tolist() == pytest.approx([0.8] * 3), "clay in full light"
    assert drawn[0, :, 32, 24].tolist() == pytest.approx([0.8 * 0.25] * 3), "clay in the shade: the ambient share"
    assert drawn[1, :, 32, 40].tolist() == pytest.approx([0.5 + 0.5 * 0.3] * 3), "half transparent white"
    assert drawn[:, :, 0, 0].flatten().tolist() == pytest.approx([0.3] * 6)


def test_a_batch_is_labelled_and_junk_is_nothing(folder: Path) -> None:
    views = Views(folder, bare=True)
    some = pictures.batch(views, 80, np.random.default_rng(0), torch.Generator().manual_seed(0))
    assert some.pictures.shape == (80, 3, 64, 64) and 0 <= some.pictures.min() and some.pictures.max() <= 1
    assert (some.label[:4] == -1).all() and (some.label[4:] >= 0).all()
    names = some.label[4:] // len(LOOKS)
    assert {NAMES[n] for n in names.tolist()} == {"armchair", "soccer ball"}
    assert torch.equal(some.azimuth_deg[4:].isnan(), names == NAMES.index("soccer ball")), "a ball has no front"


def test_mirrored_views_are_mirrored(folder: Path) -> None:
    pixels = torch.from_numpy(Views(folder, bare=True).pixels[:64]).float() / 255
    rng = torch.Generator().manual_seed(1)
    same, other = (
        pictures.moved(pixels, torch.full((len(pixels),), flip), torch.ones(len(pixels)), rng) for flip in (False, True)
    )
    lit_right = [float((p[:, 4, :, 34:].sum() - p[:, 4, :, :30].sum()) / p[:, 4].sum()) for p in (same, other)]
    assert lit_right[0] > 0.5 and lit_right[1] < -0.5


def test_azimuth_targets_are_shared_by_nearness() -> None:
    target = script("train").azimuth_target(torch.tensor([0.0, 45.0, -10.0, 359.0]))
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    assert target[0, 0] == 1 and target[1, [1, 2]].tolist() == pytest.approx([0.5, 0.5])
    assert target[2, 0] == pytest.approx(2 / 3, abs=1e-5) and target[2, 11] == pytest.approx(1 / 3, abs=1e-5)
    assert target[3, 0] == pytest.approx(29 / 30, abs=1e-5)


def test_junk_is_asked_to_be_like_every_caption_alike() -> None:
    train = script("train")
    torch.manual_seed(0)
    model, sentences = train.Trainee(train.Guide()), torch.nn.functional.normalize(torch.randn(50, 384), dim=1)
    nothing = train.Batch(torch.rand(2, 3, 64, 64), torch.full((2,), -1), torch.full((2,), float("nan")))
    loss = model.eval().loss(nothing, sentences)["loss"]
    clip = model.net
    logits = clip(nothing.pictures) @ clip.words(sentences).T * clip.scale.exp()
    uniform = torch.full((2, 50), 1 / 50)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, uniform))


def test_the_card_reads_the_suite() -> None:
    card = script("card")
    prompts, items = card.suite_items()
    assert len(items) == 153 and len(set(items)) == 153
    told = dict(zip(prompts, items, strict=True))
    assert told["a red desk"] == (NAMES.index("desk"), LOOKS.index("red"))
    assert told["a basin"] == (NAMES.index("basin"), LOOKS.index(""))
