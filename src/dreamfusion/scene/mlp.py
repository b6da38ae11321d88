"""The paper's kind of field: an MLP that reads an integrated positional encoding (mip-NeRF, mip-NeRF 360)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..view.backdrops import Groups
from . import ray_samples
from .field import RadianceField
from .ray_samples import Samples
from .rays import Rays
from .scene_settings import MlpSettings
from .volume import Frustums

if TYPE_CHECKING:
    from ..kernels.mlp_pass import Memory

OCCUPANCY_SIDE = 48
POINT_VARIANCE = (1 / 256) ** 2  # blur of a point that is sampled without a cone, world units squared


def frustum_gaussian(distance: Tensor, width: Tensor, base_radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean distance, variance along and variance across the axis, (P,) each, of conical frustums.

    Barron et al. 2021 (mip-NeRF), eq. 7: t_mu is the middle ``distance``, t_delta half the ``width``, and
    ``base_radius`` the cone's radius at distance 1.
    """
    m2, h2 = distance**2, (width / 2) ** 2
    base = 3 * m2 + h2
    mean = distance + 2 * distance * h2 / base
    along = h2 / 3 - (4 / 15) * h2**2 * (12 * m2 - h2) / base**2
    across = base_radius**2 * (m2 / 4 + 5 * h2 / 12 - (4 / 15) * h2**2 / base)
    return mean, along, across


def integrated_encoding(mean: Tensor, variance: Tensor, octaves: int) -> Tensor:
    """E[sin(2^l x)], E[cos(2^l x)] of Gaussians, (P, 6 * octaves); mean and (diagonal) variance (P, 3).

    Barron et al. 2021, eq. 14: sin(2^l mean) exp(-4^l variance / 2), and the same with cos.
    """
    scale = 2.0 ** torch.arange(octaves, device=mean.device, dtype=mean.dtype)
    phase = (mean[:, None] * scale[:, None]).flatten(1)
    fade = torch.exp(-0.5 * (variance[:, None] * scale[:, None] ** 2).flatten(1))
    return torch.cat([fade * phase.sin(), fade * phase.cos()], -1)


class MlpField(RadianceField):
    """A trunk of residual layers (swish, layer norm: Poole et al. 2022, A.2), heads for raw density and albedo."""

    settings: MlpSettings

    def __init__(self, settings: MlpSettings, generator: torch.Generator):
        super().__init__(settings, OCCUPANCY_SIDE)
        wide = settings.hidden

        def linear(inputs: int, outputs: int, bound: float) -> nn.Linear:
            layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=generator.device)
            with torch.no_grad():
                layer.weight.copy_(
                    (torch.rand(outputs, inputs, generator=generator, device=generator.device) * 2 - 1) * bound
                )
                layer.bias.zero_()
            return layer

        inputs = 6 * settings.frequencies
        self.first = linear(inputs, wide, math.sqrt(3 / inputs))
        self.norms = nn.ModuleList(nn.LayerNorm(wide) for _ in range(settings.depth - 1))
        self.layers = nn.ModuleList(linear(wide, wide, math.sqrt(3 / wide)) for _ in range(settings.depth - 1))
        self.out = linear(wide, 1 + settings.channels, 0.3 / math.sqrt(wide))
        self.to(generator.device)
        self._memory: Memory | None = None

    def groups(self) -> Groups:
        return {"head": (dict(self.named_parameters()), self.settings.lr_head)}

    @torch.no_grad()
    def harden(self, factor: float) -> None:
        self.out.weight[0] *= factor
        self.out.bias[0] *= factor

    def gaussian(self, points: Tensor, frustums: Frustums | None) -> tuple[Tensor, Tensor]:
        """Mean and diagonal variance, (P, 3) each, of the sampled regions (Barron et al. 2021, eqs. 8, 15, 16)."""
        if frustums is None:
            return points, torch.full_like(points, POINT_VARIANCE)
        base_radius = frustums.pixel_radius * 2 / math.sqrt(3)  # matches the variance of the pixel's square
        mean, along, across = frustum_gaussian(frustums.distance, frustums.width, base_radius)
        squares = frustums.direction**2
        variance = along[:, None] * squares + across[:, None] * (1 - squares)
        return points + (mean - frustums.distance)[:, None] * frustums.direction, variance

    def network(self, points: Tensor, frustums: Frustums | None, colour: bool) -> tuple[Tensor, Tensor | None]:
        x = self.first(integrated_encoding(*self.gaussian(points, frustums), self.settings.frequencies))
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(nn.functional.silu(norm(x)))
        out = self.out(nn.functional.silu(x))
        return out[:, 0], out[:, 1:] if colour else None

    def fast(self, points: Tensor) -> bool:
        """Whether there is a fast path for these points: on a CPU, in float32, where it was not told otherwise."""
        alike = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in (points, self.first.weight))
        return self.settings.fast and alike

    def query_steep(
        self, points: Tensor, frustums: Frustums | None = None, colour: bool = True, latent: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        if not self.fast(points):
            return super().query_steep(points, frustums, colour, latent)
        from ..kernels import mlp_pass  # the compiler is slow to load, and not needed elsewhere

        self._memory = self._memory or mlp_pass.Memory()
        out, gradient = mlp_pass.network(
            self._memory, self, self.settings.frequencies, *self.gaussian(points, frustums)
        )
        blob = self.blob(points)
        raw, gradient = out[:, 0] + blob, gradient - (blob / self.settings.density_bias_width**2)[:, None] * points
        return raw, self.coloured(out[:, 1:], latent) if colour else None, gradient

    def density(self, points: Tensor) -> Tensor:
        learning = torch.is_grad_enabled() and (points.requires_grad or self.first.weight.requires_grad)
        if learning or not self.fast(points):
            return super().density(points)
        from ..kernels import mlp_pass

        inside = points.square().sum(-1) < 1
        some = points[inside]
        raw = mlp_pass.raw_density(self, self.settings.frequencies, *self.gaussian(some, None)) + self.blob(some)
        return torch.zeros(len(points)).masked_scatter(inside, self.activate(raw))

    def samples_along(self, rays: Rays, near: Tensor, far: Tensor, samples: int, offset: Tensor) -> Samples:
        """With ``importance`` set: where the occupancy remembers something (``ray_samples.placed_samples``).

        A rendering with more than the usual ``samples`` gets as many times more of these."""
        settings = self.settings
        if not settings.importance:
            return super().samples_along(rays, near, far, samples, offset)
        if not self.occupancy.started:
            self.occupancy.refresh(self.density, 0)
        finer = samples / settings.samples
        most, limit = math.ceil(settings.importance * finer), int(settings.mean_importance * finer * len(near))
        if self.fast(rays.origins):
            from ..kernels import proposal_rays

            memory = self.occupancy.values, self.occupancy.cells
            length, share, opacity = proposal_rays.remembered_shares(
                (rays.origins, rays.directions, near, far), samples, memory, (self.occupancy.vague, *ray_samples.RULE)
            )
            counts = ray_samples.sample_counts(opacity, length, most, limit)
            return Samples(*proposal_rays.placed_samples(near, length, share, counts, offset))
        middle, length = ray_samples.bins(near, far, samples)
        points = (rays.origins[:, None] + middle[..., None] * rays.directions[:, None]).reshape(-1, 3)
        length = length * self.occupied(points).reshape(length.shape)
        share, opacity = ray_samples.shares(self.occupancy.remembered(points).reshape(length.shape), length)
        counts = ray_samples.sample_counts(opacity, length, most, limit)
        return ray_samples.placed_samples(near, length, share, counts, offset)
