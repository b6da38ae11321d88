"""Look at a prior: ``python tools/prior/report.py --data data/wide --to docs/prior [--weights FILE] [--run data/wide-run]``.

Writes a sample sheet (the first names of every category, from the front and from a random side), the loss curve and
``report.json``: held-out error, and how often the sample is nearer to a picture of the named thing in the asked look than to any
other name's (retrieval among all names, from the nearest camera, by mean squared error), by category; for looks that were shown
and for looks that never were.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captions import usual
from dataset import Data, left_out_of
from looks import Look, draw_look, held_out
from models import Name, read_names
from PIL import Image, ImageDraw
from torch import Tensor

from dreamfusion.priors.bundled_prior import WEIGHTS, BundledPrior
from dreamfusion.priors.question import Question
from dreamfusion.priors.sampler import sample
from dreamfusion.view.cameras import CONDITION_FOV_DEG, Cameras
from dreamfusion.view.view import orbit_view

RIVALS_AT_ONCE = 64


@dataclass(frozen=True)
class Item:
    """A name in a look, seen as view ``row`` of the data shows ``shape``."""

    name: str
    look: Look
    shape: int
    row: int
    held_out: bool


def choose(data: Data, count: int, rng: np.random.Generator) -> list[Item]:
    """For ``count`` names (0: all) a look, half of them never shown with it, a view near the front and a random view."""
    number = {stem: k for k, stem in enumerate(data.shapes)}
    names = list(data.shown)
    names = names if not count else sorted(rng.choice(names, count, replace=False).tolist())
    items = []
    for k, name in enumerate(names):
        shape = number[data.shown[name][0]]
        own = data.name[data.shapes[shape]]
        look, new = draw_look(own, rng), k % 2 == 0
        while held_out(own, look) != new:
            look = draw_look("", rng, hold_out=False)
        rows = data.validation[shape]
        camera = data.cameras[rows]
        front = rows[int(np.argmin(np.abs(camera[:, 0] - 25) + np.abs(camera[:, 1] - 20)))]
        items += [Item(name, look, shape, int(row), new) for row in (front, rng.choice(rows))]
    return items


def sample_all(
    prior: BundledPrior, data: Data, items: list[Item], names: dict[str, Name], guidance_scale: float, seed: int
) -> Tensor:
    """A sample for every item, (B, 3, 64, 64) in [0, 1]."""
    out, generator = [], torch.Generator().manual_seed(seed)
    for k in range(0, len(items), 32):
        some = items[k : k + 32]
        camera = torch.from_numpy(data.cameras[[item.row for item in some]])
        cameras = Cameras(
            camera[:, 0].deg2rad(),
            camera[:, 1].deg2rad(),
            camera[:, 2],
            torch.full((len(some),), CONDITION_FOV_DEG).deg2rad(),
        )
        words = prior.embed([usual(names[item.name], item.look) for item in some])
        view = orbit_view(cameras, prior.resolution)  # in front of mid-gray, as the pictures of the data are
        out.append(sample(prior, Question(words, view, "camera"), generator, guidance_scale))
    return torch.cat(out)


def nearest_rows(data: Data, row: int) -> np.ndarray:
    """Of each shape (I,) the view by row whose camera is nearest to that of a view."""
    azimuth, elevation, distance = data.cameras[row]
    nearest = []
    for shape in range(len(data.shapes)):
        rows = np.concatenate([data.rows[shape], data.validation[shape]])
        c = data.cameras[rows]
        turn = np.abs((c[:, 0] - azimuth + 180) % 360 - 180)
        nearest.append(rows[int(np.argmin(turn + np.abs(c[:, 1] - elevation) + 50 * np.abs(c[:, 2] - distance)))])
    return np.array(nearest)


def errors_of(data: Data, items: list[Item], samples: Tensor) -> np.ndarray:
    """Mean squared errors (B, I) of samples (B, 3, 64, 64) from each shape in the item's look, seen from the nearest camera; or
    (B, K, I) of K samples an item (B, K, 3, 64, 64)."""
    every, out = np.arange(len(data.shapes)), []
    for item, drawn in zip(items, samples, strict=True):
        nearest = nearest_rows(data, item.row)
        nearest[item.shape] = item.row
        small, errors = torch.nn.functional.avg_pool2d(drawn, 2)[..., None, :, :, :], []
        for k in range(0, len(every), RIVALS_AT_ONCE):
            some = every[k : k + RIVALS_AT_ONCE]
            pictures = data.make(some, [item.look] * len(some), nearest[some], side=32).pictures
            errors.append(((pictures + 1) / 2 - small).square().mean((-3, -2, -1)))
        out.append(torch.cat(errors, -1).numpy())
    return np.stack(out)


def ranks_of(data: Data, items: list[Item], errors: np.ndarray) -> np.ndarray:
    """Rank (0 is best) of the true name among all names for each sample, by its errors from all shapes (B, I). A name is as near as the
    nearest of its shapes."""
    number = {stem: k for k, stem in enumerate(data.shapes)}
    of_name = [np.array([number[stem] for stem in stems]) for stems in data.shown.values()]
    names, ranks = list(data.shown), []
    for item, error in zip(items, errors, strict=True):
        by_name = np.array([error[shapes].min() for shapes in of_name])
        ranks.append(int((by_name < by_name[names.index(item.name)]).sum()))
    return np.array(ranks)


def sheet(items: list[Item], samples: Tensor, names: dict[str, Name], across: int = 14, rows: int = 16) -> Image.Image:
    """Pairs of samples with their captions, as many as fit."""
    pairs = min(len(items) // 2, across * rows)
    width, height = 132, 80
    out = Image.new("RGB", (across * width, -(-pairs // across) * height), "white")
    draw = ImageDraw.Draw(out)
    for k in range(pairs):
        item = items[2 * k]
        x, y = k % across * width, k // across * height
        for j in range(2):
            pixels = (samples[2 * k + j].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            out.paste(Image.fromarray(pixels), (x + 65 * j, y + 12))
        said = usual(names[item.name], item.look).removeprefix("an ").removeprefix("a ")
        draw.text((x + 1, y), said[:24], fill="firebrick" if item.held_out else "black")
    return out


def loss_curve(run: Path, target: Path) -> None:
    """The errors along rays over the visits to shapes; dots are views that are held out."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    path = run / "layout.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    figure, axis = plt.subplots(figsize=(6, 3.5))
    for kind in ("cover", "depth", "albedo", "shading"):
        (line,) = axis.plot([r["seen"] for r in rows], [r[kind] for r in rows], label=kind)
        held = [r for r in rows if f"held_{kind}" in r]
        axis.plot(
            [r["seen"] for r in held], [r[f"held_{kind}"] for r in held], ".", color=line.get_color(), markersize=3
        )
    axis.set(xlabel="visits to shapes", ylabel="error", yscale="log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=80)
    plt.close(figure)


def figures(items: list[Item], ranks: np.ndarray, error: np.ndarray, names: dict[str, Name]) -> dict[str, object]:
    """What ``report.json`` says."""
    new = np.array([item.held_out for item in items])
    by_category: dict[str, list[int]] = defaultdict(list)
    for item, rank in zip(items, ranks.tolist(), strict=True):
        by_category[names[item.name].category].append(rank)
    worst = [f"{items[i].look.main} {items[i].name}".strip() for i in np.argsort(-ranks)[:40] if ranks[i] > 0]
    return {
        "samples": len(items),
        "top1": float((ranks == 0).mean()),
        "top5": float((ranks < 5).mean()),
        "held_out_samples": int(new.sum()),
        "held_out_top1": float((ranks[new] == 0).mean()),
        "held_out_top5": float((ranks[new] < 5).mean()),
        "mean_squared_error": float(error.mean()),
        "held_out_mean_squared_error": float(error[new].mean()),
        "top1_by_category": {k: round(float((np.array(v) == 0).mean()), 3) for k, v in sorted(by_category.items())},
        "weakest": list(dict.fromkeys(worst))[:20],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--names", type=int, default=200, help="how many names to draw; 0: all")
    parser.add_argument("--guidance-scale", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.to.mkdir(parents=True, exist_ok=True)
    left_out = left_out_of(args.run).values() if args.run else ()
    data, prior, names = Data(args.data, left_out), BundledPrior(args.weights), read_names()
    items = choose(data, args.names, np.random.default_rng(0))
    samples = sample_all(prior, data, items, names, args.guidance_scale, 0)
    sheet(items, samples, names).save(args.to / "samples.jpg", quality=88)
    ranks = ranks_of(data, items, errors_of(data, items, samples))
    wanted = torch.cat([data.make(np.array([i.shape]), [i.look], np.array([i.row])).pictures for i in items])
    error = (samples * 2 - 1 - wanted).square().mean((1, 2, 3)).numpy()
    report = figures(items, ranks, error, names) | {"guidance_scale": args.guidance_scale}
    (args.to / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if args.run:
        loss_curve(args.run, args.to / "loss.png")


if __name__ == "__main__":
    main()
