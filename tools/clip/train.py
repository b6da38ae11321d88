"""Train one of the bundled CLIPs; stop it at will, start it again to go on.

    python tools/clip/train.py judge --data data/judge --out data/clip-run --pictures 400000
    python tools/clip/train.py guide --data data/guide --out data/clip-run --pictures 300000 --seed 77

Judge and guide: cross-entropy of each picture against its own caption, the others of the batch and random ones, without those
that say the same; junk against all alike. ``--init`` starts from packed weights where there is no checkpoint.
``<out>/<which>.jsonl`` is the loss curve.
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "prior"))

from dataset import DataError
from pictures import Batch, Shown, Views, batch, held_out_batch
from table import Table, Vocabulary

from dreamfusion.clip.bundled_clip import KINDS, UNUSED
from dreamfusion.clip.towers import Guide, Judge
from dreamfusion.device import pick_device
from dreamfusion.errors import UserError
from dreamfusion.priors.appearance import FACTORS

EMA = 0.998
HELP = 0.5
EXTRA = 2000
"""Random captions that a step compares with, beside the batch's own."""
ROUGH_FROM = 0.4
"""Share of the training after which pictures are as rough as they get; it begins with clean ones."""


def compared(table: Table, true: Tensor, some: Batch, extra: Tensor) -> tuple[Tensor, Tensor]:
    """The captions that pictures are compared with, as rows (C,) of the table: first their own, then ``extra``. And which of them
    (R, C) do not count as wrong for the R pictures that are no junk: they say the same in other words."""
    real = some.row >= 0
    rows = torch.cat([some.row[real], extra])
    same = table.same(true[some.shape[real]], some.look[real], rows)
    own = torch.arange(int(real.sum()))
    same[own, own] = False
    return rows, same


class Trainee(nn.Module):
    """A CLIP with two helpers that training alone needs: plain classes of name and look, which show the tower the way
    long before the captions' own directions are sorted out."""

    def __init__(self, clip: Judge | Guide, names: int):
        super().__init__()
        self.net = clip
        width = clip.out[1].in_features
        self.name, self.look = nn.Linear(width, names), nn.Linear(width, sum(FACTORS))

    def loss(self, some: Batch, table: Table, vocabulary: Vocabulary, extra: Tensor) -> dict[str, Tensor]:
        """Cross-entropy against the captions, and of the helpers' classes: the shape's own name, main, second and pattern."""
        clip, device = self.net, self.net.scale.device
        rows, same = compared(table, vocabulary.true, some, extra)
        shape = torch.from_numpy(vocabulary.own)[some.shape[some.row >= 0]].to(device)
        seen = clip.out[0](clip.features(some.pictures.to(device)))
        words = clip.words(table.sentences[rows].to(device))
        real, same, shown = (x.to(device) for x in (some.row >= 0, same, some.look))
        logits = F.normalize(clip.out[1](seen), dim=-1) @ words.T * clip.scale.exp().clamp_max(60)
        own = torch.arange(len(shape), device=device)
        told = F.cross_entropy(logits[real].masked_fill(same, -torch.inf), own, reduction="sum")
        nothing = -logits[~real].log_softmax(-1).mean(-1).sum()
        name = F.cross_entropy(self.name(seen[real]), shape)
        parts = self.look(seen[real]).split(FACTORS, -1)
        look = sum(F.cross_entropy(part, shown[real, k]) for k, part in enumerate(parts))
        return {"loss": (told + nothing) / len(real), "help": HELP * (name + look)}

    @staticmethod
    @torch.no_grad()
    def check(
        clip: Judge | Guide, some: Batch, table: Table, vocabulary: Vocabulary, extra: Tensor
    ) -> dict[str, float]:
        """Share of held-out pictures whose own caption is the first of all that do not say the same, and of those where the first
        names the thing."""
        device = clip.scale.device
        rows, same = compared(table, vocabulary.true, some, extra)
        look = torch.cat([clip(part.to(device)) for part in some.pictures.split(64)])
        likeness = (look @ clip.words(table.sentences[rows].to(device)).T).cpu()
        best = likeness.masked_fill(same, -torch.inf).argmax(-1)
        named = vocabulary.true[some.shape, table.name[rows[best]]]
        return {
            "top1": float((best == torch.arange(len(best))).float().mean()),
            "name_top1": float(named.float().mean()),
        }


def begin(model: Trainee, sentences: Tensor, init: Path | None) -> None:
    """Take over packed weights, or begin with words that are spread over ``sentences``."""
    if init is not None:
        stored = load_file(init)
        model.net.load_state_dict({k: v.float() for k, v in stored.items() if not k.startswith(UNUSED)})
    else:
        model.net.words.spread(sentences.to(model.net.scale.device))


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
    temporary.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=tuple(KINDS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--pictures", type=int, default=400_000, help="pictures to see in all; the rate falls as a cosine"
    )
    parser.add_argument(
        "--coarse", type=float, default=0.4, help="share of the training on pictures of 32 x 32, at its beginning"
    )
    parser.add_argument("--init", type=Path, help="packed weights to start from if there is no checkpoint")
    parser.add_argument("--readings", type=Path, help="captions that tools/prior/read.py has embedded already")
    parser.add_argument("--rough", type=float, default=1.0, help="how rough pictures get, 0 to 1")
    parser.add_argument("--batch", type=int, default=64, help="pictures a step, half of them shown for the second time")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, or auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        train(args)
    except (DataError, UserError) as error:
        print(f"train: {error}", file=sys.stderr)
        sys.exit(2)


def train(args: argparse.Namespace) -> None:
    """Train until all pictures are seen or a signal comes; write the checkpoint."""
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary.of(args.data)
    views = Views(args.data, vocabulary)
    table = Table.at(args.out / "captions.safetensors", vocabulary, args.readings)
    among = views.drawable(table)
    print(f"{len(views.shapes)} of {len(vocabulary.shapes)} shapes, {len(views.pixels)} views", flush=True)
    model = Trainee(KINDS[args.which](), len(vocabulary.order))
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    checkpoint, seen = args.out / f"{args.which}.safetensors", 0
    if not checkpoint.exists():
        begin(model, table.sentences[:: max(1, len(table.sentences) // 4000)], args.init)
    ema = {k: v.detach().clone() for k, v in model.net.state_dict().items()}
    if checkpoint.exists():
        stored = load_file(checkpoint)
        model.load_state_dict({k[6:]: v for k, v in stored.items() if k.startswith("model.")})
        ema = {k[4:]: v.to(device) for k, v in stored.items() if k.startswith("ema.")}
        seen = int(stored["seen"])
        for name, p in model.named_parameters():
            if f"adam.step.{name}" in stored:
                means = {key: stored[f"adam.{key}.{name}"].to(device) for key in ("exp_avg", "exp_avg_sq")}
                optimizer.state[p] = means | {"step": stored[f"adam.step.{name}"]}  # AdamW keeps it on the CPU
    np_rng, rng = np.random.default_rng([args.seed, seen]), torch.Generator().manual_seed(args.seed + seen)
    validation = held_out_batch(views, table, among, 768, 7)
    fixed = torch.randint(len(table.name), (EXTRA,), generator=torch.Generator().manual_seed(7))
    start, first, saved, shown = time.time(), seen, time.time(), Shown()
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
        side = 32 if seen < args.coarse * args.pictures else 64
        new = batch(views, table, among, args.batch // 2, np_rng, rng, strength, side)
        some = shown.with_old(new, np_rng)
        extra = torch.randint(len(table.name), (EXTRA,), generator=rng)
        parts = model.loss(some, table, vocabulary, extra)
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
            averaged = KINDS[args.which]().to(device)
            averaged.load_state_dict(ema)
            record |= model.check(averaged.eval(), validation, table, vocabulary, fixed)  # type: ignore[arg-type]
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
