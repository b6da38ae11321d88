"""What all radiance fields share: activation, the initial blob, rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..geometry.export_settings import ExportSettings
from ..geometry.mesh_file import read_mesh
from ..geometry.surface import Surface, volume_surface
from ..schema import scheduled
from ..torch_state import plain_torch
from ..view.view import Shading, View
from . import ray_samples, volume
from .mesh_guide import MeshGuide
from .occupancy import Occupancy
from .particles import shown_of
from .ray_samples import Samples
from .rays import RayRendering, Rays, camera_rays
from .scene import Moments, Rendering, Scene
from .scene_settings import FieldSettings, same_thing
from .transfer import Volume, resample
from .volume import Frustums

# sigma(raw) = density_scale * softplus(SHARPNESS * raw - SHIFT). With the defaults, empty space (raw 0) has a density
# of 0.03 / world unit (6 % opacity through the whole sphere), the blob's centre (raw 5) 70, its one-sigma shell 10.
SHARPNESS = 2.0
SHIFT = 6.5
ALWAYS = [f.name for f in fields(RayRendering) if f.default is MISSING]
AT_ONCE = 1 << 13  # rays; large pictures without gradients are drawn in parts, to bound the memory


class Way(Protocol):
    """One way to render a field's rays. All ways agree up to rounding."""

    def suits(self, field: Any, rays: Rays, shading: Shading) -> bool:
        """Whether this way can render these rays of this field."""
        ...

    def render(
        self,
        field: Any,
        rays: Rays,
        shading: Shading,
        light: Tensor,
        ambient: float,
        near: Tensor,
        far: Tensor,
        offset: Tensor,
        samples: int,
    ) -> RayRendering:
        """See ``RadianceField.render_between``."""
        ...  # fmt: skip


class Plain:
    """``volume.render``: suits all fields."""

    def suits(self, field: RadianceField, rays: Rays, shading: Shading) -> bool:
        return True

    def render(
        self, field: RadianceField, rays: Rays, shading: Shading, light: Tensor, ambient: float, near: Tensor, far: Tensor,
        offset: Tensor, samples: int,
    ) -> RayRendering:  # fmt: skip
        where = field.samples_along(rays, near, far, samples, offset)
        return volume.render(field, rays, where, shading, light, ambient)


PLAIN = Plain()


class RadianceField(Scene):
    """A density and an albedo in the unit sphere. Subclasses define ``network``, ``groups`` and ``harden``."""

    def __init__(self, settings: FieldSettings, occupancy_side: int):
        super().__init__()
        self.settings = settings
        self._guide: MeshGuide | None = None
        self.occupancy = Occupancy(occupancy_side, settings.samples)
        # A linear map turns a field's latents into colours, except in renderings of the latents themselves.
        self.palette: nn.Module = nn.Identity() if settings.channels == 3 else nn.Linear(settings.channels, 3)

    def network(self, points: Tensor, frustums: Frustums | None, colour: bool) -> tuple[Tensor, Tensor | None]:
        """Learned part: raw density (P,) and albedo logits (P, 3) (None if not asked for) at points (P, 3)."""
        raise NotImplementedError

    def harden(self, factor: float) -> None:
        """Multiply the learned raw density by ``factor``, in place: dense space gets denser, empty space emptier."""
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

    @plain_torch()
    def density(self, points: Tensor) -> Tensor:
        """Density (P,) in 1 / world unit at points (P, 3), where the points are, on whatever device; zero outside the unit sphere."""
        here = points.to(self.occupancy.values.device)
        sigma = self.activate(self.query(here, colour=False)[0])
        return torch.where(here.square().sum(-1) < 1, sigma, 0.0).to(points.device)

    @plain_torch()
    def albedo(self, points: Tensor) -> Tensor:
        """Albedo (P, 3) in [0, 1] at points (P, 3), where the points are."""
        albedo = self.query(points.to(self.occupancy.values.device))[1]
        assert albedo is not None
        return albedo.to(points.device)

    def after_step(self, step: int, steps: int, moments: Moments) -> None:
        """Harden as the settings say, and refresh the occupancy when it is due."""
        hardening = self.settings.hardening
        growth = scheduled(hardening, step / steps) / scheduled(hardening, (step - 1) / steps)
        if growth != 1:
            self.harden(growth)
        self.occupancy.after_step(self.density, step)

    def soften(self, progress: float) -> None:
        """Take back what ``after_step`` has hardened until ``progress`` of the steps, so that the scene can begin again."""
        hardening = self.settings.hardening
        self.harden(scheduled(hardening, 0.0) / scheduled(hardening, progress))

    def as_volume(self) -> Volume | None:
        return self

    def surface(self, settings: ExportSettings) -> Surface:
        return volume_surface(self.density, self.albedo, settings)

    def is_like(self, other: Scene) -> bool:
        return isinstance(other, RadianceField) and same_thing(self.settings, other.settings)

    def begin_from(self, previous: Scene, rng: torch.Generator) -> None:
        resample(shown_of(previous), self, rng)

    @plain_torch()
    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        device = self.occupancy.values.device
        rays = camera_rays(view.cameras, view.size, device)
        lights = view.lights.to(device).repeat_interleave(view.size**2, 0)
        seen = self.render_rays(rays, view.shading, lights, view.ambient, rng).as_pictures(view.size)
        if not torch.is_grad_enabled() or not self.settings.sketch:
            return seen
        price = partial(self.mesh_guide().penalty, self.density, self.settings.sketch_width, rng)
        return replace(seen, penalties={**seen.penalties, "sketch": price})

    def mesh_guide(self) -> MeshGuide:
        """The guide of ``settings.sketch``, read once. UserError if it is no mesh."""
        if self._guide is None:
            self._guide = MeshGuide.of(read_mesh(self.settings.sketch), self.occupancy.values.device)
        return self._guide

    def begin(self) -> None:
        if self.settings.sketch:
            self.mesh_guide()  # says what is wrong with it

    def render_rays(
        self,
        rays: Rays,
        shading: Shading,
        light: Tensor,
        ambient: float,
        rng: torch.Generator | None = None,
        samples: int | None = None,
    ) -> RayRendering:
        """What rays see. ``light`` (N, 3): unit direction towards the key light, for each ray. With a generator the samples
        are jittered; without it they are in the middles of their intervals."""
        near, far = ray_samples.unit_sphere(rays.origins, rays.directions)
        offset = ray_samples.ray_offsets(near, rng)
        samples = samples or self.settings.samples
        if torch.is_grad_enabled() or len(near) <= AT_ONCE:
            return self.render_between(rays, shading, light, ambient, near, far, offset, samples)
        parts = []
        for low in range(0, len(near), AT_ONCE):
            i = slice(low, low + AT_ONCE)
            some = Rays(rays.origins[i], rays.directions[i], rays.pixel_radius)
            parts.append(self.render_between(some, shading, light[i], ambient, near[i], far[i], offset[i], samples))
        return RayRendering(*(torch.cat([getattr(p, name) for p in parts]) for name in ALWAYS))

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
    ) -> RayRendering:
        """Render rays from near to far (N,) with each ray's samples shifted by offset (N,), by the first way that can."""
        for way in self.ways():
            if way.suits(self, rays, shading):
                break
        return way.render(self, rays, shading, light, ambient, near, far, offset, samples)

    def ways(self) -> Sequence[Way]:
        """The ways to render this field, the fastest first."""
        return (PLAIN,)

    def samples_along(self, rays: Rays, near: Tensor, far: Tensor, samples: int, offset: Tensor) -> Samples:
        """The samples of the plain way."""
        return ray_samples.regular_samples(near, far, samples, offset)
