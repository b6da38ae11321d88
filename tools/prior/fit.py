"""Learn all shapes from single rays of their views: ``python tools/prior/fit.py --data data/wide --run data/wide-run --rounds 300``.

A step takes a few hundred rays out of several views of each of 32 shapes and compares what the planes say along them with what was
drawn there: coverage, depth, albedo, and shading (a normal under the view's known light). Only samples inside a shape's hull are
asked, which ``carve.py`` finds first. Looks are not learned: the layout paints what it meets, as the pictures of the data are painted.
Stop it at will, start it again to go on; ``--rounds`` is the number of visits to each shape. ``--init`` begins with packed weights: with
what their readers know of the data's names, and with their shapes if they are of as many.

``--side 16`` makes a smaller prior: planes of 16 x 16. ``--leave-out 100`` never shows a shape of 100 names that have several, and
lists these shapes in the run's ``left-out.json``; ``unseen.py`` asks what the prior makes of these names.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from carve import hull
from dataset import Data, DataError, choose_left_out, left_out_of, own_names, shown_by
from numpy.typing import NDArray
from rays import chosen, features_of, marched
from render import AMBIENT, FOV_DEG
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamfusion.device import pick_device
from dreamfusion.errors import UserError
from dreamfusion.priors.appearance import FACTORS, PROPORTIONS
from dreamfusion.priors.bundled_prior import unpacked
from dreamfusion.priors.layout import Layout, Sizes, light_of
from dreamfusion.priors.planes import HULL, PLANE_WIDTH, SAMPLES, composited, packed_hull
from dreamfusion.view.cameras import Cameras

EMPTY_SHARE = 0.15  # how often an empty pixel is chosen, in units of a covered one
FAR_ERROR = 0.1  # from here on, a depth's error counts by its size and no longer by its square
BEHIND = 0.25  # world units
READING = ("words.", "name.", "look.", "proportion.")  # read.py teaches them
SHAPES = ("planes.", "point.", "density.", "surface.")
SAVE_EVERY = 240.0  # seconds
LINE = 100  # steps a line of the loss curve


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
    temporary.rename(path)


def rays_through(camera: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rays through pixels (R,) by number of 64 x 64, of cameras (R, 3): origin and direction (R, 3), where the unit sphere begins
    and the spacing of ``SAMPLES`` in it (R,), and how much longer (R,) a ray is than the optical axis."""
    (right, up, back), half = Cameras.of_condition(camera).axes(), math.tan(math.radians(FOV_DEG) / 2)
    x, y = ((pixel % 64 + 0.5) / 32 - 1) * half, (1 - (pixel // 64 + 0.5) / 32) * half
    longer = (x.square() + y.square() + 1).sqrt()
    towards = (x[:, None] * right + y[:, None] * up - back) / longer[:, None]
    origin = back * camera[:, 2:]
    closest = -(origin * towards).sum(-1)
    chord = (1 - (origin.square().sum(-1) - closest.square())).clamp_min(0).sqrt()
    return origin, towards, closest - chord, chord * (2 / SAMPLES), longer


def fit_loss(
    layout: Layout,
    planes: Tensor,
    hulls: Tensor,
    camera: Tensor,
    pixel: Tensor,
    stored: Tensor,
    shift: Tensor,
) -> Tensor:
    """What the planes (G, W) of shapes with hulls (G, HULL^3) get wrong along rays (G, R) through the pixels by number of cameras
    (G, R, 3), where ``stored`` (G, R, 6) in [0, 1] is seen: errors (4,) of coverage, depth, albedo and shading. The samples are
    shifted (G, R) along the rays, in units of their spacing."""
    shape = torch.arange(len(planes), device=planes.device).repeat_interleave(camera.shape[1])
    camera, stored = camera.flatten(0, 1), stored.flatten(0, 1)
    origin, towards, near, spacing, longer = rays_through(camera, pixel.flatten())
    near = near + spacing * shift.flatten()
    ray, depth = marched(origin, towards, near, spacing, SAMPLES, hulls, shape)
    # What lies well behind the surface is not seen, and need not be asked.
    hidden = torch.where(stored[:, 3] > 0.99, (stored[:, 5] * 2 + camera[:, 2] - 1) * longer + BEHIND, math.inf)
    asked = depth < hidden[ray]
    ray, depth = ray[asked], depth[asked]
    points = origin[ray] + towards[ray] * depth[:, None]
    side = layout.sizes.side
    met = features_of(planes.view(-1, 3, side, side, PLANE_WIDTH), points, shape[ray])
    features, density = layout.point_of(met)
    found = composited(torch.cat([features, (depth - 2.5)[:, None]], 1), density * spacing[ray], ray, len(camera))
    opacity, far = found[:, -1], found[:, -2]
    albedo, normal = layout.surface_of(found[:, :-2], opacity.detach())
    shading = AMBIENT + (1 - AMBIENT) * F.relu((normal * light_of(Cameras.of_condition(camera))).sum(-1))
    cover = stored[:, 3]
    inside = cover.clamp_min(1e-3)
    wanted = ((stored[:, 5] / inside) * 2 + camera[:, 2] - 1) * longer - 2.5
    depth_error = F.smooth_l1_loss(far, wanted * opacity.detach(), reduction="none", beta=FAR_ERROR)
    albedo_error = (albedo - stored[:, :3] / inside[:, None]).square().mean(-1)
    shading_error = (shading - stored[:, 4] / inside).square()
    errors = torch.stack([(opacity - cover).square(), cover * depth_error, cover * albedo_error, cover * shading_error])
    return errors.mean(1)


@torch.no_grad()
def held_out(layout: Layout, inside: Tensor, check: list[tuple[int, Tensor, Tensor, Tensor]]) -> dict[str, float]:
    """The errors of views that are never trained on, as ``Rays.held_out`` gives them."""
    found = []
    for k, *seen in check:
        planes = layout.planes.weight[k : k + 1]
        given = [x.to(planes.device) for x in (*seen, torch.zeros(1, 4096))]
        found.append(fit_loss(layout, planes, inside[k : k + 1], *given))
    errors = torch.stack(found).mean(0).tolist()
    return dict(zip(("held_cover", "held_depth", "held_albedo", "held_shading"), errors, strict=True))


class Rays:
    """Random rays of the data's shapes."""

    def __init__(self, data: Data, views: int, rays: int):
        self.data, self.views, self.rays = data, views, rays
        camera = torch.from_numpy(data.cameras)
        self.camera = torch.cat([camera[:, :2].deg2rad(), camera[:, 2:]], 1)

    def of(self, shapes: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Cameras (G, R, 3), pixels by number (G, R), and what is stored there (G, R, 6) in [0, 1]."""
        rows = np.concatenate([rng.choice(self.data.rows[int(k)], self.views, replace=False) for k in shapes])
        count = self.rays // self.views
        pixel, stored = chosen(self.data.pixels, rows, count, EMPTY_SHARE, int(rng.integers(2**31)))
        camera = self.camera[torch.from_numpy(rows)].repeat_interleave(count, 0)
        shape = (len(shapes), count * self.views)
        return camera.view(*shape, 3), torch.from_numpy(pixel).view(shape), torch.from_numpy(stored).view(*shape, 6)

    def held_out(self, count: int) -> list[tuple[int, Tensor, Tensor, Tensor]]:
        """For ``count`` shapes by number, all pixels of a view that is never trained on, as ``of`` has them."""
        out = []
        for k in self.data.mine[:: max(1, len(self.data.mine) // count)][:count]:
            row = int(self.data.validation[int(k)][-1])
            stored = torch.from_numpy(self.data.pixels[row]).float().flatten(1).T[None] / 255
            out.append((int(k), self.camera[row].expand(1, 4096, 3), torch.arange(4096)[None], stored))
        return out


def hulls_of(data: Data, path: Path) -> Tensor:
    """The hulls of all shapes as bits, kept at ``path``."""
    if not path.exists() or len(load_file(path)["hull"]) != len(data.shapes):
        bits = torch.zeros(len(data.shapes), HULL**3 // 8, dtype=torch.uint8)
        for k in range(len(data.shapes)):
            camera = torch.from_numpy(data.cameras[data.rows[k]])
            camera = torch.cat([camera[:, :2].deg2rad(), camera[:, 2:]], 1)
            bits[k] = packed_hull(hull(data.pixels[data.rows[k]], camera))
            if k % 100 == 0:
                print(f"{k}/{len(data.shapes)} hulls carved", flush=True)
        save(path, {"hull": bits})
    return load_file(path)["hull"]


def with_names(packed: dict[str, Tensor], known: list[str], names: list[str]) -> dict[str, Tensor]:
    """Weights whose reader tells the ``known`` names, as ones that tell ``names`` alone. DataError for a name that is not known."""
    if strange := [name for name in names if name not in known]:
        raise DataError(f"--init: these weights cannot read {strange[0]!r}; leave --init out, and run read.py")
    rows = torch.tensor([known.index(name) for name in names])
    return packed | {key: packed[key][rows] for key in ("name.weight", "name.bias")}


def fresh(data: Data, hulls: Tensor, init: Path | None, side: int) -> Layout:
    """A layout that knows the data's names, how its shapes are painted, and where they can be; planes of ``side`` squared."""
    layout = Layout(Sizes(len(data.shown), len(data.shapes), FACTORS, len(PROPORTIONS), side))
    if init is not None:
        packed, record = unpacked(load_file(init)), init.with_suffix(".json")
        if record.is_file():
            packed = with_names(packed, list(json.loads(record.read_text())["vocabulary"]), list(data.shown))
        known = packed["planes.weight"].shape == layout.planes.weight.shape
        taken = {k: v.float() for k, v in packed.items() if k.startswith(READING + SHAPES * known)}
        layout.load_state_dict(taken, strict=False)
        print(f"{len(taken)} tensors begin as in {init}", flush=True)
    layout.name_shapes([[data.shapes.index(stem) for stem in stems] for stems in data.shown.values()])
    layout.stretches.copy_(torch.tensor(list(PROPORTIONS.values())))
    layout.hull.copy_(hulls)
    layout.paint.copy_(torch.from_numpy(data.rules).nan_to_num(nan=-1.0))
    return layout


def load_layout(path: Path) -> Layout:
    """The layout of a training folder."""
    weights = {k[6:]: v for k, v in load_file(path).items() if k.startswith("model.")}
    layout = Layout(Sizes.of(weights))
    layout.load_state_dict(weights)
    return layout.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="packed weights to begin with, without a checkpoint")
    parser.add_argument(
        "--rounds", type=int, default=300, help="visits to each shape; the rate falls over the last 60 %%"
    )
    parser.add_argument("--batch", type=int, default=32, help="shapes a step")
    parser.add_argument("--rays", type=int, default=192, help="rays of each shape a step")
    parser.add_argument("--views", type=int, default=8, help="views of each shape that they come from")
    parser.add_argument("--lr", type=float, default=3e-2, help="the rate of the planes")
    parser.add_argument("--side", type=int, default=32, help="cells along a side of each plane: the size of the prior")
    parser.add_argument(
        "--leave-out", type=int, default=0, metavar="N", help="shapes that are never shown, each of another name"
    )
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, or auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        fit(args)
    except (DataError, UserError) as error:
        print(f"fit: {error}", file=sys.stderr)
        sys.exit(2)


def left_out_for(run: Path, data: Path, count: int, begun: bool) -> dict[str, str]:
    """The shapes that a run leaves out, by name; listed in its folder when it begins. DataError if one that has begun leaves out another
    number."""
    if begun:
        found = left_out_of(run)
        if len(found) != count:
            raise DataError(
                f"{run} has left out {len(found)} shapes from its beginning; --leave-out cannot change that"
            )
        return found
    found = choose_left_out(shown_by(data), own_names(), count)
    (run / "left-out.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def fit(args: argparse.Namespace) -> None:
    """Train until the rounds are over or a signal comes; write the checkpoint."""
    if not 4 <= args.side <= 128:
        raise DataError(f"--side {args.side} is not allowed: 4 to 128")
    if args.leave_out < 0:
        raise DataError(f"--leave-out {args.leave_out} is not allowed: 0 or more")
    if args.init and not args.init.is_file():
        raise DataError(f"there is no file {args.init} to begin with")
    device = pick_device(args.device)
    args.run.mkdir(parents=True, exist_ok=True)
    path = args.run / "layout.safetensors"
    left_out = left_out_for(args.run, args.data, args.leave_out, begun=path.exists())
    data = Data(args.data, left_out.values())
    rays = Rays(data, args.views, args.rays)
    stored = load_file(path) if path.exists() else {}
    first = step = int(stored.get("step", torch.tensor(0)))
    rng = np.random.default_rng([args.seed, step])
    torch.manual_seed(args.seed + step)
    hulls = hulls_of(data, args.run / "hulls.safetensors")
    layout = load_layout(path) if stored else fresh(data, hulls, args.init, args.side)
    if layout.sizes.side != args.side:
        raise DataError(f"{args.run} has planes of {layout.sizes.side} squared; --side cannot change that")
    layout.to(device).requires_grad_(True)
    inside = layout.inside()
    dense = [p for part in (layout.point, layout.density, layout.surface) for p in part.parameters()]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(dense, lr=3e-3, betas=(0.9, 0.98), weight_decay=1e-3),
        torch.optim.SparseAdam([layout.planes.weight], lr=args.lr, betas=(0.9, 0.98)),
    ]
    tops = [3e-3, args.lr]
    parameters = [*dense, layout.planes.weight]
    for k, p in enumerate(parameters):
        if f"adam.step.{k}" in stored:
            means = {key: stored[f"adam.{key}.{k}"].to(device) for key in ("exp_avg", "exp_avg_sq")}
            count = stored[f"adam.step.{k}"]  # AdamW keeps it on the CPU, SparseAdam as a number
            optimizers[k == len(dense)].state[p] = means | {"step": int(count) if k == len(dense) else count}
    check = rays.held_out(48)
    steps = args.rounds * len(data.mine) // args.batch
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopped.append(n))
    began = saved = time.time()
    queue: list[int] = []
    total = torch.zeros(4, device=device)

    def store() -> None:
        tensors = {f"model.{k}": v for k, v in layout.state_dict().items()}
        for k, p in enumerate(parameters):
            state = optimizers[k == len(dense)].state.get(p, {})
            tensors |= {f"adam.{key}.{k}": torch.as_tensor(value) for key, value in state.items()}
        save(path, tensors | {"step": torch.tensor(step), "seen": torch.tensor(step * args.batch)})

    while step < steps and not stopped:
        while len(queue) < args.batch:
            queue += rng.permutation(data.mine).tolist()
        shapes, queue = np.array(queue[: args.batch]), queue[args.batch :]
        camera, pixel, seen = rays.of(shapes, rng)
        given = [x.to(device) for x in (camera, pixel, seen, torch.rand(pixel.shape) - 0.5)]
        number = torch.from_numpy(shapes).to(device)
        errors = fit_loss(layout, layout.planes(number), inside[number], *given)
        rate = max(0.02, min(1.0, (steps - step) / (0.6 * steps)))
        for optimizer, top in zip(optimizers, tops, strict=True):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = top * rate
        errors.sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        total += errors.detach()
        if step % LINE == 0:
            record = dict(zip(("cover", "depth", "albedo", "shading"), (total / LINE).tolist(), strict=True))
            record = {"seen": step * args.batch, "loss": float(total.sum() / LINE)} | record
            if step % (5 * LINE) == 0:
                record |= held_out(layout, inside, check)
            record["per_second"] = (step - first) * args.batch / (time.time() - began)
            print(f"{step}/{steps} " + " ".join(f"{k} {v:.5g}" for k, v in record.items()), flush=True)
            with (args.run / "layout.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            total.zero_()
        if time.time() - saved > SAVE_EVERY:
            store()
            saved = time.time()
    store()


if __name__ == "__main__":
    main()
