"""Which part of a picture is finer than fewer pixels can hold, as benchmarks/finer.py measures it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def waves(cycles: int, size: int = 128) -> torch.Tensor:
    """A picture (1, 3, size, size) of a wave along its rows."""
    x = (torch.arange(size) + 0.5) / size
    return (0.5 + 0.4 * (2 * math.pi * cycles * x).sin()).expand(1, 3, size, size)


def test_a_wave_is_finer_than_pixels_that_are_longer_than_half_of_it() -> None:
    from finer import share_above

    assert share_above(waves(5), 16) == pytest.approx(0, abs=1e-6)
    assert share_above(waves(12), 16) == pytest.approx(1, abs=1e-6)
    both = waves(5) + waves(12).mT / 2  # a quarter of the power
    assert share_above(both, 16) == pytest.approx(0.2, abs=1e-5)


def test_fewer_pixels_enlarged_keep_what_they_can_hold() -> None:
    from finer import at, enlarged
    from images import psnr

    coarse, fine = (psnr(enlarged(at(x, 32)), at(x, 64)) for x in (waves(2), waves(24)))
    assert coarse > 40 and fine < 20
