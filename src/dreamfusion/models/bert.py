"""The forward pass of BERT (Devlin et al. 2018): transformers' ``BertModel`` without its import, which takes as long as loading PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

HEADS, EPSILON = 12, 1e-12
"""Heads of attention and the epsilon of the layer norms, of all-MiniLM-L6-v2 and of every model made from BERT-base."""


class Bert:
    """Callable: tokens (B, L) int64, mask (B, L) bool -> the last layer (B, L, D) float32. The weights are named as in ``BertModel``."""

    def __init__(self, weights: dict[str, Tensor]):
        self.weights = weights
        self.layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))

    @classmethod
    def load(cls, path: Path) -> Bert:
        """From a safetensors file."""
        return cls({name: weight.float() for name, weight in load_file(path).items() if weight.is_floating_point()})

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.weights["embeddings.LayerNorm.weight"].device

    def to(self, device: torch.device) -> Bert:
        """The same model on the device."""
        self.weights = {name: weight.to(device) for name, weight in self.weights.items()}
        return self

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        words, places, kinds = (
            self.weights[f"embeddings.{of}_embeddings.weight"] for of in ("word", "position", "token_type")
        )
        x = self.norm(words[tokens] + kinds[0] + places[: tokens.shape[1]], "embeddings")
        for layer in range(self.layers):
            x = self.layer(x, mask, f"encoder.layer.{layer}")
        return x

    def layer(self, x: Tensor, mask: Tensor, at: str) -> Tensor:
        """Self-attention to the tokens of the mask, then two linear layers, each added to its input and normalised."""
        q, k, v = (
            self.linear(x, f"{at}.attention.self.{of}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for of in ("query", "key", "value")
        )
        seen = F.scaled_dot_product_attention(q, k, v, mask[:, None, None]).transpose(1, 2).flatten(2)
        x = self.norm(self.linear(seen, f"{at}.attention.output.dense") + x, f"{at}.attention.output")
        wide = F.gelu(self.linear(x, f"{at}.intermediate.dense"))
        return self.norm(self.linear(wide, f"{at}.output.dense") + x, f"{at}.output")

    def linear(self, x: Tensor, at: str) -> Tensor:
        return F.linear(x, self.weights[f"{at}.weight"], self.weights[f"{at}.bias"])

    def norm(self, x: Tensor, at: str) -> Tensor:
        weight, bias = self.weights[f"{at}.LayerNorm.weight"], self.weights[f"{at}.LayerNorm.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, EPSILON)
