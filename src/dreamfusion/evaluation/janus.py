"""The Janus score: how many fronts does a thing show on the way round it? One is right; a second one is the many-faced
failure of 2D priors (Poole et al. 2022, section 5).

The judge's view head says of a picture from which azimuth it shows the thing; a view reads as a front where it gives
azimuths within 45 degrees of the front more than half of its belief.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip.network import FRONTS

VIEWS = 12
BELIEF = 0.5


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
    """The view head's answer (B, 12) as the probability (B,) that a front is seen."""
    return azimuths[:, list(FRONTS)].sum(1)


def judge_ring(belief: Tensor) -> Janus:
    """Count the fronts of beliefs (V,) at V evenly spaced azimuths, the first at 0 degrees.

    Views that read as fronts belong to one front unless at least 60 degrees of other views stand between them: a single
    doubtful view does not split a front in two.
    """
    count = len(belief)
    front = [bool(x > BELIEF) for x in belief.tolist()]
    if not any(front):
        return Janus(0, None, False)
    places = [i for i in range(count) if front[i]]
    gaps = [(b - a - 1) % count for a, b in zip(places, [*places[1:], places[0] + count], strict=True)]
    separations = sum(gap * 360 >= 60 * count for gap in gaps)
    strongest = int(torch.argmax(belief))
    opposite = front[(strongest + count // 2) % count]
    return Janus(max(1, separations), 360.0 * strongest / count, opposite)
