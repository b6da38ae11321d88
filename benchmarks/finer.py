"""What the bundled prior knows that its 64 x 64 pixels do not show: ``python benchmarks/finer.py [RUN ...]``.

The layout can be drawn at any size. A question about a crop of half the side would show the prior what its picture has at 128 x 128
pixels. For each prompt a line says how near the picture of 64 x 64, enlarged, comes to that of 128 x 128 (PSNR in dB), and which share of
the variance is finer than 64 x 64 pixels can hold. For each finished run of the bundled prior a line says how near its own pictures come
to the prior's, at both sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from images import psnr
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dreamfusion.export.pictures import render_view
from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior, subjects_of
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view

PROMPTS = (
    "a red armchair", "a teddy bear", "a motorcycle", "a wooden chair", "a bicycle", "a castle", "a striped barrel",
    "a brick house",
)  # fmt: skip
CAMERAS = orbit_cameras([20.0, 110.0, 200.0, 290.0], 18.0, 2.5)
SIZE, FINEST = 64, 512


@torch.no_grad()
def finest(prior: BundledPrior, prompt: str) -> Tensor:
    """What the prior means by a prompt, in front of gray: (4, 3, FINEST, FINEST) in [0, 1]."""
    subject = subjects_of(prior.embed([prompt]))[0]
    thing = prior.layout.thing(subject.shape)
    drawn = prior.layout.draw(thing, subject.look[None], CAMERAS.condition(), FINEST, subject.stretch)
    return (drawn[:, :3] + 1) / 2


def at(picture: Tensor, size: int) -> Tensor:
    """Square pictures (B, 3, S, S) with fewer pixels, S / size of them averaged each way."""
    return avg_pool2d(picture, picture.shape[-1] // size)


def enlarged(picture: Tensor) -> Tensor:
    """Pictures twice as large, by bicubic interpolation."""
    return interpolate(picture, scale_factor=2, mode="bicubic", align_corners=False)


def share_above(picture: Tensor, size: int) -> float:
    """The share of the variance of pictures (B, 3, S, S) in waves, along rows or columns, that ``size`` pixels cannot hold."""
    power = torch.fft.fft2(picture - picture.mean((2, 3), keepdim=True)).abs().square().sum((0, 1))
    wave = (torch.fft.fftfreq(len(power)) * len(power)).abs()
    return float(power[torch.maximum(wave[:, None], wave[None]) > size / 2].sum() / power.sum())


def of_prompt(prior: BundledPrior, prompt: str) -> str:
    """The line of a prompt."""
    fine = finest(prior, prompt)
    near = psnr(enlarged(at(fine, SIZE)), at(fine, 2 * SIZE))
    return f"{prompt:24} {near:5.1f} dB  {share_above(fine, SIZE):6.2%} of the variance"


def of_run(prior: BundledPrior, folder: Path) -> str:
    """The line of a run. UserError if there is none in the folder."""
    scene, config = load_scene(Run.open(folder))
    known = prior.of_instance(config.seed if config.prior.instance < 0 else config.prior.instance)
    wanted = finest(known, config.prompt)
    made = render_view(scene, orbit_view(CAMERAS, 4 * SIZE))
    coarse, fine = (psnr(at(made, size), at(wanted, size)) for size in (SIZE, 2 * SIZE))
    return f"{config.preset}: {config.prompt:24} {coarse:5.1f} dB at {SIZE}, {fine:5.1f} dB at {2 * SIZE}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of finished runs")
    args = parser.parse_args(argv)
    prior = load_prior("bundled")
    assert isinstance(prior, BundledPrior)
    for prompt in PROMPTS:
        print(of_prompt(prior, prompt), flush=True)
    for folder in args.runs:
        print(of_run(prior, folder), flush=True)


if __name__ == "__main__":
    main()
