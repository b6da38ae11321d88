"""Perp-Neg's words across views: which captions to blend for an azimuth, and which to move away from.

Armandpour et al. 2023, "Re-imagine the Negative Prompt Algorithm": between two named sides the captions' embeddings
are interpolated, and the captions of the wrong sides repel, with weights that decay as the view nears them. The weights'
form and constants are threestudio's (threestudio/models/prompt_processors/base.py: perp_neg_f_fs, _sf, _sb, _fsb); the
authors' own code (Perp-Neg/Perp-Neg-stablediffusion, stable-dreamfusion/nerf/utils.py) has other decays of the same kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Between:
    """(1 - share) of ``first`` and ``share`` of ``second``; weights of what 'front' and 'side' repel."""

    first: str
    second: str
    share: float
    front: float
    side: float


def decay(height: float, floor: float, r: float) -> float:
    """height * exp(-r / 2) + floor, never below 0: a weight that fades as r grows to 1."""
    return max(0.0, height * math.exp(-0.5 * r) + floor)


def between(azimuth_deg: float) -> Between:
    """The words for an azimuth in degrees (any turn)."""
    turn = abs((azimuth_deg + 180) % 360 - 180)
    if turn < 90:
        r = 1 - turn / 90  # 1 at the front, 0 at the side
        return Between("side", "front", r, decay(4.0, -2.426, r), decay(4.0, -2.426, 1 - r))
    r = 2 - turn / 90  # 1 at the side, 0 at the back
    return Between("back", "side", r, decay(1.0, 0.967, r), decay(1.0, -0.606, r))
