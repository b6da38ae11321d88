"""What the prior makes of names of which it never saw one of the models:
``python tools/prior/unseen.py --data data/some --run data/some-run --weights data/some-prior/bundled.safetensors``.

``fit.py --leave-out`` keeps a model of each of many names out of the training. The prior draws each of these names in a colour, from two
cameras of held-out views of the model that it knows (for ``nearest``), and from two of the left-out model. ``unseen.jpg``, beside the
weights, shows the latter; ``unseen.json`` has these shares of the samples:

``nearest``       nearer to a picture of the name than to one of any other name (mean squared error, as in ``report.py``)
``unseen``        nearer to the left-out model than to all models of other names
``unseen_real``   the same for a picture of the model that the prior draws, instead of the sample
``judged``        the judge, a CLIP, prefers the caption of the name to those of all other names in that colour
``judged_unseen`` the same for the picture of the left-out model
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from captions import usual
from dataset import Data, DataError, left_out_of
from looks import Look, held_out
from models import Name, generals, read_names
from PIL import Image, ImageDraw
from report import Item, errors_of, nearest_rows, ranks_of, sample_all
from torch import Tensor

from dreamfusion.clip import Clip, load_judge
from dreamfusion.errors import UserError
from dreamfusion.evaluation.statistics import wilson
from dreamfusion.files import write_atomic
from dreamfusion.priors.appearance import COLOURS
from dreamfusion.priors.bundled_prior import BundledPrior

FRONT_DEG = (25, 20)
"""Azimuth and elevation that the first of the two cameras is nearest to."""


def choose(data: Data, shapes: dict[str, str]) -> list[Item]:
    """Two held-out views of the shape of each name: near the front and a random one, in a colour, which changes from name to name."""
    rng, items = np.random.default_rng(0), []
    for k, (name, stem) in enumerate(sorted(shapes.items())):
        shape, look = data.shapes.index(stem), Look(list(COLOURS)[k % len(COLOURS)])
        rows = data.validation[shape]
        camera = data.cameras[rows]
        away = np.abs(camera[:, 0] - FRONT_DEG[0]) + np.abs(camera[:, 1] - FRONT_DEG[1])
        for row in (rows[int(np.argmin(away))], rng.choice(rows)):
            items.append(Item(name, look, shape, int(row), held_out(name, look)))
    return items


def rivals_of(data: Data, names: dict[str, Name], name: str) -> list[str]:
    """The names that would be wrong: neither more general, nor of a shape that shows this one too."""
    mine = set(data.shown[name])
    return [n for n in data.shown if n not in (name, *generals(name, names)) and not mine & set(data.shown[n])]


def is_nearest_alone(data: Data, names: dict[str, Name], items: list[Item], errors: np.ndarray) -> np.ndarray:
    """For which items the item's own shape has a smaller error than all shapes of wrong names, from errors (B, I)."""
    found = []
    for item, error in zip(items, errors, strict=True):
        wrong = [data.shapes.index(stem) for n in rivals_of(data, names, item.name) for stem in data.shown[n]]
        found.append(error[item.shape] < error[wrong].min())
    return np.array(found)


def is_judged(clip: Clip, data: Data, names: dict[str, Name], items: list[Item], pictures: Tensor) -> np.ndarray:
    """For which pictures (B, 3, 64, 64) in [0, 1] the judge prefers the item's name to all wrong ones in the item's look."""

    @cache
    def captions(look: Look) -> Tensor:
        return clip.captions([usual(names[n], look) for n in data.shown])

    order, found = list(data.shown), []
    for item, seen in zip(items, torch.cat([clip.pictures(some) for some in pictures.split(64)]), strict=True):
        likeness = captions(item.look) @ seen
        wrong = [order.index(n) for n in rivals_of(data, names, item.name)]
        found.append(bool(likeness[order.index(item.name)] > likeness[wrong].max()))
    return np.array(found)


def drawn(data: Data, items: list[Item], shapes: list[int], rows: list[int]) -> Tensor:
    """Pictures (B, 3, 64, 64) in [0, 1] of stored views in the items' looks."""
    return (data.make(np.array(shapes), [item.look for item in items], np.array(rows)).pictures + 1) / 2


def sheet(items: list[Item], samples: Tensor, unseen: Tensor, across: int = 10) -> Image.Image:
    """Each name from its first camera: the prior's sample, and the left-out model."""
    width, height = 132, 80
    out = Image.new("RGB", (across * width, -(-len(items) // 2 // across) * height), "white")
    draw = ImageDraw.Draw(out)
    for k, item in enumerate(items[::2]):
        x, y = k % across * width, k // across * height
        for j, pictures in enumerate((samples, unseen)):
            pixels = (pictures[2 * k].permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)
            out.paste(Image.fromarray(pixels), (x + 65 * j, y + 12))
        draw.text((x + 1, y), f"{item.look.main} {item.name}"[:22], fill="black")
    return out


@torch.no_grad()
def measure(data: Data, prior: BundledPrior, left_out: dict[str, str]) -> tuple[dict[str, object], Image.Image]:
    """The shares, each with Wilson's interval (names are counted, not views), and by category; and the sheet."""
    names, items, clip = read_names(), choose(data, left_out), load_judge()
    samples = sample_all(prior, data, items, names, 0.0, 0)
    known = {name: next(s for s in data.shown[name] if s not in left_out.values()) for name in left_out}
    asked = choose(data, known)
    nearest = ranks_of(data, asked, errors_of(data, asked, sample_all(prior, data, asked, names, 0.0, 0))) == 0
    learned = [item.shape for item in asked]
    rows = [int(nearest_rows(data, item.row)[shape]) for item, shape in zip(items, learned, strict=True)]
    both = torch.stack([samples, drawn(data, items, learned, rows)], 1)
    errors, real = errors_of(data, items, both).transpose(1, 0, 2)
    unseen = drawn(data, items, [i.shape for i in items], [i.row for i in items])
    found = {
        "nearest": nearest,
        "unseen": is_nearest_alone(data, names, items, errors),
        "unseen_real": is_nearest_alone(data, names, items, real),
        "judged": is_judged(clip, data, names, items, samples),
        "judged_unseen": is_judged(clip, data, names, items, unseen),
    }
    places: dict[str, list[int]] = defaultdict(list)
    for k, item in enumerate(items):
        places[names[item.name].category].append(k)
    said: dict[str, object] = {
        "names": len(left_out),
        "among": len(data.shown),
        "judge": clip.hash,
        "shares": {key: share(hits, len(left_out)) for key, hits in found.items()},
        "by_category": {
            category: {"names": len(some) // 2} | {k: round(float(hits[some].mean()), 3) for k, hits in found.items()}
            for category, some in sorted(places.items())
        },
        "not_nearest": sorted({item.name for item, hit in zip(items, found["nearest"], strict=True) if not hit}),
    }
    return said, sheet(items, samples, unseen)


def share(hits: np.ndarray, names: int) -> dict[str, float]:
    """A share of samples with its interval."""
    value = float(hits.mean())
    low, high = wilson(value, names)
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "count": names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="the training that left models out")
    parser.add_argument("--weights", type=Path, required=True, help="what pack.py made of it")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        left_out = left_out_of(args.run)
        if not left_out:
            raise DataError(f"{args.run} left nothing out: fit.py --leave-out does")
        found, shown = measure(Data(args.data), BundledPrior(args.weights), left_out)
    except (DataError, UserError) as error:
        print(f"unseen: {error}", file=sys.stderr)
        sys.exit(2)
    text = json.dumps(found, indent=1) + "\n"
    shown.save(args.weights.with_name("unseen.jpg"), quality=85)
    write_atomic(args.weights.with_name("unseen.json"), text.encode())
    print(text, end="")


if __name__ == "__main__":
    main()
