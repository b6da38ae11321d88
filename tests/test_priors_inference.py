"""The bundled prior infers what a question leaves open: shown its own noisy pictures of a thing, it finds them again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.prior import broadcast
from dreamfusion.priors.question import Question
from dreamfusion.samples import sample_around
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import GrayBallPrior

NAME = "a red armchair"


@pytest.fixture(scope="module")
def prior() -> BundledPrior:
    return BundledPrior()


def noisy(prior: BundledPrior, truth: Tensor, t: Tensor) -> Tensor:
    alpha, sigma = prior.alpha_sigma(t)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    return broadcast(alpha, truth) * truth + broadcast(sigma, truth) * noise


def clean(prior: BundledPrior, z_t: Tensor, t: Tensor, question: Question) -> Tensor:
    (answer,) = prior.predict_noise(z_t, t, question, [question.words])
    alpha, sigma = prior.alpha_sigma(t)
    return (z_t - broadcast(sigma, z_t) * answer) / broadcast(alpha, z_t)


def test_four_views_together_find_which_way_the_thing_looks(prior: BundledPrior) -> None:
    """The pictures are of azimuths 107, 197, …; the question says 0, 90, …: only how they stand to each other is told.

    All of them together are found, over backgrounds of their own, and it does not matter which azimuths are said.
    """
    background = torch.tensor([0.9, 0.2, 0.6])
    real = orbit_view(orbit_cameras([107, 197, 287, 377], 20), 64, background=background)
    words = prior.embed([NAME] * 4)
    truth = prior.mean_picture(Question(words, real))
    t = torch.full((4,), 0.6)
    z_t = noisy(prior, truth, t)
    found = []
    for start in (0, 200):
        said = orbit_view(orbit_cameras([start + 90 * k for k in range(4)], 20), 64, background=background)
        found.append(clean(prior, z_t, t, Question(words, replace(said, group=4), "views")))
        assert (found[-1] - truth).square().mean() < 0.01
    assert (found[0] - found[1]).square().mean() < 1e-3
    wrong_way = orbit_view(orbit_cameras([0, -90, -180, -270], 20), 64, background=background)
    turned = clean(prior, z_t, t, Question(words, replace(wrong_way, group=4), "views"))
    assert (turned - truth).square().mean() > 0.02


def test_words_alone_find_the_side_that_they_tell(prior: BundledPrior) -> None:
    """A picture of azimuth 30 is found with 'a front view'; with 'a back view' nothing like it can be."""
    view = orbit_view(orbit_cameras([30], 15), 64)
    truth = prior.mean_picture(Question(prior.embed([NAME]), view))
    t = torch.tensor([0.6])
    z_t = noisy(prior, truth, t)
    off = {}
    for side in ("front", "back"):
        words = prior.embed([f"a {side} view of {NAME}"])
        off[side] = float((clean(prior, z_t, t, Question(words, view, "words")) - truth).square().mean())
    assert off["front"] < 0.01 < 0.02 < off["back"]


def test_views_drawn_together_are_of_one_thing_and_a_prior_of_single_views_is_refused(prior: BundledPrior) -> None:
    pictures = sample_around(prior, NAME, 4, 0.0, seed=1, asks="views")
    assert pictures.shape == (4, 3, 64, 64)
    red = (pictures[:, 0] - pictures[:, 1:].amax(1) > 0.15).float().mean((1, 2))
    assert (red > 0.08).all() and (red < 0.6).all()
    with pytest.raises(UserError, match="answers each view alone"):
        sample_around(GrayBallPrior(), NAME, 4, asks="views")
