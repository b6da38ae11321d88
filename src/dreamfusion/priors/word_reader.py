"""Pools a caption's word embeddings by attention to a few learned questions; the bundled prior reads captions with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TEXT_WIDTH = 384


class WordReader(nn.Module):
    """Word embeddings (B, L, 384) to tokens of our own width and a pooled vector; learned tokens stand for "nothing"."""

    def __init__(self, width: int, queries: int = 4):
        super().__init__()
        self.project = nn.Linear(TEXT_WIDTH, width)
        self.query = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.key = nn.Linear(width, width)
        self.pooled_width = queries * width

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.project(tokens)
        score = (self.key(x) @ self.query.T.to(x.dtype)) / x.shape[-1] ** 0.5  # (B, L, Q)
        weight = score.masked_fill(~mask[..., None], -1e4).softmax(1)
        return x, (weight.transpose(1, 2) @ x).flatten(1)
