"""How a point of the surface is lit (Poole et al. 2022, eq. 7)."""

from __future__ import annotations

from torch import Tensor

from ..view.view import Shading

CLAY = 0.8  # the gray that 'a clay model' is made of


def light_factor(normal: Tensor, light: Tensor, ambient: float) -> Tensor:
    """ambient + (1 - ambient) max(0, n . l), (N,); normal and light (N, 3)."""
    return ambient + (1 - ambient) * (normal * light).sum(-1).clamp_min(0)


def shade(albedo: Tensor | None, normal: Tensor, light: Tensor, ambient: float, shading: Shading) -> Tensor:
    """Colour (N, 3) of points with albedo (N, 3). ``textureless`` needs no albedo; the albedo of ``latent`` has any
    width."""
    if shading == "textureless":
        return CLAY * light_factor(normal, light, ambient)[:, None].expand(-1, 3)
    assert albedo is not None
    return albedo * light_factor(normal, light, ambient)[:, None] if shading == "lambertian" else albedo
