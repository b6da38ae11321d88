"""Intervals: what a rate or a mean over a few assets says about more of them. All are 95 % intervals, unless stated otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def wilson(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share among ``count`` assets; (0, 1) if there are none.

    A share that is a mean over several views of each asset may lie between the counts; assets, not views, are counted,
    since the views of one asset stand or fall together: the interval is then rather too wide than too narrow.
    """
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def bootstrap(values: Sequence[float], level: float = 0.95, draws: int = 4000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean by resampling ``values`` (Efron 1979); NaN if there are none."""
    if len(values) == 0:
        return math.nan, math.nan
    data = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = data[rng.integers(len(data), size=(draws, len(data)))].mean(1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
