"""Look at a prior: ``python tools/prior/report.py --data data/prior --to docs/prior [--weights FILE] [--run data/prior-run]``.

Writes a sample sheet (every name once, from the front and from a random side, in a colour; held-out pairs framed), the
loss curve and ``report.json``: held-out error, and how often the sample is nearer to a picture of the named thing in the
named colour than to any other name's (retrieval among all names, from the nearest camera, by mean squared error).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from dataset import Batch, Data
from PIL import Image, ImageDraw
from torch import Tensor
from vocabulary import COLOURS, held_out

from dreamfusion.priors.bundled_prior import WEIGHTS, BundledPrior
from dreamfusion.priors.question import Question, Tokens
from dreamfusion.priors.sampler import sample
from dreamfusion.view.cameras import CONDITION_FOV_DEG, Cameras
from dreamfusion.view.view import orbit_view


def choose(data: Data, rng: np.random.Generator) -> list[tuple[str, str, int]]:
    """For each name a colour, a view near the front and a random view."""
    items = []
    for name in data.names:
        first, last = data.span[name]
        colour = str(rng.choice(list(COLOURS)))
        camera = data.cameras[first:last]
        front = first + int(np.argmin(np.abs(camera[:, 0] - 25) + np.abs(camera[:, 1] - 20)))
        items += [(name, colour, front), (name, colour, int(rng.integers(first, last)))]
    return items


def sample_all(prior: BundledPrior, batch: Batch, guidance_scale: float, seed: int) -> Tensor:
    """A sample for every row of the batch, (B, 3, 64, 64) in [0, 1]."""
    out = []
    generator = torch.Generator().manual_seed(seed)
    for k in range(0, len(batch.camera), 32):
        part = slice(k, k + 32)
        azimuth, elevation, distance = batch.camera[part].unbind(1)
        cameras = Cameras(azimuth, elevation, distance, torch.full_like(azimuth, CONDITION_FOV_DEG).deg2rad())
        view = orbit_view(cameras, prior.resolution)  # before mid-gray, as the pictures of the data are
        question = Question(Tokens(batch.tokens[part], batch.mask[part]), view, "camera")
        out.append(sample(prior, question, generator, guidance_scale))
    return torch.cat(out)


def retrieval(data: Data, items: list[tuple[str, str, int]], samples: Tensor) -> np.ndarray:
    """Rank (0 is best) of the true name among all names for each sample."""
    ranks = []
    for (name, colour, view), drawn in zip(items, samples, strict=True):
        azimuth, elevation, distance = data.cameras[view]
        rivals = []
        for other in data.names:
            first, last = data.span[other]
            c = data.cameras[first:last]
            turn = np.abs((c[:, 0] - azimuth + 180) % 360 - 180)
            rivals.append(
                (
                    other,
                    colour,
                    first + int(np.argmin(turn + np.abs(c[:, 1] - elevation) + 50 * np.abs(c[:, 2] - distance))),
                    False,
                )
            )
        pictures = (data.make(rivals, None).pictures + 1) / 2
        errors = (pictures - drawn).square().mean((1, 2, 3))
        ranks.append(int((errors < errors[data.names.index(name)]).sum()))
    return np.array(ranks)


def sheet(items: list[tuple[str, str, int]], samples: Tensor, across: int = 14) -> Image.Image:
    """Pairs of samples with their captions."""
    pairs = len(items) // 2
    width, height = 132, 80
    out = Image.new("RGB", (across * width, -(-pairs // across) * height), "white")
    draw = ImageDraw.Draw(out)
    for k in range(pairs):
        name, colour, _ = items[2 * k]
        x, y = k % across * width, k // across * height
        for j in range(2):
            pixels = (samples[2 * k + j].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            out.paste(Image.fromarray(pixels), (x + 65 * j, y + 12))
        draw.text((x + 1, y), f"{colour} {name}"[:24], fill="firebrick" if held_out(name, colour) else "black")
    return out


def loss_curve(run: Path, target: Path) -> None:
    """Both networks' losses over the pictures seen."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, network in zip(axes, ("layout", "denoiser"), strict=True):
        path = run / f"{network}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        axis.plot([r["seen"] for r in rows], [r["loss"] for r in rows], label="training")
        held = [r for r in rows if "held_out" in r]
        axis.plot([r["seen"] for r in held], [r["held_out"] for r in held], ".-", label="held-out pairs")
        axis.set(title=network, xlabel="pictures seen", ylabel="loss", yscale="log")
        axis.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.to.mkdir(parents=True, exist_ok=True)
    data, prior = Data(args.data), BundledPrior(args.weights)
    items = choose(data, np.random.default_rng(0))
    batch = data.make([(*item, False) for item in items], None)
    samples = sample_all(prior, batch, args.guidance_scale, 0)
    sheet(items, samples).save(args.to / "samples.jpg", quality=88)
    ranks = retrieval(data, items, samples)
    new = np.array([held_out(name, colour) for name, colour, _ in items])
    error = (samples * 2 - 1 - batch.pictures).square().mean((1, 2, 3)).numpy()
    report = {
        "samples": len(items),
        "guidance_scale": args.guidance_scale,
        "top1": float((ranks == 0).mean()),
        "top5": float((ranks < 5).mean()),
        "held_out_samples": int(new.sum()),
        "held_out_top1": float((ranks[new] == 0).mean()),
        "held_out_top5": float((ranks[new] < 5).mean()),
        "mean_squared_error": float(error.mean()),
        "held_out_mean_squared_error": float(error[new].mean()),
        "weakest": [" ".join(items[i][1::-1]) for i in np.argsort(-ranks)[:20] if ranks[i] > 0],
    }
    (args.to / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if args.run:
        loss_curve(args.run, args.to / "loss.png")


if __name__ == "__main__":
    main()
