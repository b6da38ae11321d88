"""Train one of the two bundled CLIPs; stop it at will, start it again to go on.

    python tools/clip/train.py judge --data data/clip  --out data/clip-run --pictures 220000
    python tools/clip/train.py guide --data data/prior --out data/clip-run --pictures 160000 --seed 77

Cross-entropy of each picture against all captions (every name in every look; a wording drawn afresh at every step), junk
against all alike; the judge also learns the azimuth where the thing has a front. ``<out>/<which>.jsonl`` is the loss curve.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pictures import LOOKS, NAMES, Batch, Table, Views, batch, plain_batch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamfusion.clip.network import AZIMUTHS, Guide, Judge

EMA = 0.998
VIEW_SHARE, HELP = 1.0, 0.5
ROUGH_FROM = 0.4
"""Share of the training after which pictures are as rough as they get; it begins with clean ones."""


def azimuth_target(azimuth_deg: Tensor) -> Tensor:
    """(B, AZIMUTHS) shares: an azimuth between two classes' middles belongs to both, by nearness."""
    place = (azimuth_deg % 360) * (AZIMUTHS / 360)
    low, part = place.floor().long(), place - place.floor()
    rows = torch.arange(len(place))
    target = torch.zeros(len(place), AZIMUTHS)
    target[rows, low % AZIMUTHS] += 1 - part
    target[rows, (low + 1) % AZIMUTHS] += part
    return target


class Trainee(nn.Module):
    """A CLIP with two helpers that training alone needs: plain classes of name and look, which show the tower the way
    long before the captions' own directions are sorted out."""

    def __init__(self, which: str):
        super().__init__()
        self.clip: Judge | Guide = Judge() if which == "judge" else Guide()
        width = self.clip.out[1].in_features
        self.name, self.look = nn.Linear(width, len(NAMES)), nn.Linear(width, len(LOOKS))


def losses(model: Trainee, some: Batch, sentences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy against the captions; of the helpers' classes; of the azimuth (0 for the guide)."""
    clip = model.clip
    if isinstance(clip, Judge):
        seen, turned = clip.features(some.pictures)
        view = clip.azimuth(turned)
    else:
        seen, view = clip.features(some.pictures), None
    seen = clip.out[0](seen)
    logits = F.normalize(clip.out[1](seen), dim=-1) @ clip.words(sentences).T * clip.scale.exp().clamp_max(60)
    logits = logits.log_softmax(-1)
    real = some.label >= 0
    loss = -logits[real, some.label[real]].sum() - logits[~real].mean(-1).sum()
    label = some.label[real]
    helped = F.cross_entropy(model.name(seen[real]), label // len(LOOKS))
    helped = helped + F.cross_entropy(model.look(seen[real]), label % len(LOOKS))
    angle = torch.zeros(())
    known = ~some.azimuth_deg.isnan()
    if view is not None and known.any():
        angle = F.cross_entropy(view[known], azimuth_target(some.azimuth_deg[known]))
    return loss / len(real), helped, angle


@torch.no_grad()
def check(model: Judge | Guide, some: Batch, sentences: Tensor) -> dict[str, float]:
    """Share of held-out pictures whose caption (and whose name) comes first of all; share of views within 45 degrees."""
    model.eval()
    look = torch.cat([model(p) for p in some.pictures.split(64)])
    best = (look @ model.words(sentences).T).argmax(-1)
    found = {
        "top1": float((best == some.label).float().mean()),
        "name_top1": float((best // len(LOOKS) == some.label // len(LOOKS)).float().mean()),
    }
    if isinstance(model, Judge):
        known = ~some.azimuth_deg.isnan()
        guess = torch.cat([model.view(p) for p in some.pictures[known].split(64)]).argmax(-1) * (360 / AZIMUTHS)
        turn = ((guess - some.azimuth_deg[known] + 180) % 360 - 180).abs()
        found["view_within_45"] = float((turn <= 45).float().mean())
    return found


def held_out_batch(views: Views, count: int, seed: int) -> Batch:
    """Views that training never shows, always the same ones, in random looks."""
    rng = np.random.default_rng(seed)
    names, rows = views.rows(count, rng)
    return plain_batch(views, names, rows, rng.integers(0, len(LOOKS), count))


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
    temporary.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("judge", "guide"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--pictures", type=int, default=220_000, help="pictures to see in all; the rate falls as a cosine"
    )
    parser.add_argument(
        "--coarse", type=float, default=0.4, help="share of the training on pictures of 32 x 32, at its beginning"
    )
    parser.add_argument("--rough", type=float, default=1.0, help="how rough pictures get, 0 to 1")
    parser.add_argument("--fronts", type=float, default=2.0, help="how much more often names with a front are drawn")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    bare = args.which == "judge"
    views, unseen = Views(args.data, bare), Views(args.data, bare, held_out=True)
    views.fronts = args.fronts
    table = Table(args.out / "captions.safetensors")
    print(f"{len(views.names)} of {len(NAMES)} names, {len(views.pixels)} views", flush=True)
    model = Trainee(args.which)
    model.clip.words.spread(table.usual())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    checkpoint, seen = args.out / f"{args.which}.safetensors", 0
    ema = {k: v.detach().clone() for k, v in model.clip.state_dict().items()}
    if checkpoint.exists():
        stored = load_file(checkpoint)
        model.load_state_dict({k[6:]: v for k, v in stored.items() if k.startswith("model.")})
        ema = {k[4:]: v for k, v in stored.items() if k.startswith("ema.")}
        seen = int(stored["seen"])
        for name, p in model.named_parameters():
            if f"adam.step.{name}" in stored:
                optimizer.state[p] = {key: stored[f"adam.{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")}
    np_rng, rng = np.random.default_rng([args.seed, seen]), torch.Generator().manual_seed(args.seed + seen)
    validation = held_out_batch(unseen, 768, 7)
    start, first, saved = time.time(), seen, time.time()
    history: list[list[float]] = []

    def store() -> None:
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"ema.{k}": v for k, v in ema.items()}
        for name, p in model.named_parameters():
            tensors |= {f"adam.{key}.{name}": value for key, value in optimizer.state.get(p, {}).items()}
        save(checkpoint, tensors | {"seen": torch.tensor(seen)})

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopped.append(n))
    while seen < args.pictures and not stopped:
        model.train()
        strength = args.rough * min(1.0, seen / (ROUGH_FROM * args.pictures))
        some = batch(views, args.batch, np_rng, rng, strength)
        if seen < args.coarse * args.pictures:
            some.pictures = F.avg_pool2d(some.pictures, 2)
        loss, helped, turned = losses(model, some, table.draw(rng))
        optimizer.zero_grad()
        (loss + HELP * helped + VIEW_SHARE * turned).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = min(1.0, (seen - first + args.batch) / (50 * args.batch))
        rate *= 0.5 + 0.5 * math.cos(math.pi * min(1.0, seen / args.pictures))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 0.005)
        optimizer.step()
        seen += args.batch
        decay = min(EMA, 1 - 10 / (10 + seen / args.batch))
        for key, value in model.clip.state_dict().items():
            if value.is_floating_point():
                ema[key].lerp_(value, 1 - decay)
            else:
                ema[key].copy_(value)
        history.append([float(x.detach()) for x in (loss, helped, turned)])
        if len(history) == 100:
            record = {
                "seen": seen,
                **{f"{n}loss": sum(row[k] for row in history) / 100 for k, n in enumerate(("", "help_", "view_"))},
                "per_second": (seen - first) / (time.time() - start),
            }
            averaged = Judge() if args.which == "judge" else Guide()
            averaged.load_state_dict(ema)
            record |= check(averaged, validation, table.usual())
            print(" ".join(f"{k} {v:.5g}" for k, v in record.items()), flush=True)
            with (args.out / f"{args.which}.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            history = []
        if time.time() - saved > 120:
            store()
            saved = time.time()
    store()


if __name__ == "__main__":
    main()
