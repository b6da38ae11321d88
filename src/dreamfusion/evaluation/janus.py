"""The Janus score: how many fronts a thing shows on the way around it. One is right; a second one is the many-faced
failure of 2D priors (Poole et al. 2022, section 5).

``facing`` says of a picture from which azimuth it shows the thing; a view reads as a front where it and its
two neighbours, turned back by what the camera turned between them, give azimuths within 45 degrees of the front more than
half of their belief. (One view alone is misread more often.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

VIEWS = 12
"""Views of a ring, and classes of azimuths: class k is within 15 degrees of 30 k."""
FRONTS = (0, 1, VIEWS - 1)
"""The classes within 45 degrees of the front."""
BELIEF = 0.5
DOUBT = 0.25
"""Two fronts are separated where the belief between them falls below this."""


@dataclass(frozen=True)
class Janus:
    """``fronts`` (separated ones), where the strongest is, whether the view opposite to it reads as a front too."""

    fronts: int
    facing_deg: float | None
    back_is_front: bool

    @property
    def janus(self) -> bool:
        """Two or more separated fronts, or a back that reads as a front."""
        return self.fronts >= 2 or self.back_is_front


def front_belief(azimuths: Tensor) -> Tensor:
    """Azimuths (B, 12) as the probability (B,) that a front is seen."""
    return azimuths[:, list(FRONTS)].sum(1)


def ring_belief(azimuths: Tensor) -> Tensor:
    """Azimuths (12, 12) all around a thing, from azimuth 0 on, as the probability (12,) that each view shows
    a front: the mean of what it says and what both neighbours say of it."""
    turned = [azimuths.roll((-k, -k), (0, 1)) for k in (-1, 0, 1)]  # what view i + k makes of view i
    return front_belief(torch.stack(turned).mean(0))


def judge_ring(belief: Tensor) -> Janus:
    """Count the fronts of beliefs (V,) at V evenly spaced azimuths, the first at 0 degrees.

    Views that read as fronts belong to one front unless the belief between them falls below ``DOUBT``: a single doubtful
    view does not split a front in two.
    """
    values = belief.tolist()
    count = len(values)
    places = [i for i, x in enumerate(values) if x > BELIEF]
    if not places:
        return Janus(0, None, False)
    separations = 0
    for here, there in zip(places, [*places[1:], places[0] + count], strict=True):
        separations += any(values[i % count] < DOUBT for i in range(here + 1, there))
    strongest = int(torch.argmax(belief))
    opposite = values[(strongest + count // 2) % count] > BELIEF
    return Janus(max(1, separations), 360.0 * strongest / count, opposite)
