"""Volume rendering in plain PyTorch: the mathematics that every fast path must match. N = rays, M = samples per ray."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ..view.view import Shading
from .ray_samples import Samples
from .rays import RayRendering, Rays
from .shading import shade

OPAQUE = 1e-3  # a ray ends where its transmittance has fallen below this
NORMAL_EPS = 1e-4  # keeps normals and their gradients finite where the density is flat


class Field(Protocol):
    """What can be rendered: a raw density (before activation) and an albedo everywhere in the unit sphere."""

    def query(
        self, points: Tensor, frustums: Frustums | None, colour: bool, latent: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Raw density (P,) and, if asked for, albedo (P, 3), or latents (P, channels), at points (P, 3)."""
        ...

    def query_steep(
        self, points: Tensor, frustums: Frustums | None, colour: bool, latent: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The same, and the gradient (P, 3) of the raw density by the points (``query_by_autograd``, or faster)."""
        ...

    def activate(self, raw: Tensor) -> Tensor:
        """Density in 1 / world unit of a raw density."""
        ...

    def occupied(self, points: Tensor) -> Tensor:
        """False (P,) where the density is known to be negligible."""
        ...


class Frustums:
    """The piece of a pixel's cone around each point: direction (P, 3), distance and width (P,), pixel_radius."""

    def __init__(self, direction: Tensor, distance: Tensor, width: Tensor, pixel_radius: float):
        self.direction, self.distance, self.width, self.pixel_radius = direction, distance, width, pixel_radius


def ray_weights(optical: Tensor) -> Tensor:
    """Share of each sample in its ray's colour, (N, M), from optical thicknesses sigma_i * width_i (N, M).

    w_i = T_i (1 - exp(-sigma_i width_i)), T_i = exp(-sum_{j<i} sigma_j width_j) (Max 1995; Mildenhall et al. 2020,
    eq. 3); samples behind T_i < OPAQUE get nothing.
    """
    transmittance = torch.exp(optical - torch.cumsum(optical, -1))
    return torch.where(transmittance >= OPAQUE, transmittance * -torch.expm1(-optical), 0.0)


def unit_normal(gradient: Tensor) -> Tensor:
    """Outward normal -g / sqrt(|g|^2 + eps) of a density with gradient g (P, 3)."""
    return -gradient / (gradient.square().sum(-1, keepdim=True) + NORMAL_EPS).sqrt()


def query_by_autograd(
    field: Field, points: Tensor, frustums: Frustums | None, colour: bool, latent: bool = False
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Raw density, albedo and the gradient (P, 3) of the raw density by the points, by differentiating ``query``."""
    learning = torch.is_grad_enabled()
    with torch.enable_grad():  # normals are a derivative even where nothing is learned
        points = points.detach().requires_grad_()
        raw, albedo = field.query(points, frustums, colour, latent)
        (gradient,) = torch.autograd.grad(raw.sum(), points, create_graph=learning)
    if not learning:
        raw, albedo = raw.detach(), None if albedo is None else albedo.detach()
    return raw, albedo, gradient


def _kept_points(field: Field, rays: Rays, samples: Samples) -> tuple[Tensor, Tensor, Tensor, Frustums]:
    """The samples that may hold something: points (P, 3), their rays (P,), the mask (N, M), their frustums."""
    places = rays.origins[:, None] + samples.distance[..., None] * rays.directions[:, None]
    keep = samples.inside & field.occupied(places.reshape(-1, 3)).reshape(samples.inside.shape)
    ray = keep.nonzero()[:, 0]
    frustums = Frustums(rays.directions[ray], samples.distance[keep], samples.width[keep], rays.pixel_radius)
    return places[keep], ray, keep, frustums


def render(field: Field, rays: Rays, samples: Samples, shading: Shading, light: Tensor, ambient: float) -> RayRendering:
    """Render rays through the given samples; ``light`` (N, 3) points from the object towards the key light."""
    points, ray, keep, frustums = _kept_points(field, rays, samples)
    raw, albedo, gradient = field.query_steep(points, frustums, shading != "textureless", shading == "latent")
    normal = unit_normal(gradient)
    colour = shade(albedo, normal, light[ray], ambient, shading)
    optical = torch.zeros_like(samples.distance).masked_scatter(keep, field.activate(raw) * samples.width[keep])
    weights = ray_weights(optical)
    weight = weights[keep]
    away = (normal * rays.directions[ray]).sum(-1).clamp_min(0).square()

    what = torch.cat(
        [colour, torch.ones_like(away)[:, None], samples.distance[keep][:, None], normal, away[:, None]], 1
    )
    total = what.new_zeros((len(rays.origins), what.shape[1])).index_add(0, ray, weight[:, None] * what)
    colour, opacity, depth, normal, orientation = total.split([colour.shape[1], 1, 1, 3, 1], 1)
    seen = RayRendering(colour, opacity[:, 0], depth[:, 0], normal, orientation[:, 0])
    if not torch.is_grad_enabled():
        return seen
    return replace(seen, emptiness=emptiness(weights), depth_variance=depth_variance(weights, samples.distance))


def emptiness(weights: Tensor) -> Tensor:
    """mean log(1 + 10 w) over the samples, (N,), of weights (N, M): thin fog costs most for what it shows (Wang et al. 2022,
    SJC, eq. 17)."""
    return (10 * weights).log1p().mean(-1)


def depth_variance(weights: Tensor, distance: Tensor) -> Tensor:
    """Variance (N,) of the distance along each ray, by its weights divided by their sum (Zhu et al. 2023, HiFA, eq. 13): 0 for
    one hard surface. Rays that see less than half opacity are left out."""
    total = weights.sum(-1)
    share = weights / total.clamp_min(1e-6)[:, None]
    mean = (share * distance).sum(-1, keepdim=True)
    return torch.where(total > 0.5, (share * (distance - mean).square()).sum(-1), 0.0)
