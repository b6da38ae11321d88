"""Frozen diffusion priors. ``load_prior`` is the one way to get one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import UserError, nearest

if TYPE_CHECKING:
    from .bundled import BundledPrior

NAMES = ("bundled",)


def load_prior(id: str = "bundled", device: str | torch.device = "cpu", precision: str = "auto") -> BundledPrior:
    """Load a prior by name, or from a safetensors file of the bundled kind; UserError for anything else."""
    from .bundled import WEIGHTS, BundledPrior

    if id == "bundled":
        return BundledPrior(WEIGHTS, device, precision)
    if id.endswith(".safetensors"):
        return BundledPrior(Path(id), device, precision)
    raise UserError(f"unknown prior {id!r}{nearest(id, NAMES)}; a path must end in .safetensors")
