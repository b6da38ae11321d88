"""Time the compiled splats against their plain twin: the same splats, the same views, in one run.

python benchmarks/splats.py [--threads N] [--size N] [--splats N] [--views N] [--repeats N]

The plain twin's memory is that of its graph: about 2 GB for the defaults.
"""

from __future__ import annotations

import argparse

import torch
from machine import machine
from timing import best

from dreamfusion.scene.make import make_scene
from dreamfusion.scene.scene_settings import SplatSettings
from dreamfusion.scene.splatting import FUSED, PLAIN, Lens, Splatter, covariances
from dreamfusion.view.cameras import orbit_cameras


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--splats", type=int, default=5000)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scene = make_scene(SplatSettings(count=options.splats, opacity=0.5), torch.Generator().manual_seed(0))
    parts = {name: p.detach() for name, p in scene.named_parameters()}
    cameras = orbit_cameras([360 * k / options.views for k in range(options.views)], 15.0)
    features = torch.rand(options.views, options.splats, 4, generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(options.views, options.size, options.size, 5, generator=torch.Generator().manual_seed(2))
    lens = Lens.of(cameras, options.size, parts["centres"])
    print(
        f"{machine()}, {options.threads} thread(s); {options.splats} splats, {options.views} views of {options.size} x "
        f"{options.size} pixels, 4 channels"
    )
    print(f"{'splats':<12}{'forward':>12}{'backward':>12}")

    times: dict[str, tuple[float, float]] = {}
    for name, made in (("plain", PLAIN), ("compiled", FUSED)):
        leaves = [parts[k].clone().requires_grad_() for k in ("centres", "rotations", "log_scales", "logits")]
        leaves.append(features.clone().requires_grad_())

        def forward(made: Splatter = made, leaves: list[torch.Tensor] = leaves) -> torch.Tensor:
            centres, rotations, log_scales, logits, shown = leaves
            seen = made.project(centres, covariances(rotations, log_scales), lens)
            distance = (centres.detach() - lens.position[:, None]).norm(dim=-1)
            return made.composite(seen, torch.sigmoid(logits) * seen.kept, shown, distance, options.size)

        picture = forward()

        def backward(picture: torch.Tensor = picture, leaves: list[torch.Tensor] = leaves) -> object:
            return torch.autograd.grad(picture, leaves, upstream, retain_graph=True)

        times[name] = best(forward, options.repeats), best(backward, options.repeats)
        print(f"{name:<12}{times[name][0]:>9.1f} ms{times[name][1]:>9.1f} ms")
    ratios = [a / b for a, b in zip(times["plain"], times["compiled"], strict=True)]
    total = sum(times["plain"]) / sum(times["compiled"])
    print(f"{'ratio':<12}{ratios[0]:>11.1f}x{ratios[1]:>11.1f}x{total:>11.1f}x together")


if __name__ == "__main__":
    main()
