"""Count what one plain step does: ``python tools/step_calls.py [--list]``.

The step is one view of 12 x 12 pixels with the plain renderer and a prior that answers zero, after two steps of warming
up. A call is a call of a function of the package; a move is a call in another file than the call before it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType

import torch
from PIL.Image import Image
from torch import Tensor

import dreamfusion
from dreamfusion.priors.prior import Prior, cosine_schedule
from dreamfusion.priors.question import Question, Tokens, Words
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer

HOME = str(Path(dreamfusion.__file__).parent)
SMALL = {
    "steps": 6, "views_per_step": 1, "resolution": 12, "threads": 1, "scene.fast": False, "scene.levels": "6,10",
    "scene.samples": 12,
}  # fmt: skip


class Silent(Prior):
    """Reads nothing and answers zero."""

    id, hash, resolution, device = "silent", "0" * 64, 12, torch.device("cpu")

    def embed(self, captions: Sequence[str], images: Sequence[Image] = ()) -> Tokens:
        return Tokens(torch.zeros(len(captions), 1, 1), torch.ones(len(captions), 1, dtype=torch.bool))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return cosine_schedule(t)

    def encode(self, picture: Tensor) -> Tensor:
        return picture * 2 - 1

    def decode(self, z: Tensor) -> Tensor:
        return (z + 1) / 2

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, 12, 12)

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(z_t) for _ in about)


def calls_of_a_step() -> list[tuple[str, str]]:
    """(file, function) of each call of the package's own functions in one step, in order."""
    trainer = Trainer(resolve("balanced", SMALL, "a thing"), Silent())
    trainer.step()
    trainer.step()
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(HOME):
            calls.append((frame.f_code.co_filename[len(HOME) + 1 :], frame.f_code.co_name))

    sys.setprofile(note)
    try:
        trainer.step()
    finally:
        sys.setprofile(None)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the functions by file, with their counts")
    given = parser.parse_args()
    calls = calls_of_a_step()
    moves = sum(a != b for (a, _), (b, _) in pairwise(calls))
    print(f"{len(calls)} calls, {moves} moves to another file, {len({file for file, _ in calls})} files")
    if given.list:
        for (file, name), count in Counter(calls).most_common():
            print(f"{count:5} {file}: {name}")


if __name__ == "__main__":
    main()
