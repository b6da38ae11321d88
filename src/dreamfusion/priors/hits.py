"""What rays hit of a thing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..view.cameras import Cameras
from ..view.view import hues


@dataclass(frozen=True)
class Hits:
    """The N of V x R x R rays that hit a thing, from V cameras with R rays a side.

    ray (N,): their numbers; albedo (N, 3); normal (N, 3) in the world, not quite of length one; place (N, 3) in the world;
    opacity (N,); textured (N, 3): the place in the thing's own frame, before it was stretched.
    """

    cameras: Cameras
    side: int
    ray: Tensor
    albedo: Tensor
    normal: Tensor
    place: Tensor
    opacity: Tensor
    textured: Tensor

    @property
    def view(self) -> Tensor:
        """Which camera's ray each is, (N,)."""
        return self.ray // self.side**2

    def distance(self) -> Tensor:
        """From the camera, (N,)."""
        return (self.place - self.cameras.positions()[self.view]).norm(dim=1)

    def facing(self) -> Tensor:
        """Colours (N, 3) of the normals, as ``Rendering.facing`` has them."""
        axes = torch.stack(self.cameras.axes(), 1)[self.view]
        return (torch.einsum("nij,nj->ni", axes, F.normalize(self.normal, dim=1)) + 1) / 2

    def nearness(self) -> Tensor:
        """Colours (N, 3) of how near it is, as ``Rendering.nearness`` has them."""
        return hues(self.cameras.radius[self.view] - self.distance())

    def pictures(self, values: Tensor) -> Tensor:
        """(V, C, R, R) of (N, C); zero elsewhere."""
        out = values.new_zeros(len(self.cameras) * self.side**2, values.shape[1])
        out[self.ray] = values
        return out.view(len(self.cameras), self.side, self.side, -1).permute(0, 3, 1, 2)
