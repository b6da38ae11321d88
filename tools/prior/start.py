"""Give every shape's planes a start: ``python tools/prior/start.py --data data/wide --run data/wide-run --pictures 60000``.

Planes that are learned shape by shape need hundreds of pictures each, since what one shape teaches helps no other. So a small
network guesses them: from a volume that the shape's training views carve (what no view sees through is solid; Kutulakos and Seitz
2000, "A theory of shape by space carving"), seen along each axis, to the three planes. It is trained together with the layout's
painter on all shapes, writes its guesses into the run's layout, and is not needed again. ``train.py layout`` then goes on from
there. The network is kept in ``<run>/start.safetensors``, so that the planes of a new model can be guessed as well.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from dataset import Data
from render import FOV_DEG
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train import READING, decoder_loss, name_shapes, save, sizes_of, start_from

from dreamfusion.priors.layout import PLANE_WIDTH, Layout

SIDE, SLABS, NEAR = 32, 8, 0.07
CARVED = SLABS + 6
"""Channels of a carved volume along an axis: how solid it is in eight slabs, and the surface's colours in both halves."""
WIDTH = 24


def centres() -> Tensor:
    """The middles of the voxels, (32, 32, 32, 3), by x, y and z."""
    line = (torch.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)


def carved(pixels: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Of stored views (V, 6, 64, 64) in [0, 1] from cameras (V, 3): how solid each voxel is (32, 32, 32), and the colour times the
    presence of the surface in it (4, 32, 32, 32).

    A voxel that a view looks past, because the picture is empty there or something behind it is seen, is empty; a voxel
    at a seen depth is surface.
    """
    points = centres().flatten(0, 2)
    azimuth, elevation, distance = camera.unbind(-1)
    back = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)
    right = torch.stack([azimuth.cos(), torch.zeros_like(azimuth), -azimuth.sin()], -1)
    up = torch.linalg.cross(back, right)
    along = distance[:, None] - back @ points.T  # (V, N): depth on the optical axis
    half = along * math.tan(math.radians(FOV_DEG) / 2)
    grid = torch.stack([(right @ points.T) / half, -(up @ points.T) / half], -1)[:, :, None]
    seen = F.grid_sample(pixels, grid, align_corners=False)[..., 0]  # (V, 6, N)
    cover = seen[:, 3]
    depth = seen[:, 5] / cover.clamp_min(1e-3) * 2 + distance[:, None] - 1
    past = (cover < 0.5) | (depth > along + NEAR)
    solid = (1 - past.float().sum(0) / 2).clamp_min(0)
    surface = ((depth - along).abs() < NEAR) & (cover > 0.5) & (solid > 0)
    weight = surface.float()
    colour = (seen[:, :3] / cover.clamp_min(1e-3)[:, None] * weight[:, None]).sum(0) / weight.sum(0).clamp_min(1)
    present = (weight.sum(0) > 0).float()
    side = (SIDE, SIDE, SIDE)
    return solid.view(side), torch.cat([colour * present, present[None]]).view(4, *side)


def along_axes(solid: Tensor, surface: Tensor) -> Tensor:
    """A carved volume as the planes of ``Layout.cut`` see it, (3, ``CARVED``, 32, 32): rows and columns are y and x, y and z, z and x."""
    out = []
    for order in ((2, 1, 0), (0, 1, 2), (1, 2, 0)):  # the axis looked along, rows, columns
        volume = solid.permute(order)
        slabs = volume.unflatten(0, (SLABS, -1)).mean(1)
        halves = surface.permute(0, *(k + 1 for k in order)).unflatten(1, (2, -1)).sum(2)  # (4, 2, rows, columns)
        colour = (halves[:3] / halves[3:].clamp_min(1)).flatten(0, 1)
        out.append(torch.cat([slabs, colour]))
    return torch.stack(out)


class Start(nn.Module):
    """Carved volumes along three axes (G, 3, ``CARVED``, 32, 32) -> planes (G, 3 C 32 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(CARVED, WIDTH, 3, padding=1)
        self.axis = nn.Parameter(torch.randn(3, WIDTH, 1, 1) * 0.1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, WIDTH), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, dilation=1),
                nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2),
            )
            for _ in range(3)
        )  # fmt: skip
        self.across = nn.Linear(WIDTH, WIDTH)
        self.outside = nn.Conv2d(WIDTH, PLANE_WIDTH, 3, padding=1)

    def forward(self, volumes: Tensor) -> Tensor:
        x = self.inside(volumes.flatten(0, 1)) + self.axis.repeat(len(volumes), 1, 1, 1)
        for block in self.blocks:
            x = x + block(x)
        whole = self.across(x.mean((2, 3)).unflatten(0, (-1, 3)).mean(1))
        x = x + whole.repeat_interleave(3, 0)[:, :, None, None]
        return self.outside(F.silu(x)).unflatten(0, (-1, 3)).flatten(1)


def carve_all(data: Data, path: Path) -> Tensor:
    """The carved volumes of all shapes, (I, 3, ``CARVED``, 32, 32) uint8, kept at ``path``."""
    if not path.exists():
        out = torch.zeros(len(data.shapes), 3, CARVED, SIDE, SIDE, dtype=torch.uint8)
        for k in range(len(data.shapes)):
            rows = data.rows[k]
            camera = torch.from_numpy(data.cameras[rows])
            camera = torch.cat([camera[:, :2].deg2rad(), camera[:, 2:]], 1)
            volume = along_axes(*carved(torch.from_numpy(data.pixels[rows]).float() / 255, camera))
            out[k] = (volume * 255).round().clamp(0, 255).to(torch.uint8)
        save_file({"volumes": out}, path)
    return load_file(path)["volumes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument(
        "--init", type=Path, help="weights to begin with, without a checkpoint: begun.safetensors, or packed ones"
    )
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--rays", type=int, default=16, choices=(8, 16, 32))
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = Data(args.data)
    volumes = carve_all(data, args.data / "carved.safetensors")
    print(f"{len(volumes)} shapes carved", flush=True)
    layout, start = Layout(sizes_of(data)), Start()
    name_shapes(layout, data)
    path, kept = args.run / "layout.safetensors", args.run / "start.safetensors"
    if path.exists():
        layout.load_state_dict({k[6:]: v for k, v in load_file(path).items() if k.startswith("model.")}, strict=False)
    elif args.init:
        start_from(layout, "layout", args.init)
    if kept.exists():
        start.load_state_dict(load_file(kept))
    elif args.init and (known := {k[6:]: v.float() for k, v in load_file(args.init).items() if k.startswith("start.")}):
        start.load_state_dict(known)
    layout, start = (x.to(memory_format=torch.channels_last) for x in (layout, start))  # type: ignore[call-overload]
    painter = [p for n, p in layout.named_parameters() if n != "planes.weight" and not n.startswith(READING)]
    groups = [{"params": list(start.parameters()), "top": args.lr}, {"params": painter, "top": args.lr / 2}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    check, rng, began, losses = (
        data.held_out_batch(96, 7, new_looks=False),
        np.random.default_rng(args.seed),
        time.time(),
        [],
    )

    def planes_of(shapes: Tensor) -> Tensor:
        return start(volumes[shapes].float() / 255)

    for seen in range(0, args.pictures, args.batch):
        batch = data.batch(args.batch // args.views, rng, args.views, 2 * args.rays)
        error, loss = decoder_loss(layout, planes_of(batch.shape), batch, args.rays)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)  # type: ignore[union-attr]
        rate = min(1.0, (seen + args.batch) / (50 * args.batch), (args.pictures - seen) / (0.4 * args.pictures))
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * max(rate, 0.01)
        optimizer.step()
        losses.append(float(error.detach()))
        if len(losses) == 200:
            with torch.no_grad():
                held = float(decoder_loss(layout, planes_of(check.shape), check, args.rays)[0])
            pace = (seen + args.batch) / (time.time() - began)
            print(
                f"seen {seen + args.batch} loss {sum(losses) / 200:.5f} held_out {held:.5f} per_second {pace:.1f}",
                flush=True,
            )
            losses = []
    save(kept, dict(start.state_dict()))
    with torch.no_grad():
        for some in torch.arange(len(volumes)).split(64):
            layout.planes.weight[some] = planes_of(some)
    state = layout.state_dict()
    tensors = {f"model.{k}": v for k, v in state.items()}
    tensors |= {f"ema.{k}": v.clone() for k, v in state.items() if k != "planes.weight"}
    save(path, tensors | {"seen": torch.tensor(0)})


if __name__ == "__main__":
    main()
