"""Low-rank updates of a frozen network (Hu et al. 2021, LoRA), there only while it is asked; its modules stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of an attention in diffusers' networks."""


class LowRank(nn.Module):
    """W x + B A x for the linear layers of all attentions. A (rank, in) starts random, B (out, rank) at zero.

    A small network of what is seen, (B, features), is added to the time embedding; it starts at zero too. The names are
    those of published LoRA files: ``<layer>.lora_A.weight``.
    """

    def __init__(self, network: nn.Module, rank: int, features: int):
        super().__init__()
        layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear) and name.endswith(ADAPTED)}
        self.names = list(layers)
        self.down = nn.ParameterList(torch.empty(rank, m.in_features) for m in layers.values())
        self.up = nn.ParameterList(torch.zeros(m.out_features, rank) for m in layers.values())
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=5**0.5)
        _, time = time_embedding(network)
        width = time.linear_2.out_features
        last = zeroed(nn.Linear(64, width))
        self.seen = nn.Sequential(nn.Linear(features, 64), nn.SiLU(), last)

    @contextmanager
    def within(self, network: nn.Module, seen: Tensor) -> Iterator[None]:
        """Inside, the network answers with the updates; seen (B, features), with rows for as many pictures as it is asked."""
        hooks = []
        for name, down, up in zip(self.names, self.down, self.up, strict=True):
            hooks.append(network.get_submodule(name).register_forward_hook(adding(down, up)))
        extra = self.seen(seen)
        hooks.append(time_embedding(network)[1].register_forward_hook(lambda m, x, out: out + extra.to(out)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def adding(down: Tensor, up: Tensor) -> Any:
    """A hook that adds up @ down @ x to a layer's output."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + nn.functional.linear(nn.functional.linear(inputs[0].to(down), down), up).to(output)

    return hook


def time_embedding(network: nn.Module) -> tuple[str, Any]:
    """The layer of a diffusers network that embeds the time step, and its name. LookupError if there is none."""
    for name, module in network.named_modules():
        if type(module).__name__ == "TimestepEmbedding":
            return name, module
    raise LookupError("the network has no time embedding")


def zeroed(layer: Layer) -> Layer:
    """The layer, answering zero."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer
