"""What all radiance fields share: activation, the initial blob, rendering."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor, nn

from dreamfusion.config import SceneSettings
from dreamfusion.scene import sampling, volume
from dreamfusion.scene.base import Rays, Rendering, Shading
from dreamfusion.scene.occupancy import Occupancy
from dreamfusion.scene.volume import Frustums

# sigma(raw) = density_scale * softplus(SHARPNESS * raw - SHIFT). With the defaults, empty space (raw 0) has a density
# of 0.03 / world unit (6 % opacity through the whole sphere), the blob's centre (raw 5) 70, its one-sigma shell 10.
SHARPNESS = 2.0
SHIFT = 6.5
AT_ONCE = 1 << 15  # rays; large pictures without gradients are drawn in parts, to bound the memory


class RadianceField(nn.Module):
    """A density and an albedo in the unit sphere. Subclasses say ``network``, ``parameter_groups`` and ``harden``."""

    def __init__(self, settings: SceneSettings, occupancy_side: int):
        super().__init__()
        self.settings = settings
        self.occupancy = Occupancy(occupancy_side, settings.samples)
        # A field of latents turns them into colours by a linear map, but for renderings of the latents themselves.
        self.palette: nn.Module = nn.Identity() if settings.channels == 3 else nn.Linear(settings.channels, 3)

    def network(self, points: Tensor, frustums: Frustums | None, colour: bool) -> tuple[Tensor, Tensor | None]:
        """Learned part: raw density (P,) and albedo logits (P, 3) (None if not asked for) at points (P, 3)."""
        raise NotImplementedError

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning rate: 'grid' (features) and 'head' (MLP weights)."""
        raise NotImplementedError

    def harden(self, factor: float) -> None:
        """Multiply the learned raw density by ``factor``, in place (see ``base.Scene.harden``)."""
        raise NotImplementedError

    def blob(self, points: Tensor) -> Tensor:
        """height * exp(-|x|^2 / (2 width^2)), (P,): the run starts from something (Poole et al. 2022, A.2)."""
        variance = self.settings.density_bias_width**2
        return self.settings.density_bias * torch.exp(-points.square().sum(-1) / (2 * variance))

    def activate(self, raw: Tensor) -> Tensor:
        """Density in 1 / world unit of a raw density."""
        return self.settings.density_scale * torch.nn.functional.softplus(SHARPNESS * raw - SHIFT)

    def query(
        self, points: Tensor, frustums: Frustums | None = None, colour: bool = True, latent: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Raw density (P,), blob included, and albedo (P, 3), or with ``latent`` the field's latents (P, channels)."""
        raw, logits = self.network(points, frustums, colour)
        raw = raw + self.blob(points)
        if logits is None:
            return raw, None
        return raw, self.coloured(logits, latent)

    def coloured(self, logits: Tensor, latent: bool) -> Tensor:
        """Albedo (P, 3) of logits (P, channels), or with ``latent`` the latents (P, channels) they stand for."""
        albedo = torch.sigmoid(logits)
        return albedo if latent or self.settings.channels == 3 else self.palette(albedo).clamp(0, 1)

    def query_steep(
        self, points: Tensor, frustums: Frustums | None = None, colour: bool = True, latent: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """``query``, and the gradient (P, 3) of the raw density by the points."""
        return volume.query_by_autograd(self, points, frustums, colour, latent)

    def set_palette(self, weight: Tensor, bias: Tensor) -> None:
        """Start the map from latents to colours: weight (3, channels), bias (3,)."""
        assert isinstance(self.palette, nn.Linear)
        with torch.no_grad():
            self.palette.weight.copy_(weight)
            self.palette.bias.copy_(bias)

    def occupied(self, points: Tensor) -> Tensor:
        """False (P,) where the density is known to be negligible."""
        return self.occupancy.lookup(points)

    def density(self, points: Tensor) -> Tensor:
        """Density (P,) in 1 / world unit at points (P, 3); zero outside the unit sphere."""
        sigma = self.activate(self.query(points, colour=False)[0])
        return torch.where(points.square().sum(-1) < 1, sigma, 0.0)

    def albedo(self, points: Tensor) -> Tensor:
        """Albedo (P, 3) in [0, 1] at points (P, 3)."""
        albedo = self.query(points)[1]
        assert albedo is not None
        return albedo

    def after_step(self, step: int) -> None:
        """Refresh the occupancy when it is time."""
        self.occupancy.after_step(self.density, step)

    def render(
        self,
        rays: Rays,
        shading: Shading,
        light: Tensor,
        ambient: float,
        generator: torch.Generator | None = None,
        samples: int | None = None,
        latent: bool = False,
    ) -> Rendering:
        """Render rays (see ``base.Scene.render``)."""
        near, far = sampling.unit_sphere(rays.origins, rays.directions)
        offset = sampling.ray_offsets(near, generator)
        samples = samples or self.settings.samples
        if torch.is_grad_enabled() or len(near) <= AT_ONCE:
            return self.render_between(rays, shading, light, ambient, near, far, offset, samples, latent)
        parts = []
        for low in range(0, len(near), AT_ONCE):
            i = slice(low, low + AT_ONCE)
            some = Rays(rays.origins[i], rays.directions[i], rays.pixel_radius)
            cut = near[i], far[i], offset[i]
            parts.append(self.render_between(some, shading, light[i], ambient, *cut, samples, latent))
        return Rendering(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Rendering)))

    def place(self, rays: Rays, near: Tensor, far: Tensor, offset: Tensor, samples: int) -> sampling.Samples:
        """Where to look along the rays."""
        return sampling.regular_samples(near, far, samples, offset)

    def render_between(
        self,
        rays: Rays,
        shading: Shading,
        light: Tensor,
        ambient: float,
        near: Tensor,
        far: Tensor,
        offset: Tensor,
        samples: int,
        latent: bool = False,
    ) -> Rendering:
        """Render rays from near to far (N,) with each ray's samples shifted by offset (N,)."""
        where = self.place(rays, near, far, offset, samples)
        return volume.render(self, rays, where, shading, light, ambient, latent)
