"""A CLIP that guides: it embeds words and scores pictures, and predicts no noise (rule ``clip``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..priors.prior import Scorer
from ..priors.question import Question, Tokens
from . import load_guide
from .clip import Clip


def is_guide(id: str) -> bool:
    """Whether an id means a CLIP: 'guide', or 'guide:NAME' with a name that ``clip.load_guide`` takes."""
    return id == "guide" or id.startswith("guide:")


def load(id: str, device: str | torch.device = "cpu") -> Guide:
    """The CLIP of an id as a scorer. UserError if it cannot be loaded, or where it is a judge."""
    name = id.removeprefix("guide").removeprefix(":")
    return Guide(load_guide(name, device) if name else load_guide(device=device), id)


class Guide(Scorer):
    """A CLIP instead of a prior."""

    reads_camera = False

    def __init__(self, clip: Clip, id: str = "guide"):
        self.clip, self.id, self.hash, self.resolution, self.device = clip, id, clip.hash, clip.size, clip.device

    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Tokens:
        """One token a caption: its unit vector."""
        self.no_images(images)
        tokens = self.clip.captions(list(captions))[:, None]
        return Tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def unread(self, caption: str) -> str:
        return self.clip.unread(caption)

    def similarity(self, picture: Tensor, question: Question) -> Tensor:
        assert isinstance(question.words, Tokens)
        return (self.clip.pictures(picture) * question.words.tokens[:, 0]).sum(-1)

    def info(self) -> dict[str, object]:
        return super().info() | {"clip": self.clip.id, "role": self.clip.role}
