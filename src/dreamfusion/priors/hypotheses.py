"""What the posterior chooses among: pictures of a thing from all round, drawn once by the layout network and kept."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import Layout
from .posterior import Pictures
from .subjects import Subject

AZIMUTHS = 36
ELEVATIONS_DEG = (-30.0, -15.0, 0.0, 15.0, 30.0, 45.0, 60.0)
OVERHEAD_DEG = (65.0, 75.0, 85.0)
DISTANCES = (2.37, 2.5, 2.63)
POOLED = 16
AT_ONCE = 12


@dataclass(frozen=True)
class Sphere:
    """Pictures of one thing in one look, n = (elevation x azimuths + azimuth) x distances + distance.

    Azimuths are evenly spaced from 0; elevations in radians, distances in world units. Drawn from the middle distance, and
    resized for the others.
    """

    pictures: Pictures
    elevations: Tensor
    azimuths: int
    distances: Tensor

    @cached_property
    def pooled(self) -> Pictures:
        """The pictures at ``POOLED`` pixels a side."""
        return self.pictures.pooled(POOLED)

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many (elevations, azimuths, distances); their product is N."""
        return len(self.elevations), self.azimuths, len(self.distances)

    @cached_property
    def cameras(self) -> Tensor:
        """Where each picture is seen from, (N, 3)."""
        turn = torch.arange(self.azimuths) * (2 * math.pi / self.azimuths)
        e, a, d = torch.meshgrid(self.elevations, turn, self.distances, indexing="ij")
        return torch.stack([a, e, d], -1).flatten(0, 2)

    def nearest(self, cameras: Tensor) -> Tensor:
        """Numbers (…) of the pictures nearest to cameras (…, 3)."""
        azimuth, elevation, distance = cameras.unbind(-1)
        a = (azimuth * (self.azimuths / (2 * math.pi))).round().long() % self.azimuths
        e = (elevation[..., None] - self.elevations).abs().argmin(-1)
        d = (distance[..., None] - self.distances).abs().argmin(-1)
        return (e * self.azimuths + a) * len(self.distances) + d

    def refined(self, log_share: Tensor) -> tuple[Tensor, Tensor]:
        """The cameras (B, 3) of the likeliest pictures, put between the grid's, and the pictures' numbers (B,).

        log_share (B, N). Along each axis a parabola through the best and its two neighbours has its peak at half
        (l- - l+) / (l- - 2 l + l+) of a step; at an end, and where a neighbour is impossible, the grid's own camera stays.
        """
        best = log_share.argmax(1)
        grid = log_share.unflatten(1, self.shape)
        place = torch.stack(torch.unravel_index(best, self.shape), 1)  # (B, 3): elevation, azimuth, distance
        rows = torch.arange(len(best))
        camera = self.cameras[best].clone()
        for axis, column, values in ((0, 1, self.elevations), (1, 0, None), (2, 2, self.distances)):
            count = self.shape[axis]
            if count < 3:
                continue
            sides = []
            for step in (-1, 1):
                there = place.clone()
                there[:, axis] = (there[:, axis] + step) % count
                sides.append(grid[rows, there[:, 0], there[:, 1], there[:, 2]])
            offset = peak(sides[0], log_share[rows, best], sides[1])
            if values is None:
                camera[:, column] += offset * (2 * math.pi / count)
            else:
                inside = (place[:, axis] > 0) & (place[:, axis] < count - 1)
                spacing = (values[-1] - values[0]) / (count - 1)
                camera[:, column] += torch.where(inside, offset, 0.0) * spacing
        return camera, best


def peak(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """Where a parabola through values at -1, 0 and 1 is highest, at most half a step away; 0 where it has no peak."""
    bend = left - 2 * middle + right
    offset = 0.5 * (left - right) / bend
    return torch.where(offset.isfinite() & (bend < 0), offset, torch.zeros_like(offset)).clamp(-0.5, 0.5)


def resized(drawn: Tensor, scale: float) -> Tensor:
    """Pictures (N, 4, S, S) larger by ``scale`` about their middle; what comes in at the edges is empty."""
    theta = torch.tensor([[1 / scale, 0, 0], [0, 1 / scale, 0]]).to(drawn).expand(len(drawn), 2, 3)
    grid = F.affine_grid(theta, list(drawn.shape), align_corners=False)
    return F.grid_sample(drawn, grid, mode="bicubic", align_corners=False)


class Hypotheses:
    """Draws spheres of pictures, on the layout's device, and keeps the last few of them, on the CPU.

    A thing's rays meet the same, whatever its look: that half of the work is kept for the last thing.
    """

    def __init__(self, layout: Layout, spheres: int = 6, azimuths: int = AZIMUTHS):
        self.layout, self.spheres, self.azimuths = layout, spheres, azimuths
        self.kept: OrderedDict[tuple, Sphere] = OrderedDict()
        self.met: tuple[tuple, Tensor] | None = None

    @torch.no_grad()
    def sphere(self, subject: Subject, overhead: bool = False) -> Sphere:
        """Pictures of a subject from all round; ``overhead``: from above 60 degrees only."""
        key = *subject.key, overhead
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        elevations = torch.tensor(OVERHEAD_DEG if overhead else ELEVATIONS_DEG).deg2rad()
        distances = torch.tensor(DISTANCES)
        sphere = Sphere(Pictures(torch.zeros(0, 4, 2, 2)), elevations, self.azimuths, distances[1:2])
        drawn = self.draw(subject, sphere.cameras, (*subject.thing, overhead))
        scaled = torch.stack(
            [drawn if d == distances[1] else resized(drawn, float(distances[1] / d)) for d in distances], 1
        )
        self.kept[key] = Sphere(Pictures(scaled.flatten(0, 1)), elevations, self.azimuths, distances)
        if len(self.kept) > self.spheres:
            self.kept.popitem(last=False)
        return self.kept[key]

    @torch.no_grad()
    def draw(self, subject: Subject, cameras: Tensor, keep: tuple | None = None) -> Tensor:
        """Pictures over gray and coverage (N, 4, 64, 64) of a subject from cameras (N, 3)."""
        layout = self.layout
        thing = layout.thing(subject.shape)
        met = self.met[1] if keep is not None and self.met is not None and self.met[0] == keep else None
        out, found = [], []
        for k in range(0, len(cameras), AT_ONCE):
            some = cameras[k : k + AT_ONCE].to(thing.planes.device)
            found.append(layout.meet(thing, some, stretch=subject.stretch) if met is None else met[k : k + AT_ONCE])
            out.append(layout.colour(found[-1].float(), subject.look[None], thing.paint))
        if keep is not None and met is None:
            self.met = keep, torch.cat(found).half()
        return torch.cat(out).float().cpu()
