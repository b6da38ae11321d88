"""A known object, three lit spheres of different sizes and colours, and its pictures in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dreamfusion.scene.rays import camera_rays, to_pictures
from dreamfusion.view.cameras import Cameras
from dreamfusion.view.lights import camera_lights

SPHERES = [
    ((0.0, -0.15, 0.0), 0.5, (0.8, 0.2, 0.15)),
    ((0.0, 0.45, 0.2), 0.3, (0.2, 0.7, 0.3)),
    ((0.5, -0.2, 0.3), 0.22, (0.2, 0.3, 0.9)),
]
AMBIENT = 0.5


def cameras_of(camera: Tensor) -> Cameras:
    """Cameras from what a prior is told (47 degree lens, so that the apparent distance is the radius)."""
    return Cameras(camera[:, 0], camera[:, 1], camera[:, 2], torch.full((len(camera),), math.radians(47.0)))


def photograph(cameras: Cameras, size: int, background: Tensor) -> Tensor:
    """The known object in closed form: lit spheres before colours (B, 3), (B, 3, size, size), 2 x 2 rays a pixel."""
    fine = size * 2
    rays = camera_rays(cameras, fine)
    angle = torch.full_like(cameras.azimuth, math.radians(30.0))
    light = camera_lights(cameras, angle, torch.zeros_like(angle)).repeat_interleave(fine * fine, 0)
    colour = background.repeat_interleave(fine * fine, 0)
    nearest = torch.full_like(rays.origins[:, 0], math.inf)
    for centre, radius, albedo in SPHERES:
        offset = rays.origins - torch.tensor(centre)
        b = (offset * rays.directions).sum(-1)
        root = b**2 - offset.square().sum(-1) + radius**2
        distance = -b - root.clamp_min(0).sqrt()
        hit = (root > 0) & (distance < nearest)
        normal = (offset + distance[:, None] * rays.directions) / radius
        lit = AMBIENT + (1 - AMBIENT) * (normal * light).sum(-1).clamp_min(0)
        colour = torch.where(hit[:, None], torch.tensor(albedo) * lit[:, None], colour)
        nearest = torch.where(hit, distance, nearest)
    return torch.nn.functional.avg_pool2d(to_pictures(colour, fine), 2)
