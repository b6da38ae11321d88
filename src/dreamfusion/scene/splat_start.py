"""Splats to begin with. N splats."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..geometry.distance import surface_samples
from ..geometry.mesh_file import read_mesh
from ..geometry.splat_file import PointCloud, is_cloud, read_cloud
from ..geometry.surface import Surface
from .harmonics import coefficients_of, of_degree
from .scene_settings import SplatSettings

NEIGHBOURS = 3
LARGEST = 0.2  # world units
FLAT, WIDE, SUNK = 0.7, 1.1, 0.9
"""A splat that begins on a surface: its thickness in its width, its width and its depth below the surface in its spacing. So the
splats' outline is that of the surface."""
SOLID = 0.5
"""Its opacity: where several overlap, their mean depth is smoother than that of one."""


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


def on_surface(centres: Tensor, normals: Tensor, colours: Tensor, settings: SplatSettings) -> dict[str, Tensor]:
    """Flat splats just below points, with normals and colours, all (N, 3)."""
    splats = round_splats(centres, colours, settings)
    splats["centres"] = centres - SUNK * spacing(centres)[:, None] * normals
    splats["log_scales"] += math.log(WIDE)
    splats["log_scales"][:, 2] += math.log(FLAT)
    splats["logits"] = torch.full_like(splats["logits"], math.log(SOLID / (1 - SOLID)))
    x, y, z = normals.unbind(1)
    turned = torch.stack([1 + z, -y, x, torch.zeros_like(z)], 1)  # from +Z to the normal
    about_x = normals.new_tensor([0.0, 1, 0, 0]).expand_as(turned)
    splats["rotations"] = torch.where((z > -0.999)[:, None], turned, about_x)
    return splats


def from_surface(surface: Surface, settings: SplatSettings, rng: torch.Generator) -> dict[str, Tensor]:
    """``count`` splats on a surface, uniform by area, in its colours."""
    seed = int(torch.randint(2**31, (1,), generator=rng))
    where, normals = (torch.from_numpy(x).float() for x in surface_samples(surface.mesh, settings.count, seed))
    return on_surface(where, normals, surface.colour(where, normals).float(), settings)


def from_file(settings: SplatSettings) -> dict[str, Tensor]:
    """The splats of ``settings.file``: its own, or balls at its points, or flat gray ones on its faces. UserError if it is
    none of these."""
    if not is_cloud(settings.file):
        where, normals = (
            torch.from_numpy(x).float() for x in surface_samples(read_mesh(settings.file), settings.count)
        )
        return on_surface(where, normals, torch.full_like(where, 0.5), settings)
    held = read_cloud(settings.file)
    if isinstance(held, PointCloud):
        return round_splats(torch.from_numpy(held.centres).float(), torch.from_numpy(held.colours).float(), settings)
    given = {name: torch.from_numpy(np.asarray(value)).float() for name, value in vars(held).items()}
    return given | {"harmonics": of_degree(given["harmonics"], settings.degree)}
