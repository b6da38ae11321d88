"""The rasteriser of nvdiffrast (Laine et al. 2020), for NVIDIA GPUs where it is installed. Its licence allows research and
evaluation only; dreamfusion does not need it and does not come with it.

It finds silhouettes only at the edges of the faces that pixels see, so meshes whose faces are smaller than a pixel have
harder edges than with ``raster.PLAIN``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .rasteriser import Rasteriser


class NvDiffRast:
    """See ``raster.Rasteriser``. ``library`` is ``nvdiffrast.torch``. Its pictures have the lowest row first."""

    def __init__(self, library: Any, context: Any):
        self.library, self.context = library, context

    def homogeneous(self, clip: Tensor) -> Tensor:
        """(x, y, z, w) with z / w from -1 to 1 for w from 0.1 to 100, (B, V, 4)."""
        x, y, w = clip.unbind(-1)
        near, far = 0.1, 100.0
        z = w * ((far + near) / (far - near)) - 2 * far * near / (far - near)
        return torch.stack([x, y, z, w], -1).contiguous()

    def rasterise(self, clip: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
        found, _ = self.library.rasterize(self.context, self.homogeneous(clip), faces.int(), (size, size))
        u, v, _, number = found.flip(1).unbind(-1)  # number counts from 1
        face = number.detach().long() - 1
        hit = (face >= 0)[..., None]
        return face, torch.where(hit, torch.stack([u, v, 1 - u - v], -1), torch.zeros((), device=clip.device))

    def interpolate(self, values: Tensor, faces: Tensor, face: Tensor, weights: Tensor) -> Tensor:
        corners = values[faces[face.clamp_min(0)]]
        return (weights[..., None] * corners).sum(-2) * (face >= 0)[..., None]

    def antialias(self, picture: Tensor, face: Tensor, clip: Tensor, faces: Tensor, neighbours: Tensor) -> Tensor:
        place, triangles, size = self.homogeneous(clip), faces.int(), face.shape[1]
        found, _ = self.library.rasterize(self.context, place.detach(), triangles, (size, size))
        soft = self.library.antialias(picture.flip(1).contiguous(), found, place, triangles)
        return soft.flip(1)


@cache
def nvdiffrast() -> Rasteriser | None:
    """nvdiffrast's rasteriser; None if it is not installed. It needs an NVIDIA GPU."""
    try:
        import nvdiffrast.torch as library  # type: ignore[import-not-found]
    except ImportError:
        return None
    return NvDiffRast(library, library.RasterizeCudaContext())
