"""The bundled prior's first network: (words, camera) -> the mean picture. It knows shapes, and their own colours; ``paint.py``
paints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import hull_kernels
from ..kernels.threads import for_each
from ..view.cameras import Cameras
from ..view.view import Shading
from .hits import Hits
from .paint import AMBIENT, BACKGROUND, LIGHT_ABOVE_DEG, shaded, surfaces
from .planes import HULL, PLANE_WIDTH, SAMPLES, THICKNESS, composited, looked_up, marched, unpacked_hull
from .solid import fields
from .subjects import Subjects, key_of, rounded
from .word_reader import WordReader

SIZE = 64
POINT_WIDTH, SURFACE_WIDTH = 32, 64
COVER, LIT = 3, 4
"""Of what is met, channels 0 to 2 are the albedo; these are the coverage and n . l, and the solid textures follow."""
INSTANCES = 12
"""A name's shapes, over and over, fill a row of so many; 12 gives up to four shapes the same share."""
OUTLINES = (48, 32)
"""Outlines of each shape from so many sides, and the bytes of one (``outlines.py``)."""
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


@dataclass(frozen=True)
class Thing:
    """What words mean, ready to be looked at: planes (3, P, P, C), the cells of its hull (HULL^3,), how it is painted (3,)."""

    planes: Tensor
    inside: Tensor
    paint: Tensor


@dataclass(frozen=True)
class Light:
    """``towards`` (V, 3): the direction to the key light, in the world, for each camera. ``ambient``: the share of the light that comes
    from everywhere. With a share of 1 there is no key light, and colours are plain."""

    towards: Tensor
    ambient: float = AMBIENT


class Layout(nn.Module):
    """(words, camera, background) -> mean picture (B, 3, 64, 64) in [-1, 1].

    The words choose among learned names, looks and proportions, softly: words never taught come out as a blend of what is
    nearest. A name is shown by one shape or by several. A shape is three feature planes (``planes.py``); what the camera's rays meet
    of them is read as density, albedo and normal. Light and look are computed last. So neither turning, light nor looks need be
    learned shape by shape.
    """

    factors: Tensor
    stretches: Tensor
    shown: Tensor
    outlines: Tensor
    hull: Tensor
    paint: Tensor

    def __init__(self, sizes: Sizes, words: int = 192):
        super().__init__()
        self.sizes = sizes
        self.words = WordReader(words)
        self.name = nn.Linear(self.words.pooled_width, sizes.names)
        self.look = nn.Linear(self.words.pooled_width, sum(sizes.looks))
        self.proportion = nn.Linear(self.words.pooled_width, sizes.proportions)
        self.planes = nn.Embedding(sizes.shapes, 3 * sizes.side**2 * PLANE_WIDTH, sparse=True)
        nn.init.normal_(self.planes.weight, std=0.1)
        self.point = nn.Linear(3 * PLANE_WIDTH, POINT_WIDTH)
        self.density = nn.Linear(POINT_WIDTH, 1)
        nn.init.constant_(self.density.bias, -1.0)
        self.surface = nn.Sequential(nn.Linear(POINT_WIDTH, SURFACE_WIDTH), nn.SiLU(), nn.Linear(SURFACE_WIDTH, 6))
        self.register_buffer("factors", torch.tensor(sizes.looks))
        self.register_buffer("stretches", torch.ones(sizes.proportions, 3))
        self.register_buffer("outlines", torch.zeros(sizes.shapes, *OUTLINES, dtype=torch.uint8))
        self.register_buffer("shown", torch.zeros(sizes.names, INSTANCES, dtype=torch.int32))
        self.register_buffer("hull", torch.full((sizes.shapes, HULL**3 // 8), 255, dtype=torch.uint8))
        self.register_buffer("paint", torch.tensor([0.0, 0.5, -1.0]).repeat(sizes.shapes, 1))

    def name_shapes(self, shown: Sequence[Sequence[int]]) -> None:
        """Say which shapes, by number, show each name."""
        self.shown.copy_(torch.tensor([(list(some) * INSTANCES)[:INSTANCES] for some in shown]))

    def forward(
        self,
        words: Subjects,
        camera: Tensor,
        background: Tensor | None = None,
        light: Light | None = None,
        shading: Shading = "lambertian",
    ) -> Tensor:
        """Words and cameras (B, 3); background (B, 3) in [-1, 1], or None for mid-gray; light, or None for that of the data. The looks
        do not matter where the shading is 'normals' or 'depth'."""
        things: dict[tuple, Thing] = {}
        out = []
        for k in range(len(camera)):
            key = key_of(words.shape[k])
            thing = things[key] = things.get(key) or self.thing(words.shape[k])
            own = None if light is None else replace(light, towards=light.towards[k : k + 1])
            look, stretch = words.look[k : k + 1], words.stretch[k].float()
            one = camera[k : k + 1]
            if shading in ("normals", "depth"):
                out.append(self.draw_shape(thing, one, shading, stretch=stretch))
            else:
                out.append(self.draw(thing, look, one, stretch=stretch, light=own))
        drawn = torch.cat(out)
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

    def thing(self, share: Tensor) -> Thing:
        """What shares of shapes (I,) mean. Words mostly name one shape; of several, the planes are blended, and the hulls joined."""
        share = share.to(self.planes.weight.device)
        some = (share > NO_SHARE).nonzero()[:, 0]
        planes = share[some].float() @ self.planes.weight[some].float()
        inside = unpacked_hull(self.hull[some]).any(0)
        return Thing(
            planes.view(3, self.sizes.side, self.sizes.side, PLANE_WIDTH), inside, self.paint[share.argmax()].float()
        )

    def inside(self) -> Tensor:
        """The hulls of all shapes, (I, HULL^3)."""
        return unpacked_hull(self.hull)

    def draw(
        self,
        thing: Thing,
        look: Tensor,
        camera: Tensor,
        rays: int = SIZE,
        stretch: Tensor | None = None,
        light: Light | None = None,
    ) -> Tensor:
        """Pictures in front of mid-gray, and their coverage, (V, 4, rays, rays), of a thing in looks (1 or V, K) from cameras (V, 3);
        stretch (3,) along the axes, at most 1; in a light, by default that of the data."""
        met = self.meet(thing, camera, rays, stretch, light)
        return self.colour(met, look, thing.paint, AMBIENT if light is None else light.ambient)

    def meet(
        self,
        thing: Thing,
        camera: Tensor,
        rays: int = SIZE,
        stretch: Tensor | None = None,
        light: Light | None = None,
    ) -> Tensor:
        """What the cameras' rays meet of a thing, whatever its look: (V, 5 + F, rays, rays) of albedo, coverage, n . l and the solid
        textures."""
        met = self.hits(thing, camera, rays, stretch)
        lamp = light_of(met.cameras) if light is None else light.towards.to(camera)
        lit = (met.normal * lamp[met.view]).sum(-1).clamp(0, 1)
        return met.pictures(
            torch.cat([met.albedo.clamp(0, 1), met.opacity[:, None], lit[:, None], fields(met.textured)], 1)
        )

    def draw_shape(
        self, thing: Thing, camera: Tensor, shading: Shading, rays: int = SIZE, stretch: Tensor | None = None
    ) -> Tensor:
        """Pictures of the normals, or else of the depth, in front of mid-gray, and the coverage, (V, 4, rays, rays)."""
        met = self.hits(thing, camera, rays, stretch)
        colour, cover = met.facing() if shading == "normals" else met.nearness(), met.opacity[:, None]
        drawn = met.pictures(torch.cat([colour * cover, cover], 1))
        return torch.cat([(drawn[:, :3] + (1 - drawn[:, 3:]) * BACKGROUND) * 2 - 1, drawn[:, 3:]], 1)

    def hits(self, thing: Thing, camera: Tensor, rays: int, stretch: Tensor | None = None) -> Hits:
        """What the rays of cameras (V, 3) hit of a thing, which is stretched (3,) along the axes."""
        cameras = Cameras.of_condition(camera)
        origin, towards = cameras.rays(rays)
        towards = towards.flatten(1, 2)
        origin = origin.flatten(1, 2).expand_as(towards)
        scale = torch.ones(3, device=camera.device) if stretch is None else stretch.to(camera.device).float()
        meet = self.plainly_met if origin.device.type != "cpu" or self.learns(thing, camera) else self.quickly_met
        found = meet(thing, origin, towards, scale)
        ray = (found[:, -1] > 0.01).nonzero()[:, 0]
        seen = found[ray]
        features, place, opacity = seen[:, :POINT_WIDTH], seen[:, POINT_WIDTH:-1], seen[:, -1]
        albedo, normal = self.surface_of(features, opacity)
        length = normal.norm(dim=1, keepdim=True)
        normal = F.normalize(normal / scale, dim=1) * length  # a surface that is pressed together turns
        place = place / opacity.clamp_min(0.05)[:, None]
        return Hits(cameras, rays, ray, albedo, normal, place * scale, opacity, place)

    def learns(self, thing: Thing, camera: Tensor) -> bool:
        """Whether anybody asks for a gradient of what is drawn."""
        asked = (thing.planes, camera, self.point.weight, self.surface[0].weight)
        return torch.is_grad_enabled() and any(x.requires_grad for x in asked)

    def plainly_met(self, thing: Thing, origin: Tensor, towards: Tensor, scale: Tensor) -> Tensor:
        """Features, place in the thing's own frame and opacity, (V R, F + 4), by alpha compositing along rays (V, R, 3) in the world,
        of a thing that is stretched by ``scale`` (3,)."""
        origin, towards = origin.flatten(0, 1), towards.flatten(0, 1)
        near, spacing = crossed(origin, towards)
        shape = torch.zeros(len(near), dtype=torch.long, device=near.device)
        origin, towards = origin / scale, towards / scale
        ray, depth = marched(origin, towards, near, spacing, SAMPLES, thing.inside[None], shape)
        points = origin[ray] + towards[ray] * depth[:, None]
        features, density = self.point_of(looked_up(thing.planes, points))
        return composited(torch.cat([features, points], 1), density * spacing[ray], ray, len(origin))

    def quickly_met(self, thing: Thing, origin: Tensor, towards: Tensor, scale: Tensor) -> Tensor:
        """``plainly_met`` on the CPU, by a kernel."""
        near, spacing = crossed(origin, towards)
        found = torch.zeros(*near.shape, POINT_WIDTH + 4)
        rays = [
            x.contiguous().numpy() for x in (origin / scale, towards / scale, near, spacing, spacing / THICKNESS, found)
        ]
        point = [
            x.detach().contiguous().numpy() for x in (self.point.weight.T, self.point.bias, self.density.weight[0])
        ]
        inside, planes, bias = thing.inside.numpy(), thing.planes.numpy(), self.density.bias.item()

        def one(view: int) -> None:
            *given, into = (x[view] for x in rays)
            hull_kernels.met(*given, SAMPLES, inside, planes, *point, np.float32(bias), into)

        for_each(one, len(origin))
        return found.flatten(0, 1)

    def colour(self, met: Tensor, look: Tensor, paint: Tensor, ambient: float = AMBIENT) -> Tensor:
        """The second half of ``draw``: paint what was ``met`` (V, …) in looks (1 or V, K). One of a kind goes with many of the other."""
        count = max(len(met), len(look))
        met, look = met.expand(count, -1, -1, -1), look.float().to(met.device).expand(count, -1)
        cover, lit = met[:, COVER : COVER + 1], met[:, LIT : LIT + 1]
        surface, shine = surfaces(met[:, :3], met[:, LIT + 1 :], look, paint[None].expand(count, 3))
        lamp = (ambient + (1 - ambient) * lit) * cover
        shine = shine * ((1 - ambient) / (1 - AMBIENT))
        picture = shaded(surface, shine, lamp, lit, cover) + (1 - cover) * BACKGROUND
        return torch.cat([picture * 2 - 1, cover], 1)

    def point_of(self, met: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, ``POINT_WIDTH``) and optical thickness for each world unit (N,) of what planes say (N, 3 C) at points."""
        features = F.silu(self.point(met))
        return features, F.softplus(self.density(features)[:, 0]) / THICKNESS

    def surface_of(self, features: Tensor, opacity: Tensor) -> tuple[Tensor, Tensor]:
        """Albedo and normal (R, 3) of composited features (R, ``POINT_WIDTH``) with opacities (R,)."""
        told: Tensor = self.surface(features / opacity.clamp_min(0.05)[:, None])
        return told[:, :3], told[:, 3:]


def light_of(cameras: Cameras) -> Tensor:
    """Directions to the key light (V, 3), above cameras."""
    above = math.radians(LIGHT_ABOVE_DEG)
    _, up, back = cameras.axes()
    return up * math.sin(above) + back * math.cos(above)


def crossed(origin: Tensor, towards: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays (..., 3) enter the unit sphere, and the spacing of ``SAMPLES`` in it, (...); no spacing where they miss it."""
    closest = -(origin * towards).sum(-1)
    half = (1 - (origin.square().sum(-1) - closest.square())).clamp_min(0).sqrt()
    return closest - half, half * (2 / SAMPLES)
