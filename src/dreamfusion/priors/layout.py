"""The bundled prior's first network: (words, camera) -> the mean picture, by plain regression (after Dosovitskiy et al. 2015,
"Learning to generate chairs"). It knows silhouettes, colours and how they turn with the camera."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..view.cameras import CONDITION_FOV_DEG, Cameras
from .denoiser import CAMERA_WIDTH, Residual, Words, camera_features, norm

THINGS, LOOKS = 212, 14
PLANE_WIDTH, PLANE_SIDE, POINT_WIDTH, PAINT_WIDTH, PAINT_STYLE = 8, 48, 32, 48, 256
RAYS_AT_ONCE = 256
NO_SHARE = 1e-5
"""A share of a thing below this counts as none: the words do not mean it."""


def ray_points(camera: Tensor, resolution: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the rays of pictures cross the unit sphere, for cameras (B, 3) as in ``camera_features``.

    Points (B, S, R, 3) with S = samples and R = resolution^2, their spacing (B, 1, R) and their depth (B, S, R); a ray that
    misses the sphere has all its points, at no spacing, where it comes closest. World and camera axes are ``view.cameras``'.
    """
    azimuth, elevation, radius = camera.float().unbind(-1)
    fov = torch.full_like(radius, math.radians(CONDITION_FOV_DEG))
    cameras = Cameras(azimuth, elevation, radius, fov)
    origin, direction = cameras.rays(resolution)
    direction = direction.flatten(1, 2)[:, None]  # (B, 1, R, 3)
    origin = origin.expand_as(direction)
    closest = -(origin * direction).sum(-1)  # (B, 1, R)
    half = (1 - (origin.square().sum(-1) - closest.square())).clamp_min(0).sqrt()
    along = (torch.arange(samples, device=camera.device) + 0.5) * (2 / samples) - 1
    depth = closest + half * along[:, None]
    return origin + direction * depth[..., None], half * (2 / samples), depth


def before(drawn: Tensor, background: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] in front of backgrounds (B, 3), from pictures in front of mid-gray (which is 0) and
    their coverage, (B, 4, H, W)."""
    return drawn[:, :3] + (1 - drawn[:, 3:]) * background.to(drawn)[:, :, None, None]


def mixed(share: Tensor, rows: Tensor) -> Tensor:
    """share (B, T) @ rows (T, W), without the rows whose shares are all below ``NO_SHARE``. Words mostly name one thing,
    and the planes of all things are 47 MB, which every question would read."""
    some = (share > NO_SHARE).any(0).nonzero()[:, 0]
    return share[:, some] @ rows[some]


class Layout(nn.Module):
    """(words, camera, background) -> mean picture (B, 3, 64, 64) in about [-1, 1].

    The words choose among learned things and looks, softly: words never taught come out as a blend of what is nearest. A thing
    is three feature planes through the origin (Chan et al. 2022, EG3D); the camera decides where its rays cut them, and a
    few convolutions paint what was found. They also get the look and the camera, which says where the light comes from. So
    neither turning nor colours need be learned thing by thing (Nguyen-Phuoc et al. 2019, HoloGAN).
    """

    def __init__(self, things: int = THINGS, looks: int = LOOKS, words: int = 192):
        super().__init__()
        self.words = Words(words)
        self.thing = nn.Linear(self.words.pooled_width, things)
        self.look = nn.Linear(self.words.pooled_width, looks)
        self.guess = nn.Sequential(nn.Linear(self.words.pooled_width, 128), nn.SiLU(), nn.Linear(128, 3))
        self.planes = nn.Embedding(things, 3 * PLANE_WIDTH * PLANE_SIDE**2, sparse=True)
        nn.init.normal_(self.planes.weight, std=0.1)
        self.point = nn.Linear(PLANE_WIDTH, POINT_WIDTH)
        self.density = nn.Linear(POINT_WIDTH, 1)
        nn.init.constant_(self.density.bias, -1.0)
        self.no_camera = nn.Parameter(torch.zeros(PAINT_STYLE))
        self.camera = nn.Sequential(
            nn.Linear(CAMERA_WIDTH, PAINT_STYLE), nn.SiLU(), nn.Linear(PAINT_STYLE, PAINT_STYLE)
        )
        self.looks = nn.Embedding(looks, PAINT_STYLE)
        self.join = nn.Conv2d(POINT_WIDTH + 2, PAINT_WIDTH, 3, padding=1)
        self.paint = nn.ModuleList(Residual(PAINT_WIDTH, PAINT_WIDTH, PAINT_STYLE) for _ in range(2))
        self.out = nn.Sequential(norm(PAINT_WIDTH), nn.SiLU(), nn.Conv2d(PAINT_WIDTH, 16, 3, padding=1))

    def forward(
        self, tokens: Tensor, mask: Tensor, camera: Tensor, has_camera: Tensor, background: Tensor | None = None
    ) -> Tensor:
        """tokens (B, L, 384), mask (B, L) bool, camera (B, 3), has_camera (B,) bool; background (B, 3) in [-1, 1], or
        None for mid-gray."""
        thing, look, guess = self.read(tokens, mask)
        stand = torch.where(has_camera[:, None], camera.to(guess.dtype), guess)
        planes = mixed(thing.softmax(-1), self.planes.weight)
        drawn = self.draw(planes, look.softmax(-1) @ self.looks.weight, stand, has_camera)
        return drawn[:, :3] if background is None else before(drawn, background)

    def read(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the words speak of: logits of things (B, T) and of looks (B, K), and a camera (B, 3).

        A side is taken to be the right one, and the distance to be 2.5. Words that name no side mean about all sides, and
        the mean of these is the right side too.
        """
        _, pooled = self.words(tokens.to(self.words.key.weight.dtype), mask)
        sine, cosine, elevation = self.guess(pooled).float().unbind(-1)
        camera = torch.stack([torch.atan2(sine, cosine), elevation, torch.full_like(sine, 2.5)], -1)
        return self.thing(pooled), self.look(pooled), camera

    def draw(self, planes: Tensor, look: Tensor, camera: Tensor, has_camera: Tensor, rays: int = 32) -> Tensor:
        """Pictures in front of mid-gray, and their coverage, (B, 4, 2 rays, 2 rays), of planes (G, 3 C P P) and looks (G, S)
        from cameras (B, 3).

        B is G or a multiple of it: then each thing is seen from B / G cameras that follow one another. Training starts
        with few rays.
        """
        return self.colour(self.meet(planes, camera, rays), look, camera, has_camera)

    def meet(self, planes: Tensor, camera: Tensor, rays: int = 32) -> Tensor:
        """``project`` of planes (G, 3 C P P): what the look does not change."""
        return self.project(planes.unflatten(-1, (3, PLANE_WIDTH, PLANE_SIDE, PLANE_SIDE)), camera, rays)

    def colour(self, found: Tensor, look: Tensor, camera: Tensor, has_camera: Tensor) -> Tensor:
        """The second half of ``draw``: paint what was ``found`` (B, C + 2, rays, rays) in looks (G, S)."""
        views, dtype = len(camera) // len(look), self.join.weight.dtype
        # Without the camera a picture is the mean over many: it must not blur the planes.
        found = torch.where(has_camera[:, None, None, None], found, found.detach())
        seen = torch.where(has_camera[:, None], self.camera(camera_features(camera).to(dtype)), self.no_camera)
        told = F.silu(seen + look.repeat_interleave(views, 0))
        x = self.join(found.to(dtype).contiguous(memory_format=torch.channels_last))
        for block in self.paint:
            x = block(x, told)
        return F.pixel_shuffle(self.out(x).float(), 2)

    def project(self, planes: Tensor, camera: Tensor, rays: int) -> Tensor:
        """What the cameras' rays meet, (B, C + 2, rays, rays): features by alpha compositing, opacity, depth."""
        views = len(camera) // len(planes)
        parts = []
        for thing, seen_from in zip(planes, camera.split(views), strict=True):
            met = ray_points(seen_from, rays, rays // 2 + 8)
            # Some rays of one thing at a time: more points would not fit into the cache.
            some = zip(*(x.split(RAYS_AT_ONCE, 2) for x in met), strict=True)
            parts.append(torch.cat([self.cut(thing, *part) for part in some], -1))
        return torch.cat(parts).unflatten(-1, (rays, rays))

    def cut(self, planes: Tensor, points: Tensor, spacing: Tensor, depth: Tensor) -> Tensor:
        """What rays of V pictures meet of one thing, (V, C + 2, R): planes (3, C, P, P), the rest as ``ray_points`` has it."""
        x, y, z = points.flatten(0, 1).unbind(-1)  # each (V S, R)
        grid = torch.stack([torch.stack([x, y], -1), torch.stack([z, y], -1), torch.stack([x, z], -1)])
        h = F.grid_sample(planes.float(), grid, align_corners=False).sum(0).flatten(1)  # (C, V S R)
        h = F.silu(torch.addmm(self.point.bias.float()[:, None], self.point.weight.float(), h))
        density = self.density.weight.float() @ h + self.density.bias.float()
        thickness = F.softplus(density.view(depth.shape)) * (spacing / 0.08)
        before = thickness.cumsum(1) - thickness
        weight = (-before).exp() - (-before - thickness).exp()  # (V, S, R)
        features = (h * weight.view(1, -1)).unflatten(1, depth.shape).sum(2).transpose(0, 1)  # (V, C, R)
        return torch.cat([features, weight.sum(1)[:, None], (weight * (depth - 2.5)).sum(1)[:, None]], 1)
