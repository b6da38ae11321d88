"""The bundled prior's first network: (words, camera) -> the mean picture, by plain regression (after Dosovitskiy et al. 2015,
"Learning to generate chairs"). It knows silhouettes, colours and how they turn with the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..view.cameras import CONDITION_FOV_DEG, Cameras
from .denoiser import CAMERA_WIDTH, Residual, Words, camera_features, norm
from .solid import FIELDS, fields
from .subjects import Subjects, rounded

PLANE_WIDTH, POINT_WIDTH, PAINT_WIDTH, PAINT_STYLE = 8, 32, 48, 256
FOUND_WIDTH = POINT_WIDTH + 2 + len(FIELDS)
TEXTURES = 6
"""Textures that a look mixes out of the fields."""
RAYS_AT_ONCE = 256
INSTANCES = 12
"""A name's shapes, over and over, fill a row of so many; 12 gives up to four shapes the same share."""
OUTLINES = (48, 32)
"""Outlines of each shape from so many sides, and the bytes of one (``recognition.py``)."""
NO_SHARE = 1e-5
"""A share of a thing below this counts as none: the words do not mean it."""


@dataclass(frozen=True)
class Sizes:
    """How much a layout knows: names that words can mean, shapes (instances of things, each with planes of ``side`` squared),
    the parts of a look (main paints, second colours, patterns), and proportions."""

    names: int
    shapes: int
    looks: tuple[int, ...]
    proportions: int = 1
    side: int = 32

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Sizes:
        """The sizes of stored weights."""
        shapes, width = tensors["planes.weight"].shape
        return cls(
            len(tensors["name.bias"]), shapes, tuple(tensors["factors"].tolist()), len(tensors["stretches"]),
            round((width / (3 * PLANE_WIDTH)) ** 0.5),
        )  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What words speak of, as shares that add up to one: names (B, T), looks (B, K; each part of a look adds up to one), and
    proportions (B, P)."""

    name: Tensor
    look: Tensor
    proportion: Tensor


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


def restricted(share: Tensor, possible: Tensor | None) -> Tensor:
    """Shares (B, T) of what is possible (B, T) alone, adding up to one again; possible may be None, for everything."""
    if possible is None:
        return share
    kept = (share + 1e-9) * possible.to(share)
    return kept / kept.sum(-1, keepdim=True)


def mixed(share: Tensor, rows: Tensor) -> Tensor:
    """share (B, T) @ rows (T, W), as float32, without the rows whose shares are all below ``NO_SHARE``. Words mostly name one
    thing, and the planes of all shapes are 110 MB, which every question would read."""
    some = (share > NO_SHARE).any(0).nonzero()[:, 0]
    return share[:, some].float() @ rows[some].float()


class Layout(nn.Module):
    """(words, camera, background) -> mean picture (B, 3, 64, 64) in about [-1, 1].

    The words choose among learned names, looks and proportions, softly: words never taught come out as a blend of what is
    nearest. A name is shown by one shape or by several. A shape is three feature planes through the origin (Chan et al. 2022,
    EG3D); the camera decides where its rays cut them, and a few convolutions paint what was found. They also get the look, the
    camera, which says where the light comes from, and the solid textures of the place that was met. So neither turning nor
    looks need be learned shape by shape (Nguyen-Phuoc et al. 2019, HoloGAN).
    """

    factors: Tensor
    stretches: Tensor
    shown: Tensor
    outlines: Tensor

    def __init__(self, sizes: Sizes, words: int = 192):
        super().__init__()
        self.sizes = sizes
        self.words = Words(words)
        self.name = nn.Linear(self.words.pooled_width, sizes.names)
        self.look = nn.Linear(self.words.pooled_width, sum(sizes.looks))
        self.proportion = nn.Linear(self.words.pooled_width, sizes.proportions)
        self.planes = nn.Embedding(sizes.shapes, 3 * PLANE_WIDTH * sizes.side**2, sparse=True)
        nn.init.normal_(self.planes.weight, std=0.1)
        self.point = nn.Linear(PLANE_WIDTH, POINT_WIDTH)
        self.density = nn.Linear(POINT_WIDTH, 1)
        nn.init.constant_(self.density.bias, -1.0)
        self.camera = nn.Sequential(
            nn.Linear(CAMERA_WIDTH, PAINT_STYLE), nn.SiLU(), nn.Linear(PAINT_STYLE, PAINT_STYLE)
        )
        self.looks = nn.Embedding(sum(sizes.looks), PAINT_STYLE)
        self.texture = nn.Linear(PAINT_STYLE, TEXTURES * len(FIELDS))
        self.join = nn.Conv2d(POINT_WIDTH + 2 + TEXTURES, PAINT_WIDTH, 3, padding=1)
        self.paint = nn.ModuleList(Residual(PAINT_WIDTH, PAINT_WIDTH, PAINT_STYLE) for _ in range(2))
        self.out = nn.Sequential(norm(PAINT_WIDTH), nn.SiLU(), nn.Conv2d(PAINT_WIDTH, 16, 3, padding=1))
        self.register_buffer("factors", torch.tensor(sizes.looks))
        self.register_buffer("stretches", torch.ones(sizes.proportions, 3))
        self.register_buffer("outlines", torch.zeros(sizes.shapes, *OUTLINES, dtype=torch.uint8))
        self.register_buffer("shown", torch.zeros(sizes.names, INSTANCES, dtype=torch.int32))

    def forward(self, words: Subjects, camera: Tensor, background: Tensor | None = None) -> Tensor:
        """Words and cameras (B, 3); background (B, 3) in [-1, 1], or None for mid-gray."""
        planes = mixed(words.shape.to(self.planes.weight.device), self.planes.weight)
        style = words.look.to(self.looks.weight) @ self.looks.weight
        drawn = self.draw(planes, style, camera, stretch=words.stretch.float())
        return drawn[:, :3] if background is None else before(drawn, background)

    def understood(
        self, tokens: Tensor, mask: Tensor, sides: Tensor, instance: int = 0, possible: Tensor | None = None
    ) -> Subjects:
        """What captions mean, if each name is shown by its shape number ``instance``: tokens (B, L, 384), mask (B, L) bool,
        sides (B, 4) as ``Subjects`` has them; possible (B, T): one for each name that may be meant, else zero."""
        said = self.read(tokens, mask)
        shape = self.shape_share(rounded(restricted(said.name, possible)), instance)
        look = torch.cat([rounded(part) for part in said.look.split(self.sizes.looks, -1)], -1)
        return Subjects(shape, look, rounded(said.proportion) @ self.stretches.float(), sides.to(shape))

    def read(self, tokens: Tensor, mask: Tensor) -> Reading:
        """What the words speak of."""
        name, look, proportion = self.logits(tokens, mask)
        looks = torch.cat([part.softmax(-1) for part in look.split(self.sizes.looks, -1)], -1)
        return Reading(name.softmax(-1), looks, proportion.softmax(-1))

    def logits(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of names (B, T), of the parts of looks (B, K) and of proportions (B, P)."""
        _, pooled = self.words(tokens.to(self.words.key.weight.dtype), mask)
        return self.name(pooled).float(), self.look(pooled).float(), self.proportion(pooled).float()

    def shape_share(self, name: Tensor, instance: int = 0) -> Tensor:
        """Shares of shapes (B, I) of shares of names (B, T), if each name is shown by its shape number ``instance``."""
        chosen = self.shown[:, instance % INSTANCES].long()
        return name.new_zeros(len(name), self.sizes.shapes).index_add(1, chosen, name)

    def draw(
        self, planes: Tensor, look: Tensor, camera: Tensor, rays: int = 32, stretch: Tensor | None = None
    ) -> Tensor:
        """Pictures in front of mid-gray, and their coverage, (B, 4, 2 rays, 2 rays), of planes (G, 3 C P P) and looks (G, S)
        from cameras (B, 3); stretch (G, 3) along the axes, at most 1.

        B is G or a multiple of it: then each thing is seen from B / G cameras that follow one another. Training starts
        with few rays.
        """
        return self.colour(self.meet(planes, camera, rays, stretch), look, camera)

    def meet(self, planes: Tensor, camera: Tensor, rays: int = 32, stretch: Tensor | None = None) -> Tensor:
        """What the cameras' rays meet, (B, ``FOUND_WIDTH``, rays, rays), which no look changes: features by alpha compositing,
        opacity, depth, and the solid textures where they meet the thing."""
        side = self.sizes.side
        planes = planes.unflatten(-1, (3, PLANE_WIDTH, side, side))
        views = len(camera) // len(planes)
        stretch = torch.ones(len(planes), 3, device=planes.device) if stretch is None else stretch
        parts = []
        for thing, seen_from, scale in zip(planes, camera.split(views), stretch, strict=True):
            met = ray_points(seen_from, rays, rays // 2 + 8)
            # Some rays of one thing at a time: more points would not fit into the cache.
            some = zip(*(x.split(RAYS_AT_ONCE, 2) for x in met), strict=True)
            parts.append(torch.cat([self.cut(thing, points / scale, *rest) for points, *rest in some], -1))
        return torch.cat(parts).unflatten(-1, (rays, rays))

    def colour(self, found: Tensor, look: Tensor, camera: Tensor) -> Tensor:
        """The second half of ``draw``: paint what was ``found`` in looks (G, S)."""
        views, dtype = len(camera) // len(look), self.join.weight.dtype
        told = F.silu(self.camera(camera_features(camera).to(dtype)) + look.repeat_interleave(views, 0))
        met, solid = found.to(dtype).split([POINT_WIDTH + 2, len(FIELDS)], 1)
        # A look chooses its textures before anything is painted: a painter that has to choose among all of them learns no pattern.
        mix = self.texture(look).unflatten(1, (TEXTURES, len(FIELDS))).repeat_interleave(views, 0)
        textures = torch.einsum("btf,bfhw->bthw", mix, solid)
        x = self.join(torch.cat([met, textures], 1).contiguous(memory_format=torch.channels_last))
        for block in self.paint:
            x = block(x, told)
        return F.pixel_shuffle(self.out(x).float(), 2)

    def cut(self, planes: Tensor, points: Tensor, spacing: Tensor, depth: Tensor) -> Tensor:
        """What rays of V pictures meet of one thing, (V, ``FOUND_WIDTH``, R): planes (3, C, P, P), the rest as ``ray_points`` has
        it, but the points as the thing has them, however it is stretched."""
        x, y, z = points.flatten(0, 1).unbind(-1)  # each (V S, R)
        grid = torch.stack([torch.stack([x, y], -1), torch.stack([z, y], -1), torch.stack([x, z], -1)])
        h = F.grid_sample(planes.float(), grid, align_corners=False).sum(0).flatten(1)  # (C, V S R)
        h = F.silu(torch.addmm(self.point.bias.float()[:, None], self.point.weight.float(), h))
        density = self.density.weight.float() @ h + self.density.bias.float()
        inside = (points.square().sum(-1) <= 1).to(density)
        thickness = F.softplus(density.view(depth.shape)) * inside * (spacing / 0.08)
        before = thickness.cumsum(1) - thickness
        weight = (-before).exp() - (-before - thickness).exp()  # (V, S, R)
        features = (h * weight.view(1, -1)).unflatten(1, depth.shape).sum(2).transpose(0, 1)  # (V, C, R)
        opacity = weight.sum(1)
        with torch.no_grad():  # the textures must not pull at the shape
            place = (weight[..., None] * points).sum(1) / opacity.clamp_min(1e-3)[..., None]
            texture = fields(place).permute(0, 2, 1)  # (V, F, R)
        return torch.cat(
            [features, opacity[:, None], (weight * (depth - 2.5)).sum(1)[:, None], texture * opacity.detach()[:, None]],
            1,
        )
