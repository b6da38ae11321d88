"""A CLIP in the place of a prior: it embeds words and scores pictures, and predicts no noise (rule ``clip``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from ..errors import UserError
from ..priors.prior import Condition

if TYPE_CHECKING:
    from . import Clip


def is_guide(id: str) -> bool:
    """Whether an id means a CLIP: 'guide', or 'guide:NAME' with a name that ``clip.load_guide`` takes."""
    return id == "guide" or id.startswith("guide:")


def load(id: str, device: str | torch.device = "cpu") -> GuidePrior:
    """The CLIP of an id as a prior. UserError where it cannot be loaded, or where it is a judge."""
    from . import load_guide

    name = id.removeprefix("guide").removeprefix(":")
    return GuidePrior(load_guide(name, device) if name else load_guide(device=device), id)


class GuidePrior:
    """A prior in the sense of ``base.Scorer``. Its space is that of pictures."""

    def __init__(self, clip: Clip, id: str = "guide"):
        self.clip, self.id, self.hash, self.resolution = clip, id, clip.hash, clip.size

    def embed(self, captions: list[str]) -> Condition:
        """One token a caption: its unit vector."""
        tokens = self.clip.captions(captions)[:, None]
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def similarity(self, picture: Tensor, condition: Condition) -> Tensor:
        return (self.clip.pictures(picture) * condition.tokens[:, 0]).sum(-1)

    def encode(self, picture: Tensor) -> Tensor:
        return picture

    def decode(self, z: Tensor) -> Tensor:
        return z

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, self.resolution, self.resolution)

    def alpha_sigma(self, t: Tensor) -> NoReturn:
        self._refuse()

    def predict_noise(self, z_t: Tensor, t: Tensor, condition: Condition) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(f"the prior {self.id!r} scores pictures and predicts no noise: it needs distillation.kind=clip")

    def info(self) -> dict[str, object]:
        """What it is, for ``prior info``."""
        return {
            "id": self.id,
            "sha256": self.hash,
            "clip": self.clip.id,
            "role": self.clip.role,
            "resolution": self.resolution,
        }
