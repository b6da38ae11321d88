"""Where we look from. World: right-handed, Y up, the object's front looks along +Z, azimuth grows towards +X.

A camera stands at ``radius * (sin a cos e, sin e, cos a cos e)`` and looks at the origin. Camera axes are OpenGL's:
x to the right, y up, z back towards the viewer; the picture is square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import UserError
from ..torch_state import plain_torch
from .view_settings import ViewSettings

CONDITION_FOV_DEG = 47.0  # the field of view in which the prior's camera distance is measured


@dataclass(frozen=True)
class Cameras:
    """Azimuth and elevation in radians, radius in world units, full field of view in radians; all (B,)."""

    azimuth: Tensor
    elevation: Tensor
    radius: Tensor
    fov: Tensor

    def __len__(self) -> int:
        return len(self.azimuth)

    def __getitem__(self, some: slice) -> Cameras:
        return Cameras(*[getattr(self, f.name)[some] for f in fields(self)])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Cameras:
        """The same cameras on another device or in another precision."""
        return Cameras(
            self.azimuth.to(device, dtype), self.elevation.to(device, dtype),
            self.radius.to(device, dtype), self.fov.to(device, dtype),
        )  # fmt: skip

    def axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Camera axes in the world: right, up, back; each (B, 3), orthonormal, right x up = back."""
        a, e = self.azimuth, self.elevation
        back = torch.stack([a.sin() * e.cos(), e.sin(), a.cos() * e.cos()], -1)
        right = torch.stack([a.cos(), torch.zeros_like(a), -a.sin()], -1)
        return right, torch.linalg.cross(back, right), back

    def positions(self) -> Tensor:
        """Camera positions (B, 3) in world units."""
        return self.axes()[2] * self.radius[:, None]

    def rays(self, size: int) -> tuple[Tensor, Tensor]:
        """Origins (B, 1, 1, 3), and unit directions (B, size, size, 3) through the pixel centres, rows from the top, columns
        from the left."""
        half = torch.tan(self.fov / 2)[:, None, None, None]
        centres = (torch.arange(size, device=half.device, dtype=half.dtype) + 0.5) * (2 / size) - 1
        axes = self.axes()
        right, up, back = axes[0][:, None, None], axes[1][:, None, None], axes[2][:, None, None]
        x = half * centres[None, None, :, None]
        y = half * -centres[None, :, None, None]
        directions = torch.nn.functional.normalize(x * right + y * up - back, dim=-1)
        return (axes[2] * self.radius[:, None])[:, None, None], directions

    def condition(self) -> Tensor:
        """What a prior is given, (B, 3): azimuth and elevation in radians and the apparent distance.

        The apparent distance is the one from which a 47 degree lens would draw the object equally large:
        radius * tan(fov / 2) / tan(47 deg / 2).
        """
        distance = self.radius * torch.tan(self.fov / 2) / math.tan(math.radians(CONDITION_FOV_DEG) / 2)
        return torch.stack([self.azimuth, self.elevation, distance], -1)

    @classmethod
    def of_condition(cls, condition: Tensor) -> Cameras:
        """The cameras with a 47 degree lens that are given like this, (B, 3)."""
        azimuth, elevation, distance = condition.float().unbind(-1)
        return cls(azimuth, elevation, distance, torch.full_like(distance, math.radians(CONDITION_FOV_DEG)))


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """(count,) float32 numbers, uniform in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def filling_fov(radius: Tensor) -> Tensor:
    """Full field of view, in radians, at which the unit sphere just fills the frame: 2 asin(1 / radius)."""
    return 2 * torch.asin(1 / radius)


def sample_cameras(settings: ViewSettings, count: int, generator: torch.Generator, group: int = 1) -> Cameras:
    """Draw ``count`` cameras, every number uniform in the settings' range.

    The cameras of a group follow one another: they share elevation and distance, and their azimuths are 360 / group degrees
    apart. ``count`` is a multiple of ``group``.

    With ``fit`` the lens of a near camera is widened until the unit sphere fills the frame.
    Raises UserError if a camera would have to stand inside the unit sphere.
    """
    groups = count // group
    azimuth = uniform(*settings.azimuth_deg, groups, generator).repeat_interleave(group)
    elevation = uniform(*settings.elevation_deg, groups, generator).repeat_interleave(group)
    radius = uniform(*settings.radius, groups, generator).repeat_interleave(group)
    azimuth = azimuth + (torch.arange(count) % group) * (360 / group)
    fov = torch.full_like(radius, math.radians(settings.fov_deg))
    if settings.fit:
        if settings.radius[0] <= 1:
            raise UserError(f"view.radius starts at {settings.radius[0]:g}; with view.fit it must be greater than 1")
        fov = torch.maximum(fov, filling_fov(radius))
    return Cameras(torch.deg2rad(azimuth), torch.deg2rad(elevation), radius, fov)


@plain_torch()
def orbit_cameras(
    azimuths_deg: Sequence[float], elevation_deg: float = 15.0, radius: float = 2.5, fov_deg: float = 47.0
) -> Cameras:
    """Cameras at the given azimuths that share elevation, radius and lens (turntables, previews, evaluation)."""
    azimuth = torch.tensor([math.radians(a) for a in azimuths_deg], dtype=torch.float32)
    same = torch.ones_like(azimuth)
    return Cameras(azimuth, same * math.radians(elevation_deg), same * radius, same * math.radians(fov_deg))
