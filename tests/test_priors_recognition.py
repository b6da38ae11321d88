"""Reference pictures are recognised: the bundled prior finds its own pictures again, framed in other ways."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from dreamfusion import Stopped
from dreamfusion.errors import UserError
from dreamfusion.generation import REFERENCE, generate
from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.outlines import (
    AZIMUTHS,
    BLUR,
    SIDE,
    boxes,
    framed,
    nearest_cameras,
    outline_cameras,
    steps_between,
)
from dreamfusion.priors.question import Question
from dreamfusion.priors.recognition import Recognised
from dreamfusion.run import Run
from dreamfusion.settings.presets import resolve
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL


@pytest.fixture(scope="module")
def prior() -> BundledPrior:
    return BundledPrior()


def picture_of(prior: BundledPrior, prompt: str, azimuth: float, elevation: float) -> Tensor:
    """The layout's picture of a prompt as a reference picture, (4, 64, 64)."""
    subject = prior.embed([prompt])[0]
    camera = orbit_cameras([azimuth], elevation).condition()
    drawn = prior.inference.hypotheses.draw(subject, camera)[0]
    return torch.cat([drawn[:3] / 2 + 0.5, drawn[3:]]).clamp(0, 1)


def test_boxes_and_frames_are_of_what_is_covered() -> None:
    cover = torch.zeros(1, 64, 64)
    cover[0, 10:20, 30:50] = 1  # rows, columns
    box = boxes(cover)
    torch.testing.assert_close(box, torch.tensor([[40 / 32 - 1, 15 / 32 - 1, 20 / 64]]))
    cut = framed(cover[:, None], box, 20)
    assert cut[0, 0, 5:15].mean() > 0.99 and cut[0, 0, :4].max() < 0.01 and cut[0, 0, 16:].max() < 0.01
    assert boxes(torch.zeros(1, 8, 8)).isfinite().all()


def test_the_nearest_mixture_of_neighbouring_outlines_is_that_of_a_search() -> None:
    rng = np.random.default_rng(0)
    stored = np.packbits(rng.random((3, len(outline_cameras()), SIDE**2)) < 0.4, axis=2)
    outline = gaussian_filter(rng.random((SIDE, SIDE)), 1.0).astype(np.float32)
    away, cameras = nearest_cameras(stored, outline)
    blurred = gaussian_filter(
        np.unpackbits(stored, axis=2).reshape(3, -1, SIDE, SIDE).astype(float), (0, 0, BLUR, BLUR), mode="constant"
    )
    wanted = gaussian_filter(outline, BLUR, mode="constant")
    turn = 2 * math.pi / AZIMUTHS
    for shape, column in ((0, 0), (1, 7), (2, AZIMUTHS - 1)):
        best = (2.0, 0.0, 0.0)
        for one, other in zip(*(end[:, column].tolist() for end in steps_between()), strict=True):
            for share in np.linspace(0, 1, 201):
                mixed = blurred[shape, one] + share * (blurred[shape, other] - blurred[shape, one])
                error = ((mixed - wanted) ** 2).sum() / ((mixed**2).sum() + (wanted**2).sum())
                camera = outline_cameras()[one] + share * (outline_cameras()[other] - outline_cameras()[one])
                around = float(outline_cameras()[one, 0]) + share * turn * (other % AZIMUTHS != one % AZIMUTHS)
                best = min(best, (error, around, float(camera[1])))
        assert away[shape, column] == pytest.approx(best[0], abs=1e-4)
        assert cameras[shape, column, :2].tolist() == pytest.approx(best[1:], abs=0.01)


def test_a_stored_outline_is_found_at_its_camera(prior: BundledPrior) -> None:
    stored = prior.layout.outlines.numpy()[:40]
    for shape, camera in ((3, 5), (17, 20), (30, 47)):
        outline = np.unpackbits(stored[shape, camera]).reshape(SIDE, SIDE).astype(np.float32)
        away, cameras = nearest_cameras(stored, outline)
        assert away[shape, camera % AZIMUTHS] < 1e-5
        torch.testing.assert_close(cameras[shape, camera % AZIMUTHS], outline_cameras()[camera], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("prompt", "azimuth", "elevation"),
    [
        ("a red armchair", 40, 15),
        pytest.param("a teapot", -70, 30, marks=pytest.mark.slow),
        pytest.param("a green car", 130, 10, marks=pytest.mark.slow),
    ],
)
def test_a_picture_is_recognised_from_its_side(
    prior: BundledPrior, prompt: str, azimuth: float, elevation: float
) -> None:
    picture = picture_of(prior, prompt, azimuth, elevation)
    smaller = framed(
        picture[None] - torch.tensor([0.5, 0.5, 0.5, 0])[:, None, None], torch.tensor([[0.1, -0.1, 1.4]]), 96
    )[0]
    smaller[:3] += 0.5
    seen = prior.recognise([smaller])
    turn = math.degrees(float(seen.camera[0])) - azimuth
    assert abs((turn + 180) % 360 - 180) < 15 and abs(math.degrees(float(seen.camera[1])) - elevation) < 15
    said = prior.describe(smaller)
    assert said.startswith(prompt), said
    words = prior.embed([f"a back view of {prompt}", f"a clay model of {prompt}"], [smaller])
    assert words.shape[0].argmax() == prior.embed([prompt]).shape[0].argmax()
    assert words.look[0].argmax() != 1 and words.look[1, 1] > 0.5 and words.sides.tolist()[0] == [0, 0, 1, 0]


def test_the_best_shape_is_meant_in_the_mean_of_its_colours(prior: BundledPrior) -> None:
    red, blue, mains = 2, 7, prior.layout.sizes.looks[0]
    seen = Recognised((9, 4, 9), (red, blue, blue), (0.4, 0.4, 0.2), torch.zeros(3))
    found = seen.subject(prior.layout)
    assert found.shape.nonzero()[:, 0].tolist() == [9] and found.shape.sum() == 1
    torch.testing.assert_close(found.look[[red, blue]], torch.tensor([2 / 3, 1 / 3]))
    assert (
        found.look[:mains].sum() == pytest.approx(1) and found.look[mains] == 1 and found.look.sum() == pytest.approx(3)
    )


@pytest.mark.usefixtures("few_guesses")
def test_words_say_which_name_a_picture_is_of(prior: BundledPrior) -> None:
    picture = picture_of(prior, "a red armchair", 30, 15)
    assert "sofa" in prior.describe(picture, "a sofa") and "armchair" in prior.describe(picture)
    seen = prior.recognise([picture])
    assert "armchair" in prior.describe(picture, "my favourite")
    assert prior.recognise([picture], "my favourite") is seen, "words without a known name cost no second look"


def test_outlines_are_stored_of_every_shape(prior: BundledPrior) -> None:
    outlines = prior.layout.outlines
    assert outlines.shape == (prior.layout.sizes.shapes, len(outline_cameras()), 32)
    assert (outlines.float().sum(2) > 0).float().mean() > 0.99


def test_questions_that_do_not_fit_are_one_line(prior: BundledPrior, tmp_path: Path) -> None:
    picture = picture_of(prior, "a teapot", 0, 15)
    with pytest.raises(UserError, match="one reference picture, not 2"):
        prior.embed(["a teapot"], [picture, picture])
    with pytest.raises(UserError, match="takes no reference pictures"):
        load_prior("guide").embed(["a teapot"], [picture])
    with pytest.raises(UserError, match="needs a reference picture"):
        generate("a mug", "zero123")
    with pytest.raises(UserError, match="leave one out"):
        resolve("words", {"image": str(tmp_path / "a.png"), "prior.asks": "words"}, "a mug")
    config = resolve("fast", {"image": str(tmp_path / "a.png")})
    assert config.prior.asks == "image" and config.prompt == ""


@pytest.mark.usefixtures("few_guesses")
def test_the_question_image_is_answered_with_its_camera(prior: BundledPrior) -> None:
    picture = picture_of(prior, "a green car", 20, 15)
    view = orbit_view(orbit_cameras([110], 15), 64)
    words = prior.embed(["a green car"], [picture])
    told = prior.mean_picture(Question(words, view, "image"))
    expected = prior.mean_picture(Question(prior.embed(["a green car"]), view))
    assert (told - expected).square().mean() < 0.01


@pytest.mark.usefixtures("few_guesses")
def test_a_run_of_a_picture_is_made_stopped_and_resumed(prior: BundledPrior, tmp_path: Path) -> None:
    given = tmp_path / "mug.png"
    pixels = (picture_of(prior, "a red mug", 30, 15) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels, "RGBA").save(given)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    small = SMALL | {"steps": 4, "image": str(given), "views_per_step": 1}
    with pytest.warns(UserWarning, match="mug.png is read as a red mug"):
        generate("", "zero123", out=whole, **small)
    stop = threading.Event()

    def after_two(progress: Any) -> None:
        if progress.step == 2:
            stop.set()

    with pytest.warns(UserWarning, match="is read as"), pytest.raises(Stopped):
        generate("", "zero123", out=stopped, callbacks=[after_two], stop=stop, **small)
    assert (stopped / REFERENCE).read_bytes() == given.read_bytes()
    given.unlink()
    with pytest.warns(UserWarning, match="is read as"):
        generate(resume=stopped)
    mine, other = (Run.open(path).load_checkpoint()[0] for path in (stopped, whole))
    assert all(torch.equal(mine[key], other[key]) for key in other)
