"""CLIP models of transformers: a folder that ``save_pretrained`` wrote, or one from the hub. Safetensors only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..models.hashes import file_sha256
from ..models.unread import unread_end
from ..paths import names_in
from .clip import Clip
from .towers import resized

FILES = ("*.json", "*.txt", "*.safetensors")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's models


def download(id: str) -> Path:
    """The folder of 'hf:OWNER/NAME[@REVISION]' in the hub's local cache. UserError if it is not there and cannot be downloaded."""
    from huggingface_hub import snapshot_download

    from ..models.hub import explained, parse

    repo, revision = parse(id)
    try:
        with explained(repo, revision):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=list(FILES)))
    except (ConnectionError, OSError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(
            f"the CLIP {id} is not in the hub's local cache and cannot be downloaded ({why}); give a folder"
        ) from None


class PublicClip(Clip):
    """A ``CLIPModel`` with its tokenizer, in float32."""

    role = "any"

    def __init__(self, folder: Path, id: str, device: str | torch.device = "cpu"):
        """UserError of one line for anything that does not load."""
        names_in(folder)  # a folder that cannot be read is not an empty one
        weights = sorted(folder.glob("*.safetensors"))
        if not (folder / "config.json").is_file() or not weights:
            pickled = " (only pickled ones)" if any(folder.glob("*.bin")) else ""
            raise UserError(
                f"{folder} is no CLIP model: it needs config.json and safetensors weights{pickled}, as save_pretrained writes"
            )
        from transformers import AutoConfig, CLIPModel, CLIPTokenizer

        try:
            kind = AutoConfig.from_pretrained(str(folder), local_files_only=True).model_type
            if kind != "clip":
                raise UserError(f"{folder} holds a model of type {kind!r}; the judge must be a 'clip'")
            loaded: Any = CLIPModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            self.model, found = loaded
            self.tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except UserError:
            raise
        except Exception as error:  # transformers raises whatever its parts raise
            raise UserError(f"the CLIP {id} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
        if missing := sorted(found["missing_keys"]):
            raise UserError(f"the CLIP {id} lacks {len(missing)} weights, {missing[0]} …")
        self.model.to(device).eval().requires_grad_(False)
        self.device, self.id = torch.device(device), id
        self.size = int(self.model.config.vision_config.image_size)
        parts = "".join(file_sha256(path) for path in weights)
        self.hash = parts if len(weights) == 1 else hashlib.sha256(parts.encode()).hexdigest()

    def pictures(self, x: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).to(x)[:, None, None] for v in (MEAN, STD))
        seen = self.model.vision_model(pixel_values=(resized(x, self.size) - mean) / std).pooler_output
        return torch.nn.functional.normalize(self.model.visual_projection(seen), dim=-1)

    def unread(self, text: str) -> str:
        return unread_end(self.tokenizer, text, int(self.tokenizer.model_max_length))

    @torch.no_grad()
    def captions(self, texts: list[str]) -> Tensor:
        out = []
        for start in range(0, len(texts), 64):
            words = self.tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
            read = self.model.text_model(**{k: words[k].to(self.device) for k in ("input_ids", "attention_mask")})
            out.append(self.model.text_projection(read.pooler_output))
        return torch.nn.functional.normalize(torch.cat(out), dim=-1)
