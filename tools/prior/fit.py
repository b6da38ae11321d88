"""Fit every shape's planes to single rays: ``python tools/prior/fit.py --data data/wide --run data/wide-run --rounds 120``.

A picture teaches one view of a shape, and most of its cost is the painter, which all shapes share. Here a step takes a few hundred
rays out of several views of a shape and compares what the planes say along them with what was drawn there: coverage and depth, and,
read by a small network from the features that the painter gets, albedo and shading (the normal against each view's known light).
Nothing is painted, so a core visits 200 shapes a second, where ``train.py layout`` with 32 rays visits eleven. The layers that all
shapes share stay as they are. Still, the painter has to get used to the new planes: pictures get worse by half during the fit, and
``train.py layout`` has to follow. It also teaches what only pictures can. ``--rounds`` is the number of visits to each shape.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from dataset import Data
from render import AMBIENT, FOV_DEG, LIGHT_ABOVE_DEG
from safetensors.torch import load_file
from torch import Tensor, nn
from train import FAST, layout_loss, save

from dreamfusion.priors.layout import POINT_WIDTH, Layout, Sizes

SIDE, SAMPLES = 64, 24  # of the stored views; along a ray, as 32 rays a side have them
EMPTY_SHARE = 0.1  # how often an empty pixel is chosen, in units of a covered one
WARM = 300  # steps for the reader alone
SAVE_EVERY = 240.0  # seconds


def axes_of(camera: Tensor) -> Tensor:
    """Right, up and back (B, 3, 3) of cameras (B, 3) as ``camera_features`` has them."""
    azimuth, elevation, _ = camera.unbind(-1)
    back = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)
    right = torch.stack([azimuth.cos(), torch.zeros_like(azimuth), -azimuth.sin()], -1)
    return torch.stack([right, torch.linalg.cross(back, right), back], 1)


def rays_through(axes: Tensor, distance: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points (R, S, 3), spacing (R,) and depth (R, S) as ``ray_points`` has them, of rays through pixels (R,) by number of cameras
    with axes (R, 3, 3); and how much longer (R,) a ray is than the optical axis."""
    half = math.tan(math.radians(FOV_DEG) / 2)
    x = ((pixel % SIDE + 0.5) * (2 / SIDE) - 1) * half
    y = (1 - (pixel // SIDE + 0.5) * (2 / SIDE)) * half
    longer = (x.square() + y.square() + 1).sqrt()
    direction = torch.einsum("rk,rkc->rc", torch.stack([x, y, -torch.ones_like(x)], -1) / longer[:, None], axes)
    origin = axes[:, 2] * distance[:, None]
    closest = -(origin * direction).sum(-1)
    chord = (1 - (origin.square().sum(-1) - closest.square())).clamp_min(0).sqrt()
    depth = closest[:, None] + chord[:, None] * ((torch.arange(SAMPLES) + 0.5) * (2 / SAMPLES) - 1)
    return origin[:, None] + direction[:, None] * depth[..., None], chord * (2 / SAMPLES), depth, longer


def light_of(axes: Tensor) -> Tensor:
    """Directions to the key light (R, 3) that the views were drawn with."""
    above = math.radians(LIGHT_ABOVE_DEG)
    return axes[:, 1] * math.sin(above) + axes[:, 2] * math.cos(above)


def fit_loss(layout: Layout, read: nn.Module, planes: Tensor, pixels: Tensor, camera: Tensor, pixel: Tensor) -> Tensor:
    """What the planes (G, W) get wrong along rays (G, R): stored pixels (G, R, 6) in [0, 1], cameras (G, R, 3), pixels by number."""
    rays = pixel.shape[1]
    axes, stored = axes_of(camera.flatten(0, 1)), pixels.flatten(0, 1)
    points, spacing, depth, longer = rays_through(axes, camera.flatten(0, 1)[:, 2], pixel.flatten())
    found = torch.cat(
        [
            layout.cut(thing, p.transpose(0, 1)[None], s[None, None], d.T[None])[0]
            for thing, p, s, d in zip(
                planes.unflatten(-1, (3, -1, layout.sizes.side, layout.sizes.side)),
                points.split(rays), spacing.split(rays), depth.split(rays), strict=True,
            )
        ],
        1,
    )  # fmt: skip
    features, opacity, far = found[:POINT_WIDTH].T, found[POINT_WIDTH], found[POINT_WIDTH + 1]
    cover, inside = stored[:, 3], (stored[:, 3] > 0.99).float()
    told = read(features / opacity.detach().clamp_min(0.05)[:, None])
    albedo, normal = told[:, :3], told[:, 3:]
    shading = AMBIENT + (1 - AMBIENT) * F.relu((normal * light_of(axes)).sum(-1))
    wanted = (stored[:, 5] * 2 + camera.flatten(0, 1)[:, 2] - 1) * longer - 2.5
    return (
        (opacity - cover).square()
        + inside * F.smooth_l1_loss(far, wanted * opacity.detach(), reduction="none", beta=0.1)
        + inside * (albedo - stored[:, :3]).square().mean(-1)
        + inside * (shading - stored[:, 4]).square()
    ).mean()


def choose(data: Data, shapes: np.ndarray, views: int, rays: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Rays of shapes (G,), from so many views of each: stored pixels (G, R, 6) in [0, 1], cameras (G, R, 3), pixels (G, R)."""
    rows = np.concatenate([rng.choice(data.rows[int(k)], views, replace=False) for k in shapes])
    stored = torch.from_numpy(data.pixels[rows]).flatten(2)  # (G V, 6, 4096)
    likely = (stored[:, 3] > 0).float() + EMPTY_SHARE
    edges = likely.double().cumsum(1)
    draws = torch.from_numpy(rng.random((len(rows), rays // views)))
    pixel = torch.searchsorted(edges, draws * edges[:, -1:]).clamp_max(SIDE * SIDE - 1)
    taken = stored.gather(2, pixel[:, None].expand(-1, 6, -1)).transpose(1, 2).float() / 255
    camera = torch.from_numpy(data.cameras[rows])
    camera = torch.cat([camera[:, :2].deg2rad(), camera[:, 2:]], 1)[:, None].expand(-1, rays // views, -1)
    return tuple(x.unflatten(0, (-1, views)).flatten(1, 2) for x in (taken, camera, pixel))


def reader() -> nn.Module:
    """Reads albedo and normal out of the features of a point."""
    return nn.Sequential(nn.Linear(POINT_WIDTH, 64), nn.SiLU(), nn.Linear(64, 6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=120, help="visits to each shape")
    parser.add_argument("--shapes", type=int, default=0, help="fit only so many shapes, to try things out; 0: all")
    parser.add_argument("--batch", type=int, default=32, help="shapes a step")
    parser.add_argument("--rays", type=int, default=96, help="rays of each shape a step")
    parser.add_argument("--views", type=int, default=6, help="views of each shape that they come from")
    parser.add_argument("--lr", type=float, default=3e-2, help="the rate of the planes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data, path = Data(args.data), args.run / "layout.safetensors"
    stored = load_file(path)
    weights = {k[6:]: v for k, v in stored.items() if k.startswith("model.")}
    weights |= {k[4:]: v for k, v in stored.items() if k.startswith("ema.")}
    layout = Layout(Sizes.of(weights))
    layout.load_state_dict(weights)
    layout = layout.to(memory_format=torch.channels_last).requires_grad_(False)
    layout.planes.weight.requires_grad_(True)
    read = reader()
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(read.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=1e-3),
        torch.optim.SparseAdam([layout.planes.weight], lr=args.lr, betas=(0.9, 0.98)),
    ]
    rng = np.random.default_rng(args.seed)
    data.mine = mine = rng.permutation(len(data.shapes))[: args.shapes or None]
    check = data.held_out_batch(96, 7, new_looks=False)
    steps = args.rounds * len(mine) // args.batch
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopped.append(n))
    began = saved = time.time()
    losses: list[float] = []

    def store() -> None:
        kept = {k: v for k, v in stored.items() if not (k.startswith("adam.") and k.endswith("planes.weight"))}
        save(path, kept | {"model.planes.weight": layout.planes.weight.detach()})

    queue: list[int] = []
    for step in range(-WARM, steps):
        while len(queue) < args.batch:
            queue += rng.permutation(mine).tolist()
        shapes, queue = np.array(queue[: args.batch]), queue[args.batch :]
        if len(set(shapes.tolist())) < args.batch:
            continue  # the end of one round and the start of the next
        picked = choose(data, shapes, args.views, args.rays, rng)
        planes = layout.planes(torch.from_numpy(shapes))
        with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
            loss = fit_loss(layout, read, planes if step >= 0 else planes.detach(), *picked)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        rate = 1.0 if step < 0 else max(0.02, min(1.0, (steps - step) / (0.6 * steps)))
        optimizers[1].param_groups[0]["lr"] = args.lr * rate
        for optimizer in optimizers[: 1 if step < 0 else 2]:
            optimizer.step()
        losses.append(float(loss.detach()))
        if len(losses) == 250:
            with torch.no_grad():
                held = float(layout_loss(layout, check, 32)[0])
            pace = (step + WARM + 1) * args.batch / (time.time() - began)
            print(
                f"step {step + 1}/{steps} loss {sum(losses) / 250:.5f} held_out_views {held:.5f} shapes_per_second {pace:.0f}",
                flush=True,
            )
            losses = []
        if time.time() - saved > SAVE_EVERY and not args.shapes:
            store()
            saved = time.time()
        if stopped:
            break
    if not args.shapes:
        store()


if __name__ == "__main__":
    main()
