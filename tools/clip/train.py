"""Train one of the parts of the bundled CLIPs; stop it at will, start it again to go on.

    python tools/clip/train.py judge --data data/clip  --out data/clip-run --pictures 205000
    python tools/clip/train.py eye   --data data/clip  --out data/clip-run --pictures 120000
    python tools/clip/train.py guide --data data/prior --out data/clip-run --pictures 90000 --seed 77

Judge and guide: cross-entropy of each picture against all captions (every name in every look; a wording drawn afresh at
every step), junk against all alike. The judge's eye is trained after it, from a copy of its tower, to tell the azimuth of
things that have a front. ``<out>/<which>.jsonl`` is the loss curve.
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

from dreamfusion.clip.towers import AZIMUTHS, Eye, Guide, Judge

EMA = 0.998
HELP = 0.5
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

    def __init__(self, clip: Judge | Guide):
        super().__init__()
        self.net = clip
        width = clip.out[1].in_features
        self.name, self.look = nn.Linear(width, len(NAMES)), nn.Linear(width, len(LOOKS))

    def loss(self, some: Batch, sentences: Tensor) -> dict[str, Tensor]:
        """Cross-entropy against the captions, and of the helpers' classes."""
        clip = self.net
        seen = clip.out[0](clip.features(some.pictures))
        logits = F.normalize(clip.out[1](seen), dim=-1) @ clip.words(sentences).T * clip.scale.exp().clamp_max(60)
        logits = logits.log_softmax(-1)
        real = some.label >= 0
        loss = -logits[real, some.label[real]].sum() - logits[~real].mean(-1).sum()
        label = some.label[real]
        name = F.cross_entropy(self.name(seen[real]), label // len(LOOKS))
        look = F.cross_entropy(self.look(seen[real]), label % len(LOOKS))
        return {"loss": loss / len(real), "help": HELP * (name + look)}

    @staticmethod
    @torch.no_grad()
    def check(clip: Judge | Guide, some: Batch, sentences: Tensor) -> dict[str, float]:
        """Share of held-out pictures whose caption (and whose name) comes first of all."""
        look = torch.cat([clip(p) for p in some.pictures.split(64)])
        best = (look @ clip.words(sentences).T).argmax(-1)
        return {
            "top1": float((best == some.label).float().mean()),
            "name_top1": float((best // len(LOOKS) == some.label // len(LOOKS)).float().mean()),
        }


class EyeTrainee(nn.Module):
    """The judge's eye alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Eye()

    def loss(self, some: Batch, sentences: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the azimuth, where there is one to tell."""
        known = ~some.azimuth_deg.isnan()
        return {"loss": F.cross_entropy(self.net(some.pictures[known]), azimuth_target(some.azimuth_deg[known]))}

    @staticmethod
    @torch.no_grad()
    def check(eye: Eye, some: Batch, sentences: Tensor) -> dict[str, float]:
        """Share of held-out views within 45 degrees, and of those taken for their opposite (by more than 135)."""
        known = ~some.azimuth_deg.isnan()
        guess = torch.cat([eye(p) for p in some.pictures[known].split(64)]).argmax(-1) * (360 / AZIMUTHS)
        turn = ((guess - some.azimuth_deg[known] + 180) % 360 - 180).abs()
        return {"within_45": float((turn <= 45).float().mean()), "opposite": float((turn > 135).float().mean())}


def fresh(which: str, sentences: Tensor, judge: Path | None = None) -> Trainee | EyeTrainee:
    """What is trained, as it begins; the eye with the tower of the training run ``judge``."""
    if which == "eye":
        trainee = EyeTrainee()
        if judge is not None:
            found = {k[10:]: v for k, v in load_file(judge).items() if k.startswith("ema.tower.")}
            trainee.net.tower.load_state_dict(found)
        return trainee
    clip = Judge() if which == "judge" else Guide()
    clip.words.spread(sentences)
    return Trainee(clip)


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
    parser.add_argument("which", choices=("judge", "eye", "guide"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--pictures", type=int, default=220_000, help="pictures to see in all; the rate falls as a cosine"
    )
    parser.add_argument(
        "--coarse", type=float, default=0.4, help="share of the training on pictures of 32 x 32, at its beginning"
    )
    parser.add_argument("--rough", type=float, default=1.0, help="how rough pictures get, 0 to 1")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    bare = args.which != "guide"
    views, unseen = Views(args.data, bare), Views(args.data, bare, held_out=True)
    views.fronts = unseen.fronts = 1e9 if args.which == "eye" else 1.0
    table = Table(args.out / "captions.safetensors")
    print(f"{len(views.names)} of {len(NAMES)} names, {len(views.pixels)} views", flush=True)
    model = fresh(args.which, table.usual(), args.out / "judge.safetensors")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    checkpoint, seen = args.out / f"{args.which}.safetensors", 0
    ema = {k: v.detach().clone() for k, v in model.net.state_dict().items()}
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
    history: list[dict[str, float]] = []

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
        parts = model.loss(some, table.draw(rng))
        optimizer.zero_grad()
        torch.stack([*parts.values()]).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = min(1.0, (seen - first + args.batch) / (50 * args.batch))
        rate *= 0.5 + 0.5 * math.cos(math.pi * min(1.0, seen / args.pictures))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 0.005)
        optimizer.step()
        seen += args.batch
        decay = min(EMA, 1 - 10 / (10 + seen / args.batch))
        for key, value in model.net.state_dict().items():
            if value.is_floating_point():
                ema[key].lerp_(value, 1 - decay)
            else:
                ema[key].copy_(value)
        history.append({k: float(x.detach()) for k, x in parts.items()})
        if len(history) == 100:
            record = {
                "seen": seen,
                **{k: sum(row[k] for row in history) / 100 for k in history[0]},
                "per_second": (seen - first) / (time.time() - start),
            }
            averaged = fresh(args.which, table.usual())
            averaged.net.load_state_dict(ema)
            record |= model.check(averaged.net.eval(), validation, table.usual())
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
