"""A layout that may take the place of ``network.Layout`` once it has been trained for long enough: not in the package yet.

The words mix three feature planes, the camera's rays cut them. It learns from three to four times fewer pictures than the
layout in the package (docs/training-the-prior.md has the figures); ``python tools/prior/train.py planes`` trains it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from captions import CLAY, PLAIN
from dataset import Data
from torch import Tensor, nn
from vocabulary import COLOURS

from dreamfusion.priors.network import CAMERA_WIDTH, Residual, Words, camera_features, norm
from dreamfusion.view.cameras import CONDITION_FOV_DEG, Cameras, camera_rays

PLANE_WIDTH, PLANE_SIDE, ATOMS, POINT_WIDTH, RAY_SAMPLES = 16, 32, 208, 32, 24


def ray_points(camera: Tensor, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the rays of pictures cross the unit sphere, for cameras (B, 3) as in ``camera_features``.

    Points (B, S, R, 3) with R = resolution^2, their spacing (B, 1, R) and their depth (B, S, R); a ray that
    misses the sphere has all its points, at no spacing, where it comes closest. World and camera axes are ``view.cameras``'.
    """
    rays = camera_rays(
        Cameras(*camera.float().unbind(-1), torch.full_like(camera[:, 0].float(), math.radians(CONDITION_FOV_DEG))),
        resolution,
    )
    origin, direction = (x.unflatten(0, (len(camera), 1, -1)) for x in (rays.origins, rays.directions))
    closest = -(origin * direction).sum(-1)  # (B, 1, R)
    half = (1 - (origin.square().sum(-1) - closest.square())).clamp_min(0).sqrt()
    along = (torch.arange(RAY_SAMPLES, device=camera.device) + 0.5) * (2 / RAY_SAMPLES) - 1
    depth = closest + half * along[:, None]
    return origin + direction * depth[..., None], half * (2 / RAY_SAMPLES), depth


class Planes(nn.Module):
    """(words, camera) -> mean picture (B, 3, 64, 64) in about [-1, 1].

    The words mix three feature planes through the origin (Chan et al. 2022, EG3D) out of learned ones; the camera decides
    where its rays cut them, and a few convolutions paint what was found, once more told the words and the camera, which
    also says where the light comes from. So turning need not be learned thing by thing (Nguyen-Phuoc et al. 2019, HoloGAN).
    """

    def __init__(self, words: int = 192, style: int = 512, atoms: int = ATOMS):
        super().__init__()
        self.words = Words(words)
        self.no_camera = nn.Parameter(torch.zeros(256))
        self.camera = nn.Sequential(nn.Linear(CAMERA_WIDTH, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU())
        self.guess = nn.Sequential(nn.Linear(self.words.pooled_width, 128), nn.SiLU(), nn.Linear(128, 3))
        self.style = nn.Sequential(
            nn.Linear(self.words.pooled_width, style), nn.SiLU(), nn.Linear(style, style), nn.SiLU()
        )
        self.style_camera = nn.Linear(256, 256)
        self.style_words = nn.Linear(style, 256)
        self.mix = nn.Linear(self.words.pooled_width, atoms)
        self.atoms = nn.Parameter(torch.randn(atoms, 3 * PLANE_WIDTH * PLANE_SIDE**2) * 0.05)
        self.point = nn.Linear(PLANE_WIDTH, POINT_WIDTH)
        self.density = nn.Linear(POINT_WIDTH, 1)
        nn.init.constant_(self.density.bias, -1.0)
        self.join = nn.Conv2d(POINT_WIDTH + 2, 64, 3, padding=1)
        self.paint = nn.ModuleList(Residual(64, 64, 256) for _ in range(2))
        self.out = nn.Sequential(norm(64), nn.SiLU(), nn.Conv2d(64, 12, 3, padding=1))

    def forward(self, tokens: Tensor, mask: Tensor, camera: Tensor, has_camera: Tensor, coarse: bool = False) -> Tensor:
        """tokens (G, L, 384), mask (G, L) bool, camera (B, 3), has_camera (B,) bool.

        B is G or a multiple of it: then each row of words is seen from B / G cameras that follow one another. ``coarse``
        answers (B, 3, 32, 32) from a quarter of the rays: training starts with it.
        """
        dtype = self.point.weight.dtype
        _, pooled = self.words(tokens.to(dtype), mask)
        views = len(camera) // len(tokens)
        style = self.style(pooled)
        planes = self.make_planes(pooled)
        guess = self.guess_camera(pooled).repeat_interleave(views, 0)
        stand = torch.where(has_camera[:, None], camera, guess.detach())
        found = self.project(planes, stand, 16 if coarse else 32)
        # Without the camera a picture is the mean over many: it must not blur the planes.
        found = torch.where(has_camera[:, None, None, None], found, found.detach())
        seen = torch.where(has_camera[:, None], self.camera(camera_features(stand).to(dtype)), self.no_camera)
        told = F.silu(self.style_camera(seen) * (1 + self.style_words(style)).repeat_interleave(views, 0))
        x = self.join(found.to(dtype).contiguous(memory_format=torch.channels_last))
        for block in self.paint:
            x = block(x, told)
        return F.pixel_shuffle(self.out(x).float(), 2)

    def make_planes(self, pooled: Tensor) -> Tensor:
        """Feature planes (G, 3, C, P, P): of x and y, of z and y, of x and z."""
        mixed = (self.mix(pooled) @ self.atoms).float()
        return mixed.unflatten(-1, (3, PLANE_WIDTH, PLANE_SIDE, PLANE_SIDE))

    def guess_camera(self, pooled: Tensor) -> Tensor:
        """The camera (G, 3) that the words speak of: sides are taken to be the right one, the distance 2.5."""
        sine, cosine, elevation = self.guess(pooled).float().unbind(-1)
        return torch.stack([torch.atan2(sine, cosine), elevation, torch.full_like(sine, 2.5)], -1)

    def project(self, planes: Tensor, camera: Tensor, rays: int) -> Tensor:
        """What the cameras' rays meet, (B, C + 2, rays, rays): features by alpha compositing, opacity, depth."""
        views = len(camera) // len(planes)
        # One thing after the other: whole batches of points would fall out of the cache.
        return torch.cat([self.cut(p, c, rays) for p, c in zip(planes, camera.split(views), strict=True)])

    def cut(self, planes: Tensor, camera: Tensor, rays: int) -> Tensor:
        """``project`` for one thing: planes (3, C, P, P), cameras (V, 3)."""
        points, spacing, depth = ray_points(camera, rays)
        x, y, z = points.flatten(0, 1).unbind(-1)  # each (V S, R)
        grid = torch.stack([torch.stack([x, y], -1), torch.stack([z, y], -1), torch.stack([x, z], -1)])
        h = F.grid_sample(planes, grid, align_corners=False).sum(0).flatten(1)  # (C, V S R)
        h = F.silu(torch.addmm(self.point.bias.float()[:, None], self.point.weight.float(), h))
        density = self.density.weight.float() @ h + self.density.bias.float()
        thickness = F.softplus(density.view(depth.shape)) * (spacing / 0.08)
        before = thickness.cumsum(1) - thickness
        weight = (-before).exp() - (-before - thickness).exp()  # (V, S, R)
        features = (h * weight.view(1, -1)).unflatten(1, depth.shape).sum(2).transpose(0, 1)  # (V, C, R)
        seen = torch.cat([features, weight.sum(1)[:, None], (weight * (depth - 2.5)).sum(1)[:, None]], 1)
        return seen.unflatten(-1, (rays, rays))


@torch.no_grad()
def spread_names(model: Planes, data: Data, size: float = 0.2) -> None:
    """Begin with mixtures of planes that differ from name to name and not with colour, side or wording.

    Linear discriminant analysis (Fisher 1936) of the pooled words. Without it the names' mixtures are nearly parallel, and
    what they share is learned long before what tells them apart.
    """
    rng = np.random.default_rng(0)
    looks, sides = (PLAIN, CLAY, *COLOURS), ("", "", "front", "side", "back", "overhead")
    rows = [
        data.captions.row(n, str(rng.choice(looks)), str(rng.choice(sides)), rng) for n in data.names for _ in range(24)
    ]
    pooled = torch.cat([model.words(*data.captions.gather(rows[k : k + 256]))[1] for k in range(0, len(rows), 256)])
    groups = pooled.double().unflatten(0, (len(data.names), -1))
    means = groups.mean(1)
    rest = (groups - means[:, None]).flatten(0, 1)
    within = rest.T @ rest / len(rest)
    value, vector = torch.linalg.eigh(within + 0.03 * within.trace() / len(within) * torch.eye(len(within)))
    whiten = vector * value.rsqrt()
    _, spread, axes = torch.linalg.svd((means - means.mean(0)) @ whiten, full_matrices=False)
    spread, axes = spread[: model.mix.out_features], axes[: model.mix.out_features]
    keep = spread / (spread.square() + 0.5 * len(means))
    # a random turn shares each axis out among all atoms
    turn = torch.linalg.qr(torch.randn(len(axes), len(axes), generator=torch.Generator().manual_seed(0)))[0].double()
    linear = turn @ (keep[:, None] * axes) @ whiten.T * len(means) ** 0.5 * size
    model.mix.weight.copy_(linear)
    model.mix.bias.copy_(-(linear @ means.mean(0)))
