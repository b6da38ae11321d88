"""Splats to begin with. N splats."""

from __future__ import annotations

import math

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .harmonics import coefficients_of
from .scene_settings import SplatSettings

NEIGHBOURS = 3
LARGEST = 0.2  # world units


def spacing(centres: Tensor) -> Tensor:
    """Mean distance (N,) of each centre (N, 3) from its three nearest neighbours (Kerbl et al. 2023, section 5.1), at most
    ``LARGEST``."""
    places = centres.double().cpu().numpy()
    if len(places) <= NEIGHBOURS:
        return centres.new_full((len(places),), LARGEST)
    far, _ = cKDTree(places).query(places, k=NEIGHBOURS + 1)
    return torch.from_numpy(far[:, 1:].mean(1)).to(centres).clamp(1e-4, LARGEST)


def round_splats(centres: Tensor, colours: Tensor, settings: SplatSettings) -> dict[str, Tensor]:
    """Balls at centres (N, 3) in colours (N, 3), as large as their spacing."""
    count = len(centres)
    rotations = centres.new_zeros(count, 4)
    rotations[:, 0] = 1
    return {
        "centres": centres,
        "log_scales": spacing(centres).log()[:, None].repeat(1, 3),
        "rotations": rotations,
        "logits": centres.new_full((count,), math.log(settings.opacity / (1 - settings.opacity))),
        "harmonics": coefficients_of(colours, settings.degree),
    }


def ball(settings: SplatSettings, generator: torch.Generator) -> dict[str, Tensor]:
    """Gray splats, uniform in a ball (as in DreamGaussian, Tang et al. 2023)."""
    direction = torch.nn.functional.normalize(torch.randn(settings.count, 3, generator=generator), dim=-1)
    radius = settings.radius * torch.rand(settings.count, 1, generator=generator) ** (1 / 3)
    return round_splats(direction * radius, torch.full((settings.count, 3), 0.5), settings)
