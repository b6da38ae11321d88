"""From which side pictures show a thing, against pictures whose side is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.evaluation.facing import STEPS, around, azimuths, beliefs, bundled, shapes_meant
from dreamfusion.evaluation.janus import VIEWS, judge_ring, ring_belief
from dreamfusion.evaluation.judged_views import ring
from dreamfusion.priors.outlines import shape_of

PROMPT = "a red armchair"


def ring_of(prompt: str, turned_deg: float = 0.0) -> tuple[Tensor, Tensor]:
    """Twelve pictures of the first shape of a prompt, and their coverage, of a thing that is turned about the vertical."""
    prior = bundled()
    cameras = around()[::2].clone()
    cameras[:, 0] += math.radians(turned_deg)
    with torch.no_grad():
        thing, look = shape_of(prior.layout, shapes_meant(prompt)[0]), prior.embed([prompt])[0].look[None]
        drawn = prior.layout.draw(thing, look, cameras).float()
    return (drawn[:, :3] + 1) / 2, drawn[:, 3]


def test_the_cameras_are_those_of_the_ring() -> None:
    cameras, seen = around()[::2], ring().cameras
    torch.testing.assert_close(cameras[:, 0], seen.azimuth)
    torch.testing.assert_close(cameras[:, 1], seen.elevation)
    torch.testing.assert_close(cameras[:, 2], seen.radius)


def test_an_azimuth_between_two_classes_belongs_to_both() -> None:
    errors = torch.ones(3, 2, STEPS)
    errors[0, 0, 0] = errors[1, 1, 3] = errors[2, 0, STEPS - 1] = 0
    told = beliefs(errors)
    assert told.shape == (3, VIEWS)
    torch.testing.assert_close(told.sum(1), torch.ones(3))
    assert told[0, 0] == pytest.approx(1, abs=1e-5)
    assert told[1, [1, 2]].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
    assert told[2, [0, 11]].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)


@pytest.mark.parametrize("turned", [0, 90])
def test_the_side_of_a_known_thing_is_told(turned: int) -> None:
    told = azimuths(*ring_of(PROMPT, turned), PROMPT)
    assert told.argmax(1).tolist() == [(k + turned // 30) % VIEWS for k in range(VIEWS)]
    found = judge_ring(ring_belief(told))
    assert (found.fronts, found.janus) == (1, False)
    assert ((found.facing_deg or 0) + turned) % 360 in (0, 30, 330)


def test_a_thing_with_two_faces_is_found_out() -> None:
    pictures, cover = ring_of(PROMPT)
    order = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2, 9, 10, 11])  # seen from behind, its front once more
    assert judge_ring(ring_belief(azimuths(pictures[order], cover[order], PROMPT))).janus


def test_things_that_nobody_knows_have_no_sides() -> None:
    with pytest.raises(UserError, match="the sides of 'a glorbl' cannot be told"):
        azimuths(torch.zeros(12, 3, 64, 64), torch.zeros(12, 64, 64), "a glorbl")
    assert shapes_meant("a glorbl") == [] and shapes_meant("a teddy bear")
