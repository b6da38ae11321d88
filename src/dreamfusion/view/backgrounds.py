"""What stands behind the object."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

_PLAIN = {"gray": 0.5, "white": 1.0, "black": 0.0}


class LearnedBackground(nn.Module):
    """One colour for all views, learned with the scene; starts at mid-gray."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))

    def forward(self, count: int) -> Tensor:
        """The colour, (count, 3)."""
        return torch.sigmoid(self.logits).expand(count, 3)


def background_colours(
    kind: Literal["gray", "white", "black", "random"], count: int, generator: torch.Generator
) -> Tensor:
    """Colours (count, 3) in [0, 1], one for each picture; ``random`` is uniform in the colour cube."""
    if kind == "random":
        return torch.rand(count, 3, generator=generator, device=generator.device)
    return torch.full((count, 3), _PLAIN[kind])


def composite(colour: Tensor, opacity: Tensor, background: Tensor) -> Tensor:
    """Put pictures before their backgrounds: colour + (1 - opacity) background, (N, 3).

    colour (N, 3) premultiplied by opacity (N,); background (B, 3) for B pictures of N / B rays each, in order.
    """
    behind = background.to(colour).repeat_interleave(len(colour) // len(background), 0)
    return colour + (1 - opacity)[:, None] * behind
