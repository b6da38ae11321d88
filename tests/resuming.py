"""Runs that are cut and go on end as if they had not been cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from dreamfusion.priors.prior import Prior
from dreamfusion.settings.config import Config
from dreamfusion.trainer import Trainer


def resumes_bit_exactly(config: Config, prior: Callable[[], Prior], steps: int, cuts: Sequence[int]) -> None:
    """Cut after each of ``cuts`` steps and restored in a new trainer, the state after ``steps`` is the same, bit by bit."""
    whole = Trainer(config, prior())
    for _ in range(steps):
        whole.step()
    for cut in cuts:
        part = Trainer(config, prior())
        for _ in range(cut):
            part.step()
        tensors, meta = part.state()
        other = Trainer(config, prior())
        other.restore({k: v.clone() for k, v in tensors.items()}, meta)
        for _ in range(steps - cut):
            other.step()
        one, same = whole.state()[0], other.state()[0]
        assert one.keys() == same.keys() and all(torch.equal(one[k], same[k]) for k in one), cut
