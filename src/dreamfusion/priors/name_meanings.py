"""The sentence embeddings of a vocabulary's names, kept beside the weights: to embed thousands of names takes many seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import replacing
from ..models.text_encoder import TextEncoder

AT_ONCE = 128


def digest(names: Sequence[str]) -> str:
    """SHA-256 of names in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


@torch.no_grad()
def embedded(names: Sequence[str], encoder: TextEncoder) -> Tensor:
    """Unit vectors (N, 384) of names."""
    parts = [encoder.sentence(list(names[k : k + AT_ONCE])) for k in range(0, len(names), AT_ONCE)]
    return torch.cat(parts)


def write(path: Path, names: Sequence[str], encoder: TextEncoder) -> None:
    """Keep the embeddings of names, in half precision."""
    with replacing(path) as temporary:
        save_file({"meanings": embedded(names, encoder).half()}, temporary, metadata={"names": digest(names)})


def kept(path: Path, names: Sequence[str]) -> Tensor | None:
    """The embeddings (N, 384) that are kept of exactly these names; None where there are none."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("names") == digest(names):
                return file.get_tensor("meanings").float()
    except (SafetensorError, OSError):
        pass
    return None
