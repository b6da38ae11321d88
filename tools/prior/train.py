r"""Train the bundled prior, one of its two networks at a time; stop it at will, start it again to go on.

    torchrun --nproc-per-node 2 tools/prior/train.py layout --data data/prior --out data/prior-run --rays 16 --pictures 150000
    torchrun --nproc-per-node 2 tools/prior/train.py layout --data data/prior --out data/prior-run --pictures 250000
    torchrun --nproc-per-node 2 tools/prior/train.py denoiser --data data/prior --out data/prior-run --batch 16 --lr 2e-3 \
        --pictures 60000

``python`` instead of ``torchrun …`` trains in one process. The layout is trained first; the denoiser reads the newest layout
weights from the same folder every few minutes. ``--init`` goes on from packed weights (``src/dreamfusion/priors/weights``)
where the folder has no checkpoint yet. ``<out>/<network>.jsonl`` is the loss curve.
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from vocabulary import held_out_pairs

from dreamfusion.device import inference_dtype
from dreamfusion.priors.denoiser import Denoiser, around_layout, spread
from dreamfusion.priors.layout import Layout, before
from dreamfusion.priors.prior import broadcast, cosine_schedule

WITHOUT_TEXT, PLAIN_GRAY = 0.1, 0.25
EMA = 0.999
READING, READING_RATE = ("words.", "thing.", "look.", "guess."), 5e-4  # at a higher rate the guess dies
LINE = 100  # steps a line of the loss curve
SAVE_EVERY, LAYOUT_AGE = 240.0, 900.0  # seconds
NETWORKS: dict[str, type[nn.Module]] = {"layout": Layout, "denoiser": Denoiser}
FAST = inference_dtype("auto", torch.device("cpu")) == torch.bfloat16  # elsewhere bfloat16 is ten times slower


def layout_loss(model: Layout, batch: Batch, rays: int) -> tuple[Tensor, Tensor]:
    """Mean squared error of the mean picture over mid-gray at twice ``rays`` a side, and what to minimise: that over random
    backgrounds, and the reading loss.

    A background's channels are uniform in [-1, 1], so the coverage's error counts by their mean square, 1/3. Things and
    looks are drawn by their numbers; reading them from the words is learned beside it.
    """
    views = len(batch.camera) // len(batch.thing)
    thing, look, guess = model.read(batch.tokens, batch.mask)
    azimuth, elevation, _ = batch.camera[::views].unbind(-1)
    # left and right count as the same side
    side = F.mse_loss(direction(guess), direction(torch.stack([azimuth.abs(), elevation], -1)))
    reading = F.cross_entropy(thing, batch.thing) + F.cross_entropy(look, batch.look) + side
    stand = torch.where(batch.has_camera[:, None], batch.camera, guess.detach().repeat_interleave(views, 0))
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        pictures = model.draw(model.planes(batch.thing), model.looks(batch.look), stand, batch.has_camera, rays)
    wanted = F.interpolate(torch.cat([batch.pictures, batch.cover], 1), size=2 * rays, mode="area")
    error, cover = F.mse_loss(pictures[:, :3], wanted[:, :3]), F.mse_loss(pictures[:, 3], wanted[:, 3])
    return error, error + cover / 3 + 0.02 * reading


def layout_error(model: Layout, batch: Batch, rays: int) -> Tensor:
    """Mean squared error of the mean picture, all from words."""
    mean = model(batch.tokens, batch.mask, batch.camera, batch.has_camera)
    return F.mse_loss(
        F.interpolate(mean, size=2 * rays, mode="area"), F.interpolate(batch.pictures, size=2 * rays, mode="area")
    )


def direction(camera: Tensor) -> Tensor:
    """Unit vectors (B, 3) towards cameras given by azimuth and elevation."""
    azimuth, elevation = camera[:, 0], camera[:, 1]
    return torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)


def denoiser_loss(model: Denoiser, layout: Layout, batch: Batch, rng: torch.Generator) -> Tensor:
    """v-prediction loss, E |v_hat - (alpha e - sigma x)|^2 (Salimans & Ho 2022), t stratified over the batch.

    In units of what a Gaussian around the layout would leave at that t, so that all t count alike: 1 is having learned nothing.
    """
    size = len(batch.camera)
    has_text = torch.rand(size, generator=rng) >= WITHOUT_TEXT
    has_camera = batch.has_camera & has_text
    t = (torch.arange(size) + torch.rand(size, generator=rng)) / size
    alpha, sigma = (broadcast(x, batch.pictures) for x in cosine_schedule(t))
    noise = torch.randn(batch.pictures.shape, generator=rng)
    background = torch.rand(size, 3, generator=rng) * 2 - 1
    background *= torch.rand(size, 1, generator=rng) >= PLAIN_GRAY
    pictures = before(torch.cat([batch.pictures, batch.cover], 1), background)
    z_t = alpha * pictures + sigma * noise
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        with torch.no_grad():
            mean = layout(batch.tokens, batch.mask, batch.camera, has_camera, background)
            mean = torch.where(has_text[:, None, None, None], mean, background[:, :, None, None])
        v = model(z_t, t, mean, batch.tokens, batch.mask, batch.camera, has_text, has_camera)
    _, _, scale = around_layout(z_t, t, mean, spread(has_text, has_camera))
    return ((v - alpha * noise + sigma * pictures) / scale).square().mean()


def held_out_batch(data: Data, count: int, seed: int) -> Batch:
    """Pictures of colour-object pairs that training never shows, always the same ones."""
    rng = np.random.default_rng(seed)
    pairs = [p for p in held_out_pairs() if p[0] in data.names]
    chosen = [pairs[i] for i in rng.integers(len(pairs), size=count)]
    return data.make([(n, c, int(rng.integers(*data.span[n])), False) for n, c in chosen], None)


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
    temporary.rename(path)


def start_from(model: nn.Module, network: str, packed: Path) -> int:
    """Take over all weights that fit from packed ones; returns the pictures they have seen, 0 unless all of them fit."""
    stored, record = load_file(packed), json.loads(packed.with_suffix(".json").read_text())
    own = model.state_dict()
    known = {k.removeprefix(network + "."): v.float() for k, v in stored.items() if k.startswith(network + ".")}
    fit = {k: v for k, v in known.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(own | fit)
    print(f"{len(fit)} of {len(own)} tensors start from {packed}", flush=True)
    return int(record[network]["pictures"]) if len(fit) == len(own) else 0


def load_layout(path: Path) -> Layout:
    """The layout's averaged weights from a training folder."""
    layout = Layout()
    layout.load_state_dict({k[4:]: v for k, v in load_file(path).items() if k.startswith("ema.")})
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
    data = Data(args.data)
    validation = held_out_batch(data, 96, 7)
    data.names = data.names[together.rank :: together.count]
    print(f"{len(data.names)} names, {len(data.pixels)} views", flush=True)
    model: nn.Module = NETWORKS[args.network]()
    checkpoint, seen = args.out / f"{args.network}.safetensors", 0
    stored = load_file(checkpoint) if checkpoint.exists() else {}
    if stored:
        model.load_state_dict({k[6:]: v for k, v in stored.items() if k.startswith("model.")})
        seen = int(stored["seen"])
    elif args.init:
        seen = start_from(model, args.network, args.init)
    model = model.to(memory_format=torch.channels_last)
    sparse = [p for n, p in model.named_parameters() if n == "planes.weight"]
    reading = [p for n, p in model.named_parameters() if args.network == "layout" and n.startswith(READING)]
    dense = [p for n, p in model.named_parameters() if n != "planes.weight"]
    drawing = [p for p in dense if not any(p is q for q in reading)]
    groups = [{"params": drawing, "top": args.lr}, {"params": reading, "top": min(args.lr, READING_RATE)}]
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
    ema = {k: stored.get(f"ema.{k}", v).detach().clone() for k, v in model.state_dict().items()}
    np_rng = np.random.default_rng([args.seed, seen, together.rank])
    rng = torch.Generator().manual_seed(args.seed + seen + 7919 * together.rank)
    layout, layout_read = None, 0.0
    views = args.views if args.network == "layout" else 1
    start, first, saved, lines = time.time(), seen, time.time(), 0
    losses: list[float] = []
    decay_over = min(0.45 * args.pictures, 0.7 * (args.pictures - first))

    def store() -> None:
        weights = model.state_dict()
        tensors = {f"model.{k}": v for k, v in weights.items()} | {f"ema.{k}": v for k, v in ema.items()}
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
        batch = data.batch(args.batch // views // together.count, np_rng, views)
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
        torch._foreach_lerp_([ema[k] for k in weights], list(weights.values()), 1 - decay)
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
                check = NETWORKS[args.network]()
                check.load_state_dict(ema)
                with torch.no_grad():
                    g = torch.Generator().manual_seed(1)
                    if isinstance(check, Layout):
                        record["held_out"] = float(layout_error(check, validation, args.rays))
                    elif layout is not None:
                        record["held_out"] = float(denoiser_loss(check, layout, validation, g))
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
