"""The rasteriser of gsplat (Ye et al. 2025; Apache License 2.0), for NVIDIA GPUs where it is installed. dreamfusion does not
need it and does not come with it.

It differs in small ways from ``splatting.PLAIN``: it sorts by the distance along the optical axis, and it keeps the derivative
of the perspective within 1.3 pictures of the middle. The adapter follows its documentation and has not run on a GPU yet.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .splatting import BLUR, PLAIN, Footprints, Lens, Splatter


class GSplat:
    """See ``splatting.Splatter``. ``library`` is gsplat. Projection is plain; compositing, which costs most, is gsplat's."""

    TILE = 16

    def __init__(self, library: Any):
        self.library = library

    def project(self, centres: Tensor, covariances: Tensor, lens: Lens) -> Footprints:
        return PLAIN.project(centres, covariances, lens)

    def composite(self, seen: Footprints, opacity: Tensor, features: Tensor, distance: Tensor, size: int) -> Tensor:
        a, b, c = seen.conic.detach().unbind(-1)
        area = a * c - b * b
        reach = 3.33 * torch.stack([c / area, a / area], -1).clamp_min(BLUR).sqrt()
        radii = torch.where(seen.kept[..., None] > 0, reach.ceil(), 0.0).int()
        tiles = -(-size // self.TILE)
        _, ids, flat = self.library.isect_tiles(seen.place.detach(), radii, distance.detach(), self.TILE, tiles, tiles)
        offsets = self.library.isect_offset_encode(ids, len(seen.place), tiles, tiles)
        picture, alpha = self.library.rasterize_to_pixels(
            seen.place, seen.conic, features.contiguous(), opacity, size, size, self.TILE, offsets, flat
        )
        return torch.cat([picture, alpha], -1)


@cache
def gsplat() -> Splatter | None:
    """gsplat's rasteriser; None if it is not installed. It needs an NVIDIA GPU."""
    try:
        import gsplat as library  # type: ignore[import-not-found]
    except ImportError:
        return None
    return GSplat(library)
