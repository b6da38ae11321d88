"""Drawing 3D Gaussians in plain PyTorch: the mathematics that the compiled kernels must match.

B = views, N = splats, C = channels, S x S pixels, rows from the top. A splat is the Gaussian exp(-r^T cov^-1 r / 2) about its
centre. In a picture it is the Gaussian exp(-q / 2) with q = a dx^2 + 2 b dx dy + c dy^2, by the affine approximation of the
perspective at its centre (Zwicker et al. 2001, "EWA splatting"). (a, b, c) is its ``conic``. Pixel (row, column) has its
centre at (column + 1/2, row + 1/2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..view.cameras import Cameras

NEAR = 0.1
"""Splats nearer than this along the optical axis are left out."""
MARGIN = 1.5
"""So are those whose centre is farther from the middle of the picture than this, in halves of its side."""
BLUR = 0.3
"""Variance of the screen's filter, in square pixels (Kerbl et al. 2023)."""
THINNEST = 1e-8
"""Smallest ratio of areas before and after the filter; thinner footprints count as this."""
FAINT = 1 / 255
"""Shares of a pixel below this are left out."""
MOST = 0.99
"""Largest share of a pixel that one splat takes."""
OPAQUE = 1e-4
"""A pixel is done when this transmittance is left."""
BAND = 8  # rows that the plain way draws at once


@dataclass(frozen=True)
class Lens:
    """B cameras for a picture of ``size`` pixels: axes (B, 3, 3) with rows right, up and forward; position (B, 3); focal length
    (B,) in pixels."""

    axes: Tensor
    position: Tensor
    focal: Tensor
    size: int

    @classmethod
    def of(cls, cameras: Cameras, size: int, like: Tensor) -> Lens:
        """The lens of cameras, on the device and in the precision of a tensor."""
        cameras = cameras.to(like.device, like.dtype)
        right, up, back = cameras.axes()
        focal = size / 2 / torch.tan(cameras.fov / 2)
        return cls(torch.stack([right, up, -back], 1), cameras.positions(), focal, size)


@dataclass(frozen=True)
class Footprints:
    """Splats in pictures: place (B, N, 2), x and y in pixels; conic (B, N, 3); kept (B, N), the factor on the opacity by which
    the screen's filter leaves a splat's total as it was (as in Mip-Splatting, Yu et al. 2024), 0 for what is left out."""

    place: Tensor
    conic: Tensor
    kept: Tensor


class Splatter(Protocol):
    """One implementation of the two functions; all agree up to rounding."""

    def project(self, centres: Tensor, covariances: Tensor, lens: Lens) -> Footprints:
        """Footprints of splats with centres (N, 3) and covariances (N, 6): xx, xy, xz, yy, yz, zz. Differentiable."""
        ...

    def composite(self, seen: Footprints, opacity: Tensor, features: Tensor, distance: Tensor, size: int) -> Tensor:
        """Pictures (B, S, S, C + 1): features (B, N, C) from the nearest splat to the farthest, each with its share of the
        pixel; the last channel is the opacity. opacity (B, N) counts ``kept`` already. Differentiable by all but the
        distance (B, N), which is the order."""
        ...


def axes_of(rotations: Tensor, log_scales: Tensor) -> Tensor:
    """Axes R S (N, 3, 3), one in each column, of quaternions (N, 4), w first, of any length, and logarithms of their
    lengths (N, 3)."""
    r, x, y, z = torch.nn.functional.normalize(rotations, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - r * z), 2 * (x * z + r * y),
        2 * (x * y + r * z), 1 - 2 * (x * x + z * z), 2 * (y * z - r * x),
        2 * (x * z - r * y), 2 * (y * z + r * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(-1, 3, 3) * log_scales.exp()[:, None]


def covariances(rotations: Tensor, log_scales: Tensor) -> Tensor:
    """Covariances R S^2 R^T (N, 6): xx, xy, xz, yy, yz, zz."""
    root = axes_of(rotations, log_scales)
    full = root @ root.mT
    return full.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]


class Plain:
    """The two functions by PyTorch's own operations and automatic differentiation."""

    def project(self, centres: Tensor, covariances: Tensor, lens: Lens) -> Footprints:
        f, size = lens.focal[:, None], lens.size
        x, y, w = torch.einsum("bij,bnj->bin", lens.axes, centres - lens.position[:, None]).unbind(1)
        edge = MARGIN * size / 2
        inside = (w > NEAR) & (f * x.abs() <= edge * w) & (f * y.abs() <= edge * w)
        x, y, w = (torch.where(inside, value, other) for value, other in ((x, 0.0), (y, 0.0), (w, 1.0)))
        place = torch.stack([size / 2 + f * x / w, size / 2 - f * y / w], -1)
        right, up, forward = (lens.axes[:, None, i] for i in range(3))
        over = (f / w)[..., None]
        rows = torch.stack([
            over * (right - (x / w)[..., None] * forward),
            over * ((y / w)[..., None] * forward - up),
        ], 2)  # fmt: skip
        full = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
        flat = rows @ full @ rows.mT
        xx, xy, yy = flat[..., 0, 0], flat[..., 0, 1], flat[..., 1, 1]
        a, c = xx + BLUR, yy + BLUR
        area = a * c - xy * xy
        conic = torch.stack([c / area, -xy / area, a / area], -1)
        kept = ((xx * yy - xy * xy) / area).clamp_min(THINNEST).sqrt()
        return Footprints(place, conic, torch.where(inside, kept, 0.0))

    def composite(self, seen: Footprints, opacity: Tensor, features: Tensor, distance: Tensor, size: int) -> Tensor:
        return torch.stack([
            torch.cat([
                self.band(seen.place[b, order], seen.conic[b, order], opacity[b, order], features[b, order], row, size)
                for row in range(0, size, BAND)
            ])
            for b, order in enumerate(distance.argsort(dim=1, stable=True))
        ])  # fmt: skip

    def band(self, place: Tensor, conic: Tensor, opacity: Tensor, features: Tensor, first: int, size: int) -> Tensor:
        """``BAND`` rows of one view's picture from row ``first`` on; the splats are in order."""
        rows = torch.arange(first, min(first + BAND, size), device=place.device)
        bound = 2 * (opacity.detach() / FAINT).log()
        a, b, c = conic.detach().unbind(-1)
        high = (bound.clamp_min(0) * a / (a * c - b * b)).sqrt() + 1  # of the ellipse q = bound, and a bit
        near = (bound >= 0) & (place[:, 1] + high >= first) & (place[:, 1] - high <= first + BAND)
        place, conic, opacity, bound, features = (v[near] for v in (place, conic, opacity, bound, features))
        y, x = torch.meshgrid(rows + 0.5, torch.arange(size, device=place.device) + 0.5, indexing="ij")
        dx, dy = (at.reshape(-1, 1).to(place) - place[:, i] for i, at in enumerate((x, y)))  # (pixels, splats)
        q = conic[:, 0] * dx * dx + 2 * conic[:, 1] * dx * dy + conic[:, 2] * dy * dy
        share = torch.where(q <= bound, (opacity * torch.exp(-q / 2)).clamp_max(MOST), 0.0)
        left = torch.cumprod(1 - share, 1)
        before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1)
        weight = torch.where(before >= OPAQUE, before * share, 0.0)
        what = torch.cat([features, torch.ones_like(features[:, :1])], 1)
        return (weight @ what).reshape(len(rows), size, -1)


PLAIN = Plain()


class Fused:
    """The compiled kernels, for tensors on a CPU."""

    def project(self, centres: Tensor, covariances: Tensor, lens: Lens) -> Footprints:
        from ..kernels.splat_fused import Project  # the compiler is slow to load

        return Footprints(*Project.apply(centres, covariances, lens.axes, lens.position, lens.focal, lens.size))

    def composite(self, seen: Footprints, opacity: Tensor, features: Tensor, distance: Tensor, size: int) -> Tensor:
        from ..kernels.splat_fused import Composite

        return Composite.apply(seen.place, seen.conic, opacity, features, distance, size)


FUSED = Fused()
