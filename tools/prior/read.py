"""Teach the layout to read: ``python tools/prior/read.py --data data/prior --run data/prior-run``.

The layout's readers of words (which thing, which look, roughly which camera) are trained anew on captions alone, and put into
the run's layout; nothing else of it moves. Words are disturbed on purpose (noise, words left out), so that captions that were
never shown, above all those of held-out colour-object pairs, are read right too. Prints how many are.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from build_dataset import sample_cameras
from captions import VIEWS, CaptionTable
from dataset import LOOKS, VIEW
from safetensors.torch import load_file
from torch import Tensor, nn
from train import READING, direction, save
from vocabulary import COLOURS, MODELS, held_out

from dreamfusion.priors.layout import Layout
from dreamfusion.view.view_words import view_words

NOISE, LEFT_OUT, SMOOTHING = 0.5, 0.15, 0.01
DECIDED = 2.0  # who learned from disturbed words doubts plain ones: logits are multiplied by this at the end


@dataclass
class Readings:
    """Every caption: its row in the table, what it says of thing, look and side (by number), and whether it is held out."""

    rows: Tensor
    thing: Tensor
    look: Tensor
    side: Tensor
    held_out: Tensor

    def part(self, index: Tensor) -> Readings:
        """Some of them."""
        return Readings(*(x[index] for x in (self.rows, self.thing, self.look, self.side, self.held_out)))


def all_readings(table: CaptionTable) -> Readings:
    """All captions of the table."""
    names, found = list(MODELS), []
    for key, rows in table.index.items():
        name, look, side = key.split("|")
        held = look in COLOURS and held_out(name, look)
        found += [(int(row), names.index(name), LOOKS.index(look), VIEWS.index(side), held) for row in rows]
    return Readings(*(torch.tensor(column) for column in zip(*found, strict=True)))


def directions_by_side(count: int, rng: np.random.Generator) -> list[Tensor]:
    """Directions (N, 3) towards random cameras for each of ``VIEWS``; left and right count as the same side."""
    cameras = sample_cameras(count, rng)
    said = [view_words(azimuth, elevation, VIEW) for azimuth, elevation, _ in cameras.tolist()]
    camera = torch.from_numpy(np.abs(np.deg2rad(cameras[:, :1])))
    towards = direction(torch.cat([camera, torch.from_numpy(np.deg2rad(cameras[:, 1:2]))], 1).float())
    return [towards[[side in ("", s) for s in said]] for side in VIEWS]


@torch.no_grad()
def accuracy(model: Layout, table: CaptionTable, readings: Readings) -> float:
    """Share of captions whose thing and look are both read right."""
    right = 0
    for k in range(0, len(readings.rows), 2048):
        some = readings.part(torch.arange(k, min(k + 2048, len(readings.rows))))
        thing, look, _ = model.read(*table.gather(some.rows.tolist()))
        right += int(((thing.argmax(-1) == some.thing) & (look.argmax(-1) == some.look)).sum())
    return right / len(readings.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    table = CaptionTable(args.data / "captions.safetensors")
    spread = float(table.tokens[:1000, :6].float().std())
    readings = all_readings(table)
    shown, hidden = (readings.part(torch.nonzero(x)[:, 0]) for x in (~readings.held_out, readings.held_out))
    towards = directions_by_side(20_000, np.random.default_rng(args.seed))
    model = Layout()
    readers = [p for name, p in model.named_parameters() if name.startswith(READING)]
    optimizer = torch.optim.AdamW(readers, lr=2e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps)
    # Names have different numbers of wordings: each name and look shall count alike.
    _, group, count = torch.unique(shown.thing * len(LOOKS) + shown.look, return_inverse=True, return_counts=True)
    weight = 1.0 / count[group]
    for step in range(1, args.steps + 1):
        some = shown.part(torch.multinomial(weight, args.batch, replacement=True))
        tokens, mask = table.gather(some.rows.tolist())
        tokens = tokens + NOISE * spread * torch.randn_like(tokens) * torch.rand(args.batch, 1, 1)
        kept = mask & (torch.rand(mask.shape) >= LEFT_OUT)
        kept[:, 0] = True  # the sentence's own token
        thing, look, guess = model.read(tokens, kept)
        seen_from = torch.stack([towards[s][torch.randint(len(towards[s]), ())] for s in some.side.tolist()])
        loss = F.cross_entropy(thing, some.thing, label_smoothing=SMOOTHING)
        loss = (
            loss + F.cross_entropy(look, some.look, label_smoothing=SMOOTHING) + F.mse_loss(direction(guess), seen_from)
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(readers, 1.0)
        optimizer.step()
        rate.step()
        if step % 500 == 0 or step == args.steps:
            found = [accuracy(model.eval(), table, part) for part in (shown, hidden)]
            print(f"step {step} loss {loss:.4f} read right {found[0]:.4%}, held out {found[1]:.4%}", flush=True)
    with torch.no_grad():
        for head in (model.thing, model.look):
            head.weight.mul_(DECIDED)
            head.bias.mul_(DECIDED)
    path = args.run / "layout.safetensors"
    tensors = load_file(path)
    for name, value in model.state_dict().items():
        if name.startswith(READING):
            tensors[f"model.{name}"], tensors[f"ema.{name}"] = value.clone(), value.clone()
    save(path, tensors)


if __name__ == "__main__":
    main()
