"""What every CLIP answers: pictures and captions to unit vectors of one space."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Role = Literal["judge", "guide", "any"]


class Clip:
    """A frozen picture and caption encoder.

    ``role`` says what it may do: a 'judge' never guides and a 'guide' never judges; 'any' is a public one, which may do
    either (but not both for one run: see ``evaluation.retrieval.check_judge``). ``hash`` is the SHA-256 of its weights.
    """

    id: str
    hash: str
    role: Role
    size: int
    device: torch.device

    def pictures(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] of any size -> unit vectors (B, D); differentiable."""
        raise NotImplementedError

    def captions(self, texts: list[str]) -> Tensor:
        """Captions -> unit vectors (N, D), without gradients."""
        raise NotImplementedError

    def unread(self, text: str) -> str:
        """The end of a caption that is too long, which is not read; '' if all is."""
        return ""

    def similarity(self, x: Tensor, texts: list[str], batch: int = 64) -> Tensor:
        """Cosine similarities (B, N) of pictures to captions, without gradients."""
        with torch.no_grad():
            seen = torch.cat([self.pictures(part) for part in x.split(batch)])
            return seen @ self.captions(texts).T
