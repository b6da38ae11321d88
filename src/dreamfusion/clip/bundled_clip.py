"""The two CLIPs that come with the package: ``judge`` and ``guide`` (see ``docs/evaluation.md`` for their cards)."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError
from ..files import replacing
from ..models.hashes import file_sha256
from ..models.text_encoder import TextEncoder
from .clip import Clip
from .towers import SIZE, Guide, Judge, resized

WEIGHTS = Path(__file__).parent / "weights"
KINDS = {"judge": Judge, "guide": Guide}
UNUSED = "eye."
"""Part of older judges' weights that nobody asks any more."""


class BundledClip(Clip):
    """Weights of ``tools/clip``. Their role stands in the file itself."""

    size = SIZE

    def __init__(self, path: Path, id: str, device: str | torch.device = "cpu"):
        """UserError if the weights are missing, altered (if a hash is on record), or something else."""
        if not path.is_file():
            raise UserError(f"the CLIP's weights are missing: {path} (reinstall dreamfusion, or see tools/clip)")
        self.id, self.hash, self.device = id, file_sha256(path), torch.device(device)
        record = path.with_suffix(".json")
        self.record: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
        if (expected := self.record.get("sha256", self.hash)) != self.hash:
            raise UserError(
                f"the CLIP's weights were altered: SHA-256 of {path} is {self.hash[:12]}…, not {expected[:12]}…"
            )
        try:
            with safe_open(path, "pt") as file:
                role = (file.metadata() or {}).get("role", "")
                keys = [key for key in file.keys() if not key.startswith(UNUSED)]
                stored = {key: file.get_tensor(key).float() for key in keys}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a safetensors file: {str(error).splitlines()[0]}") from None
        if role not in KINDS:
            raise UserError(f"{path} does not say whether it is a judge or a guide; pack it with tools/clip/card.py")
        if self.record.get("role", role) != role:
            raise UserError(f"{path} says it is a {role}, {record.name} that it is a {self.record['role']}")
        self.role = role  # type: ignore[assignment]
        self.network: Judge | Guide = KINDS[role]()
        try:
            self.network.load_state_dict(stored)
        except RuntimeError as error:
            raise UserError(f"{path} does not hold a {role}'s weights: {str(error).splitlines()[-1].strip()}") from None
        self.network.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]

    def pictures(self, x: Tensor) -> Tensor:
        return self.network(resized(x, SIZE))

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder, loaded when first needed."""
        return TextEncoder.load()

    def unread(self, text: str) -> str:
        return self.encoder.unread(text)

    @torch.no_grad()
    def captions(self, texts: list[str]) -> Tensor:
        parts = [self.encoder.sentence(texts[i : i + 128]) for i in range(0, len(texts), 128)]
        return self.network.words(torch.cat(parts).to(self.device))


def write(network: Judge | Guide, path: Path, record: dict[str, Any]) -> None:
    """Store a network as fp16 with its role, and its record (JSON, with the hash) beside it."""
    role = type(network).__name__.lower()
    tensors = {
        k: (v.half() if v.is_floating_point() else v).detach().contiguous() for k, v in network.state_dict().items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"role": role, "format": "dreamfusion-clip-1"})
    page = {"role": role, "sha256": file_sha256(path)} | record
    path.with_suffix(".json").write_text(json.dumps(page, indent=1) + "\n")
