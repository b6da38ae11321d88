"""Reference pictures: what is read, what is cut out, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dreamfusion.batch.jobs import Job
from dreamfusion.errors import UserError
from dreamfusion.generation import generate
from dreamfusion.priors.question import Tokens
from dreamfusion.reference import FILL, SIDE, read_reference
from dreamfusion.run import Run
from dreamfusion.settings.presets import resolve
from tests.fakes import SMALL, GrayBallPrior


class ColourReader(GrayBallPrior):
    """Reads a picture as the colour in its middle."""

    def describe(self, image: torch.Tensor, prompt: str = "") -> str:
        middle = image[:3, image.shape[1] // 2, image.shape[2] // 2]
        return f"a {('red', 'green', 'blue')[int(middle.argmax())]} disc"

    def embed(self, captions: Sequence[str], images: Sequence[torch.Tensor] = ()) -> Tokens:
        return super().embed(captions)


def disc(
    path: Path,
    mode: str = "RGBA",
    background: tuple[int, ...] = (0, 0, 0, 0),
    size: int = 200,
    colour: tuple[int, ...] = (200, 30, 30, 255),
) -> Path:
    """A disc, red unless told, of radius 30, not in the middle."""
    picture = Image.new(mode, (size, size), background)
    ImageDraw.Draw(picture).ellipse((40, 100, 100, 160), fill=colour[: len(mode)])
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("name", "mode", "background"),
    [
        ("a.png", "RGBA", (0, 0, 0, 0)),
        ("b.webp", "RGBA", (255, 255, 255, 0)),
        ("white.png", "RGB", (255, 255, 255)),
        ("green.jpg", "RGB", (30, 160, 60)),
    ],
)
def test_the_object_is_cut_out_and_put_in_the_middle(
    tmp_path: Path, name: str, mode: str, background: tuple[int, ...]
) -> None:
    found = read_reference(disc(tmp_path / name, mode, background))
    assert found.shape == (4, SIDE, SIDE)
    cover = found[3]
    expected = np.pi / 4 * (FILL * SIDE) ** 2
    assert abs(float(cover.sum()) / expected - 1) < 0.06
    line = torch.arange(SIDE) + 0.5
    for sums in (cover.sum(0), cover.sum(1)):
        assert abs(float((sums * line).sum() / sums.sum()) - SIDE / 2) < 1.5
    middle, corner = found[:3, SIDE // 2, SIDE // 2], found[:3, 0, 0]
    torch.testing.assert_close(middle, torch.tensor([200, 30, 30]) / 255, rtol=0, atol=0.04)
    torch.testing.assert_close(corner, torch.full((3,), 0.5))


def test_a_hole_stays_and_specks_go(tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((50, 50, 150, 150), fill="navy")
    draw.rectangle((10, 10, 12, 12), fill="navy")
    picture.save(tmp_path / "a.png")
    found = read_reference(tmp_path / "a.png")
    assert abs(float(found[3].sum()) / (FILL * SIDE) ** 2 - 1) < 0.06


def noisy(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    torn = tmp_path / "torn.png"
    torn.write_bytes(disc(tmp_path / "whole.png").read_bytes()[:300])
    empty = tmp_path / "empty.png"
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(empty)
    plain = tmp_path / "plain.png"
    Image.new("RGB", (64, 64), "white").save(plain)
    gif = tmp_path / "a.gif"
    Image.new("RGB", (64, 64), "white").save(gif)
    none = tmp_path / "none.png"
    none.touch()
    huge = tmp_path / "huge.png"
    Image.new("1", (12_000, 12_000)).save(huge)
    for path, words in (
        (tmp_path / "missing.png", "No such file"), (tmp_path, "directory"), (text, "no picture, or damaged"),
        (torn, "damaged"), (none, "damaged"), (empty, "shows nothing"), (plain, "shows nothing"), (gif, "GIF"),
        (noisy(tmp_path / "noise.png"), "no plain background"), (huge, "million"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words) as caught:
            read_reference(path)
        assert "\n" not in str(caught.value), path


@pytest.mark.filterwarnings("ignore:.* is read as")
def test_settings_that_are_used_again_are_as_they_were(tmp_path: Path) -> None:
    """Each asset is named by its own picture, though no prompt is given."""
    config = resolve("fast", SMALL | {"steps": 1, "image": str(disc(tmp_path / "red.png"))})
    before = config.model_dump()
    assert generate(config=config, prior=ColourReader()).prompt == "a red disc"
    assert config.model_dump() == before
    config.prior.image = str(disc(tmp_path / "blue.png", colour=(30, 30, 200, 255)))
    assert generate(config=config, prior=ColourReader()).prompt == "a blue disc"


@pytest.mark.filterwarnings("ignore:.* is read as")
def test_a_resumed_run_keeps_the_path_of_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resumed by a relative path, and a batch still knows it as its own. The picture itself may be gone."""
    monkeypatch.chdir(tmp_path)
    picture = disc(tmp_path / "mug.png")
    job = Job(Path("run"), "", "fast", SMALL | {"steps": 1, "image": "mug.png"})
    generate("", "fast", out=job.folder, prior=ColourReader(), **job.settings)
    recorded = (job.folder / "run.yaml").read_bytes()
    picture.unlink()
    generate(resume=job.folder, prior=ColourReader())
    assert (job.folder / "run.yaml").read_bytes() == recorded
    generate(resume=job.folder, prior=ColourReader(), steps=2)
    config = Run.open(job.folder).config
    assert (config.prior.image, config.steps) == (str(picture), 2)
    assert job.state() == ("finished", "")


@pytest.mark.filterwarnings("ignore:.* is read as")
def test_a_relative_path_in_settings_is_recorded_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = disc(tmp_path / "mug.png")
    config = resolve("fast", SMALL | {"steps": 1, "image": str(picture)})
    config.prior.image = "mug.png"
    generate(config=config, out="run", prior=ColourReader())
    assert Run.open("run").config.prior.image == str(picture)
