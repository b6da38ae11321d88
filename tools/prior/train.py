"""Train the bundled prior, one of its two networks at a time; stop it at will, start it again to go on.

    python tools/prior/train.py layout   --data data/prior --out data/prior-run --pictures 500000
    python tools/prior/train.py denoiser --data data/prior --out data/prior-run --pictures 300000

The layout is trained first; the denoiser reads the newest layout weights from the same folder every few minutes, so the
two may also run side by side. ``--init`` goes on from packed weights (``src/dreamfusion/priors/weights``) where the
folder has no checkpoint yet. ``<out>/<network>.jsonl`` is the loss curve.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from dataset import Batch, Data
from planes import Planes, spread_names
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from vocabulary import held_out_pairs

from dreamfusion.priors.base import broadcast, cosine_schedule
from dreamfusion.priors.bundled import inference_dtype
from dreamfusion.priors.network import Denoiser, Layout

WITHOUT_TEXT = 0.1
EMA = 0.999
LINE = 100  # steps a line of the loss curve
NETWORKS: dict[str, type[nn.Module]] = {"layout": Layout, "denoiser": Denoiser, "planes": Planes}
FAST = inference_dtype("auto", torch.device("cpu")) == torch.bfloat16  # elsewhere bfloat16 is ten times slower


def layout_loss(model: Layout | Planes, batch: Batch, coarse: bool = False) -> Tensor:
    """Mean squared error of the mean picture, at half the size where ``coarse``."""
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        guess = model(batch.tokens, batch.mask, batch.camera, batch.has_camera, coarse)
    return F.mse_loss(guess, F.avg_pool2d(batch.pictures, 2) if coarse else batch.pictures)


def camera_loss(model: Planes, batch: Batch) -> Tensor:
    """How far off the camera is that the words let the planes guess; left and right count as the same side."""
    azimuth, elevation, _ = batch.camera.unflatten(0, (len(batch.tokens), -1))[:, 0].unbind(-1)
    _, pooled = model.words(batch.tokens, batch.mask)
    return F.mse_loss(model.guess(pooled), torch.stack([azimuth.sin().abs(), azimuth.cos(), elevation], -1))


def denoiser_loss(model: Denoiser, layout: Layout, batch: Batch, rng: torch.Generator) -> Tensor:
    """v-prediction loss, E |v_hat - (alpha e - sigma x)|^2 (Salimans & Ho 2022), t stratified over the batch."""
    size = len(batch.camera)
    has_text = torch.rand(size, generator=rng) >= WITHOUT_TEXT
    has_camera = batch.has_camera & has_text
    t = (torch.arange(size) + torch.rand(size, generator=rng)) / size
    alpha, sigma = (broadcast(x, batch.pictures) for x in cosine_schedule(t))
    noise = torch.randn(batch.pictures.shape, generator=rng)
    z_t = alpha * batch.pictures + sigma * noise
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        with torch.no_grad():
            mean = layout(batch.tokens, batch.mask, batch.camera, has_camera) * has_text[:, None, None, None]
        v = model(z_t, t, mean, batch.tokens, batch.mask, batch.camera, has_text, has_camera)
    return F.mse_loss(v, alpha * noise - sigma * batch.pictures)


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


def unpack(packed: Path, out: Path) -> None:
    """Start the networks that have no checkpoint in ``out`` from packed weights, at the count and loss on record."""
    stored, record = load_file(packed), json.loads(packed.with_suffix(".json").read_text())
    for network in ("layout", "denoiser"):
        target = out / f"{network}.safetensors"
        if not target.exists():
            weights = {k.split(".", 1)[1]: v.float() for k, v in stored.items() if k.startswith(network + ".")}
            tensors = {f"{kind}.{k}": v.clone() for k, v in weights.items() for kind in ("model", "ema")}
            save(target, tensors | {"seen": torch.tensor(record[network]["pictures"])})
            line = {"seen": record[network]["pictures"], "loss": record[network]["loss"]}
            if held := record[network]["held_out_loss"]:
                line["held_out"] = held
            (out / f"{network}.jsonl").write_text(json.dumps(line) + "\n")


def start_words(model: Planes, packed: Path) -> None:
    """Read words and cameras as the packed layout does."""
    known = {k.removeprefix("layout."): v.float() for k, v in load_file(packed).items()}
    shared = {k: v for k, v in known.items() if k.startswith(("words.", "camera."))}
    model.load_state_dict(model.state_dict() | shared)


def load_layout(path: Path) -> Layout:
    """The layout's averaged weights from a training folder."""
    layout = Layout()
    layout.load_state_dict({k[4:]: v for k, v in load_file(path).items() if k.startswith("ema.")})
    return layout.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="packed weights to start both networks from")
    parser.add_argument(
        "--pictures", type=int, default=500_000, help="pictures to see in all; the rate falls over the last 45 %%"
    )
    parser.add_argument("--coarse", action="store_true", help="layout: train the 32 x 32 stages only, twice as fast")
    parser.add_argument("--batch", type=int, default=32, help="pictures a step")
    parser.add_argument("--views", type=int, default=2, help="planes: pictures of a step that share a caption")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    data = Data(args.data)
    print(f"{len(data.names)} names, {len(data.pixels)} views", flush=True)
    model: nn.Module = NETWORKS[args.network]()
    checkpoint, seen = args.out / f"{args.network}.safetensors", 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    ema: dict[str, Tensor] = {}
    if args.init:
        unpack(args.init, args.out)
    if checkpoint.exists():
        stored = load_file(checkpoint)
        model.load_state_dict({k[6:]: v for k, v in stored.items() if k.startswith("model.")})
        ema = {k[4:]: v for k, v in stored.items() if k.startswith("ema.")}
        seen = int(stored["seen"])
        for name, p in model.named_parameters():
            if f"adam.step.{name}" in stored:
                optimizer.state[p] = {key: stored[f"adam.{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")}
    elif isinstance(model, Planes):
        if args.init:
            start_words(model, args.init)
        spread_names(model, data)
    model = model.to(memory_format=torch.channels_last)
    if not ema:
        ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
    np_rng, rng = np.random.default_rng([args.seed, seen]), torch.Generator().manual_seed(args.seed + seen)
    validation = held_out_batch(data, 96, 7)
    layout, layout_read = None, 0.0
    views = args.views if args.network == "planes" else 1
    start, first, saved, lines = time.time(), seen, time.time(), 0
    losses: list[float] = []
    decay_over = min(0.45 * args.pictures, 0.7 * (args.pictures - first))

    def store() -> None:
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"ema.{k}": v for k, v in ema.items()}
        for name, p in model.named_parameters():
            tensors |= {f"adam.{key}.{name}": value for key, value in optimizer.state.get(p, {}).items()}
        save(checkpoint, tensors | {"seen": torch.tensor(seen)})

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopped.append(n))
    while seen < args.pictures and not stopped:
        if args.network == "denoiser" and time.time() - layout_read > 240:
            layout, layout_read = load_layout(args.out / "layout.safetensors"), time.time()
        batch = data.batch(args.batch // views, np_rng, views)
        if isinstance(model, Layout | Planes):
            total = loss = layout_loss(model, batch, args.coarse)
            if isinstance(model, Planes):
                total = loss + 0.02 * camera_loss(model, batch)
        else:
            assert isinstance(model, Denoiser) and layout is not None
            total = loss = denoiser_loss(model, layout, batch, rng)
        optimizer.zero_grad()  # stages that are not trained now keep no gradient, so AdamW leaves them alone
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = min(1.0, (seen - first + args.batch) / (100 * args.batch), (args.pictures - seen) / decay_over)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 0.005)
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
            if lines % 5 == 0:
                check = NETWORKS[args.network]()
                check.load_state_dict(ema)
                with torch.no_grad():
                    g = torch.Generator().manual_seed(1)
                    if isinstance(check, Layout | Planes):
                        record["held_out"] = float(layout_loss(check, validation, args.coarse))
                    elif layout is not None:
                        record["held_out"] = float(denoiser_loss(check, layout, validation, g))
            print(" ".join(f"{k} {v:.5g}" for k, v in record.items()), flush=True)
            with (args.out / f"{args.network}.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            losses = []
        if time.time() - saved > 120:
            store()
            saved = time.time()
    store()


if __name__ == "__main__":
    main()
