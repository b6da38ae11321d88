r"""Train the bundled prior, one of its two networks at a time; stop it at will, start it again to go on.

    python tools/prior/train.py layout --data data/wide --out data/wide-run --rays 8 --pictures 110000
    python tools/prior/train.py layout --data data/wide --out data/wide-run --rays 16 --pictures 270000
    python tools/prior/train.py layout --data data/wide --out data/wide-run --rays 32 --pictures 350000
    python tools/prior/train.py denoiser --data data/wide --out data/wide-run --batch 16 --lr 2e-3 --pictures 60000

``torchrun --nproc-per-node 2`` in place of ``python`` trains in two processes. The layout is trained first; the denoiser reads the
newest layout weights from the same folder every few minutes. ``--init`` starts from packed weights
(``src/dreamfusion/priors/weights``) where the folder has no checkpoint yet. ``<out>/<network>.jsonl`` is the loss curve.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from dataset import Batch, Data
from looks import FACTORS, PROPORTIONS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamfusion.device import inference_dtype
from dreamfusion.priors.denoiser import SPREAD, Denoiser, around_layout
from dreamfusion.priors.layout import INSTANCES, Layout, Sizes, before
from dreamfusion.priors.prior import broadcast, cosine_schedule

PLAIN_GRAY = 0.25
CAMERA_ERROR = (0.03, 0.035, 0.025)  # radians, radians, distance: what inferring a camera leaves
EMA = 0.999
READING = ("words.", "name.", "look.", "proportion.")  # read.py teaches them
LINE = 100  # steps a line of the loss curve
SAVE_EVERY, LAYOUT_AGE = 240.0, 900.0  # seconds
NETWORKS = ("layout", "denoiser")
FAST = inference_dtype("auto", torch.device("cpu")) == torch.bfloat16  # elsewhere bfloat16 is ten times slower


def style_of(model: Layout, look: Tensor) -> Tensor:
    """Styles (G, S) of looks (G, 3) by number."""
    first = torch.tensor([0, *model.sizes.looks[:-1]]).cumsum(0)
    return model.looks(look + first).sum(1)


def drawn_as(model: Layout, shape: Tensor, look: Tensor, camera: Tensor, rays: int = 32) -> Tensor:
    """Pictures over mid-gray and coverage (B, 4, 2 rays, 2 rays) of shapes (G,) and looks (G, 3) by number."""
    return model.draw(model.planes(shape), style_of(model, look), camera, rays)


def decoder_loss(model: Layout, planes: Tensor, batch: Batch, rays: int) -> tuple[Tensor, Tensor]:
    """Of planes (G, W): mean squared error of the mean picture over mid-gray at twice ``rays`` a side, and what to minimise: that
    over random backgrounds. A background's channels are uniform in [-1, 1], so the coverage's error counts by their mean
    square, 1/3.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        pictures = model.draw(planes, style_of(model, batch.look), batch.camera, rays)
    wanted = F.interpolate(torch.cat([batch.pictures, batch.cover], 1), size=2 * rays, mode="area")
    error, cover = F.mse_loss(pictures[:, :3], wanted[:, :3]), F.mse_loss(pictures[:, 3], wanted[:, 3])
    return error, error + cover / 3


def layout_loss(model: Layout, batch: Batch, rays: int) -> tuple[Tensor, Tensor]:
    """``decoder_loss`` of the shapes' own planes."""
    return decoder_loss(model, model.planes(batch.shape), batch, rays)


def denoiser_loss(model: Denoiser, layout: Layout, batch: Batch, rng: torch.Generator) -> Tensor:
    """v-prediction loss, E |v_hat - (alpha e - sigma x)|^2 (Salimans & Ho 2022), t stratified over the batch.

    In units of what a Gaussian around the layout would leave at that t, so that all t count alike: 1 is having learned nothing.
    Half of the layouts are drawn from a camera that is a little off, as where it is inferred and not told.
    """
    size = len(batch.camera)
    t = (torch.arange(size) + torch.rand(size, generator=rng)) / size
    alpha, sigma = (broadcast(x, batch.pictures) for x in cosine_schedule(t))
    noise = torch.randn(batch.pictures.shape, generator=rng)
    background = torch.rand(size, 3, generator=rng) * 2 - 1
    background *= torch.rand(size, 1, generator=rng) >= PLAIN_GRAY
    pictures = before(torch.cat([batch.pictures, batch.cover], 1), background)
    off = torch.randn(size, 3, generator=rng) * torch.tensor(CAMERA_ERROR) * (torch.arange(size) % 2)[:, None]
    z_t = alpha * pictures + sigma * noise
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        with torch.no_grad():
            mean = before(drawn_as(layout, batch.shape, batch.look, batch.camera + off), background)
        v = model(z_t, t, mean)
    _, _, scale = around_layout(z_t, t, mean, SPREAD)
    return ((v - alpha * noise + sigma * pictures) / scale).square().mean()


def name_shapes(model: Layout, data: Data) -> None:
    """Write into the layout which shapes show each name, and the proportions."""
    number = {stem: k for k, stem in enumerate(data.shapes)}
    rows = [[number[stem] for stem in stems] for stems in data.shown.values()]
    model.shown.copy_(torch.tensor([(row * INSTANCES)[:INSTANCES] for row in rows]))
    model.stretches.copy_(torch.tensor(list(PROPORTIONS.values())))


def sizes_of(data: Data) -> Sizes:
    """The layout's sizes for a vocabulary."""
    return Sizes(len(data.shown), len(data.shapes), FACTORS, len(PROPORTIONS))


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
    temporary.rename(path)


def start_from(model: nn.Module, network: str, packed: Path) -> None:
    """Take over all weights that fit from packed ones. Of a layer that has more inputs now, the new ones start at zero."""
    own = model.state_dict()
    taken = 0
    for key, value in load_file(packed).items():
        name = key.removeprefix(network + ".")
        if name == key or name not in own:
            continue
        if name == "join.weight" and value.shape[1] < own[name].shape[1]:
            value = F.pad(value.float(), (0, 0, 0, 0, 0, own[name].shape[1] - value.shape[1]))
        if own[name].shape == value.shape:
            own[name].copy_(value)
            taken += 1
    model.load_state_dict(own)
    print(f"{taken} of {len(own)} tensors start from {packed}", flush=True)


def load_layout(path: Path) -> Layout:
    """The layout's averaged weights from a training folder."""
    stored = load_file(path)
    tensors = {k[4:]: v for k, v in stored.items() if k.startswith("ema.")}
    tensors["planes.weight"] = stored["model.planes.weight"]
    layout = Layout(Sizes.of(tensors))
    layout.load_state_dict(tensors, strict=False)
    return layout.to(memory_format=torch.channels_last).eval().requires_grad_(False)


class Together:
    """What processes that train one model side by side (torchrun) say to each other; alone, nothing.

    Gradients of dense parameters are averaged. Each process draws its own things, so that their planes belong to it.
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1:
            torch.distributed.init_process_group("gloo")
        self.rank = torch.distributed.get_rank() if self.count > 1 else 0

    def average(self, parameters: list[nn.Parameter], flags: list[bool]) -> list[bool]:
        """Average the gradients in place; each flag comes back true if any process raised it."""
        if self.count == 1:
            return flags
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in grads), torch.tensor([float(f) for f in flags])])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        start = 0
        for g in grads:
            g.copy_(flat[start : start + g.numel()].view_as(g))
            start += g.numel()
        return (flat[start:] > 0).tolist()

    def gather_rows(self, table: Tensor) -> None:
        """Give every process the rows that the others own: row k is process k mod count's."""
        if self.count > 1:
            mine = torch.arange(len(table)) % self.count == self.rank
            table.mul_(mine[:, None])
            torch.distributed.all_reduce(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="packed weights to start the network from if it has no checkpoint")
    parser.add_argument(
        "--pictures", type=int, default=500_000, help="pictures to see in all; the rate falls over the last 45 %%"
    )
    parser.add_argument("--rays", type=int, default=32, choices=(8, 16, 32), help="layout: rays a side; start with few")
    parser.add_argument("--batch", type=int, default=24, help="pictures a step, of all processes together")
    parser.add_argument("--views", type=int, default=2, help="layout: pictures of a step that share a caption")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--planes-lr", type=float, default=4e-2, help="layout: the rate of the things' planes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    together = Together()
    data = Data(args.data, together.rank, together.count)
    checks = {
        "held_out_views": data.held_out_batch(96, 7, new_looks=False),
        "held_out_looks": data.held_out_batch(96, 8, new_looks=True),
    }
    print(f"{len(data.mine)} shapes, {len(data.pixels)} views", flush=True)
    model: nn.Module = Layout(sizes_of(data)) if args.network == "layout" else Denoiser()
    if isinstance(model, Layout):
        name_shapes(model, data)
    checkpoint, seen = args.out / f"{args.network}.safetensors", 0
    stored = load_file(checkpoint) if checkpoint.exists() else {}
    if stored:
        model.load_state_dict({k[6:]: v for k, v in stored.items() if k.startswith("model.")})
        seen = int(stored["seen"])
    elif args.init:
        start_from(model, args.network, args.init)
    model = model.to(memory_format=torch.channels_last)
    sparse = [p for n, p in model.named_parameters() if n == "planes.weight"]
    dense = [p for n, p in model.named_parameters() if n != "planes.weight" and not n.startswith(READING)]
    groups = [{"params": dense, "top": args.lr}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    ]
    if sparse:  # a row moves only when its thing is seen
        optimizers.append(torch.optim.SparseAdam([{"params": sparse, "top": args.planes_lr}], betas=(0.9, 0.98)))
    state = {name: optimizers[int(name == "planes.weight")].state for name, _ in model.named_parameters()}
    for name, p in model.named_parameters():
        if f"adam.step.{name}" in stored:
            state[name][p] = {key: stored[f"adam.{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")}
            if name == "planes.weight":
                state[name][p]["step"] = int(state[name][p]["step"])
    # Planes have no average: a row moves once in a hundred steps, and averaging all rows would cost more than a step.
    averaged = [n for n, p in model.named_parameters() if n != "planes.weight"]
    ema = {k: stored.get(f"ema.{k}", v).detach().clone() for k, v in model.state_dict().items() if k in averaged}
    np_rng = np.random.default_rng([args.seed, seen, together.rank])
    rng = torch.Generator().manual_seed(args.seed + seen + 7919 * together.rank)
    layout, layout_read = None, 0.0
    views = args.views if args.network == "layout" else 1
    start, first, saved, lines = time.time(), seen, time.time(), 0
    losses: list[float] = []
    decay_over = min(0.45 * args.pictures, 0.7 * (args.pictures - first))

    def store() -> None:
        weights = model.state_dict()
        tensors = {f"model.{k}": v for k, v in weights.items()}
        tensors |= {f"ema.{k}": ema[k] if k in ema else v.clone() for k, v in weights.items() if k != "planes.weight"}
        for name, p in model.named_parameters():
            kept = state[name].get(p, {})
            tensors |= {f"adam.{key}.{name}": torch.as_tensor(value) for key, value in kept.items()}
        for key, value in tensors.items():
            if key.endswith("planes.weight") and value.dim() == 2:
                together.gather_rows(value.data)
        if together.rank == 0:
            save(checkpoint, tensors | {"seen": torch.tensor(seen)})

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopped.append(n))
    stop = False
    while seen < args.pictures and not stop:
        if args.network == "denoiser" and time.time() - layout_read > LAYOUT_AGE:
            layout, layout_read = load_layout(args.out / "layout.safetensors"), time.time()
        side = 2 * args.rays if args.network == "layout" else 64
        batch = data.batch(args.batch // views // together.count, np_rng, views, side)
        if isinstance(model, Layout):
            loss, total = layout_loss(model, batch, args.rays)
        else:
            assert isinstance(model, Denoiser) and layout is not None
            total = loss = denoiser_loss(model, layout, batch, rng)
        model.zero_grad()
        total.backward()
        stop, store_now = together.average(dense, [bool(stopped), time.time() - saved > SAVE_EVERY])
        nn.utils.clip_grad_norm_(dense, 1.0)
        rate = min(1.0, (seen - first + args.batch) / (100 * args.batch), (args.pictures - seen) / decay_over)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * max(rate, 0.005)
            optimizer.step()
        seen += args.batch
        decay = min(EMA, 1 - 10 / (10 + seen / args.batch))
        weights = model.state_dict()
        torch._foreach_lerp_([ema[k] for k in averaged], [weights[k] for k in averaged], 1 - decay)
        losses.append(float(loss.detach()))
        if len(losses) == LINE:
            record = {
                "seen": seen,
                "loss": sum(losses) / LINE,
                "rate": args.lr * rate,
                "per_second": (seen - first) / (time.time() - start),
            }
            lines += 1
            if lines % 5 == 0 and together.rank == 0:
                own = {k: v.clone() for k, v in weights.items() if k in ema}
                model.load_state_dict(ema, strict=False)
                with torch.no_grad():
                    for name, check in checks.items():
                        if isinstance(model, Layout):
                            record[name] = float(layout_loss(model, check, args.rays)[0])
                        elif layout is not None:
                            record[name] = float(denoiser_loss(model, layout, check, torch.Generator().manual_seed(1)))
                model.load_state_dict(own, strict=False)
            if together.rank == 0:
                print(" ".join(f"{k} {v:.5g}" for k, v in record.items()), flush=True)
                with (args.out / f"{args.network}.jsonl").open("a") as file:
                    file.write(json.dumps(record) + "\n")
            losses = []
        if store_now:
            store()
            saved = time.time()
    store()


if __name__ == "__main__":
    main()
