"""Teach the layout to read: ``python tools/prior/read.py --data data/wide --run data/wide-run``.

The layout's readers of words (which name, which look, which proportion) are trained on captions alone, and put into the run's
layout; nothing else of it moves. Captions are drawn at random and embedded once, which takes most of the time. Words are
disturbed on purpose (noise, words left out), so that captions that were never shown are read right too. Prints how many are.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captions import draw_caption
from dataset import DataError, shown_by
from fit import READING, load_layout, save
from models import Name, read_names
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamfusion.device import pick_device
from dreamfusion.errors import UserError
from dreamfusion.models.text_encoder import TextEncoder
from dreamfusion.priors.appearance import PROPORTIONS
from dreamfusion.priors.layout import Layout

NOISE, LEFT_OUT, SMOOTHING = 0.5, 0.1, 0.01
DECIDED = 2.0  # who learned from disturbed words doubts plain ones: logits are multiplied by this at the end
LONGEST = 32
CHECK_EVERY = 20  # one caption in so many is never trained on


@dataclass
class Readings:
    """Captions: tokens (N, L, 384) in half precision, lengths (N,), and what they say: labels (N, 5) of name, main, second,
    pattern and proportion."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor

    def some(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, L, 384), mask (B, L) and labels of some, on the CPU, cut to the longest."""
        length = self.lengths[index]
        longest = int(length.max())
        return self.tokens[index, :longest].float(), torch.arange(longest) < length[:, None], self.labels[index]


def embedded(path: Path, names: dict[str, Name], order: list[str], count: int, device: torch.device) -> Readings:
    """``count`` random captions, each name as often as any other, embedded once on the ``device`` and kept at ``path``."""
    if not path.exists():
        rng = np.random.default_rng(0)
        captions = [draw_caption(names, rng, order[k % len(order)]) for k in range(count)]
        encoder = TextEncoder.load().to(device)
        tokens = torch.zeros(count, LONGEST, 384, dtype=torch.float16)
        lengths = torch.zeros(count, dtype=torch.int64)
        by_length = sorted(range(count), key=lambda k: len(captions[k].text))  # alike lengths together: less padding
        for start in range(0, count, 64):
            some = by_length[start : start + 64]
            got, mask = encoder([captions[k].text for k in some])
            got = got[:, :LONGEST]
            tokens[some, : got.shape[1]] = got.half().cpu()
            lengths[some] = mask.sum(1).clamp_max(LONGEST).cpu()
        number, proportions = {name: k for k, name in enumerate(order)}, list(PROPORTIONS)
        labels = torch.tensor([(number[c.name], *c.look.numbers, proportions.index(c.proportion)) for c in captions])
        save_file({"tokens": tokens, "lengths": lengths, "labels": labels}, path)
    stored = load_file(path)
    return Readings(stored["tokens"], stored["lengths"], stored["labels"])


def logits_by_part(model: Layout, tokens: Tensor, mask: Tensor) -> list[Tensor]:
    """Logits of name, main, second, pattern and proportion."""
    name, look, proportion = model.logits(tokens, mask)
    return [name, *look.split(model.sizes.looks, -1), proportion]


@torch.no_grad()
def accuracy(model: Layout, readings: Readings, index: Tensor) -> list[float]:
    """Share of captions of which each part is read right, and of which all are."""
    right, device = [], model.name.weight.device
    for some in index.split(512):
        tokens, mask, labels = (x.to(device) for x in readings.some(some))
        found = torch.stack([part.argmax(-1) for part in logits_by_part(model, tokens, mask)], 1)
        right.append(found == labels)
    hits = torch.cat(right).cpu()
    return [*hits.float().mean(0).tolist(), float(hits.all(1).float().mean())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--captions", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, or auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        read(args)
    except (DataError, UserError) as error:
        print(f"read: {error}", file=sys.stderr)
        sys.exit(2)


def read(args: argparse.Namespace) -> None:
    """Train the readers and put them into the run's layout."""
    torch.manual_seed(args.seed)
    device, layout = pick_device(args.device), args.run / "layout.safetensors"
    if not layout.is_file():
        raise DataError(f"{args.run} has no layout.safetensors: fit.py writes it")
    names, order = read_names(), list(shown_by(args.data))
    readings = embedded(args.data / "readings.safetensors", names, order, args.captions, device)
    model = load_layout(layout).float().train().requires_grad_(True).to(device)
    spread = float(readings.tokens[:1000, :6].float().std())
    index = torch.arange(len(readings.labels))
    shown, hidden = index[index % CHECK_EVERY > 0], index[index % CHECK_EVERY == 0]
    readers = [p for name, p in model.named_parameters() if name.startswith(READING)]
    optimizer = torch.optim.AdamW(readers, lr=2e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps)
    for step in range(1, args.steps + 1):
        tokens, mask, labels = readings.some(shown[torch.randint(len(shown), (args.batch,))])
        tokens = tokens + NOISE * spread * torch.randn_like(tokens) * torch.rand(args.batch, 1, 1)
        kept = mask & (torch.rand(mask.shape) >= LEFT_OUT * torch.rand(args.batch, 1))
        kept[:, 0] = True  # the sentence's own token
        tokens, kept, labels = (x.to(device) for x in (tokens, kept, labels))
        parts = logits_by_part(model, tokens, kept)
        loss = sum(F.cross_entropy(part, labels[:, k], label_smoothing=SMOOTHING) for k, part in enumerate(parts))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(readers, 1.0)
        optimizer.step()
        rate.step()
        if step % 500 == 0 or step == args.steps:
            found = " ".join(f"{share:.3%}" for share in accuracy(model, readings, hidden))
            print(
                f"step {step} loss {float(loss.detach()):.4f} name, main, second, pattern, proportion, all: {found}",
                flush=True,
            )
    with torch.no_grad():
        for head in (model.name, model.look, model.proportion):
            head.weight.mul_(DECIDED)
            head.bias.mul_(DECIDED)
    tensors = load_file(layout)
    for name, value in model.state_dict().items():
        if name.startswith(READING):
            tensors[f"model.{name}"] = value.clone()
    save(layout, tensors)


if __name__ == "__main__":
    main()
