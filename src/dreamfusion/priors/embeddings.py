"""Captions to vectors by a checkpoint's own text encoders, which are loaded only for captions not in the cache on disk.

Text encoders are large (a T5-XXL has 4.7 billion parameters) and needed once: they are loaded, asked and freed before
the network is loaded.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..errors import UserError
from ..files import write_atomic
from ..paths import temporary_folder, user_path
from .checkpoint import Checkpoint, Part, fingerprint, read_json
from .families import whole
from .lora import fuse, lora_identities
from .question import Tokens
from .single_file import load_component, quietly


def cache_folder() -> Path:
    """Where embeddings are kept: $DREAMFUSION_CACHE, else the user's cache folder."""
    if given := os.environ.get("DREAMFUSION_CACHE"):
        return user_path(given)
    home = os.path.join(
        os.sep, os.path.expanduser("~"), ".cache"
    )  # a user without a home has none in the current folder
    return Path(os.environ.get("XDG_CACHE_HOME") or home) / "dreamfusion"


def cache_folders() -> list[Path]:
    """``cache_folder``, and what takes its place where it cannot be written to."""
    found = temporary_folder("cache")
    return [cache_folder(), *([found] if found else [])]


def load_part(part: Part, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """Load one part of a checkpoint from its folder. UserError, in one line, for files that do not fit its class."""
    if part.file is not None:
        return load_component(part, folder, dtype).eval().requires_grad_(False)
    wanted = part.load_class()
    if part.weights:
        options |= {"use_safetensors": True, "variant": part.variant, "torch_dtype": dtype, "output_loading_info": True}
    try:
        loaded = wanted.from_pretrained(str(folder / part.name), local_files_only=True, **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise UserError(f"{folder / part.name} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    if not part.weights:
        return loaded
    model, report = loaded
    if missing := report.get("missing_keys"):
        raise UserError(
            f"{folder / part.name} lacks {len(missing)} weights, {sorted(missing)[0]} for one; it is not the model it says"
        )
    return model.eval().requires_grad_(False)


class TextEncoders:
    """Callable: captions -> Tokens on the CPU, from the cache if they are in it."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, eight_bit: bool = False):
        assert checkpoint.folder is not None
        self.warned = False
        self.checkpoint, self.device, self.dtype, self.eight_bit = checkpoint, device, dtype, eight_bit
        files = [w for p in checkpoint.text_parts for w in p.weights]
        files += [
            f.relative_to(checkpoint.folder).as_posix()
            for p in checkpoint.text_parts for f in sorted((checkpoint.folder / p.name).glob("*"))
            if f.suffix in (".json", ".txt", ".model")
        ]  # fmt: skip
        self.identity = [fingerprint(checkpoint.folder, files), checkpoint.family.pipeline, str(dtype), eight_bit]
        if any(p.file for p in checkpoint.text_parts):
            self.identity.append(checkpoint.revision)
        self.identity += lora_identities(checkpoint)

    def __call__(self, captions: list[str]) -> Tokens:
        found = {c: self._read(c) for c in captions}
        missing = [c for c, words in found.items() if words is None]
        if missing:
            for caption, words in zip(missing, self._encode(missing), strict=True):
                found[caption] = words
                self._write(caption, words)
        rows = [found[c] for c in captions]
        tokens = torch.cat([r.tokens for r in rows if r is not None])
        pooled = [r.pooled for r in rows if r is not None and r.pooled is not None]
        return whole(tokens, torch.cat(pooled) if pooled else None)

    def nothing(self) -> Tokens:
        """One row that stands for no words: zeros if the pipeline says so, else the empty caption."""
        words = self([""])
        family = self.checkpoint.family
        # SDXL's pipeline class takes zeros unless its model_index.json says otherwise.
        if family.zeros and self.checkpoint.options.get(family.zeros, True):
            return whole(
                torch.zeros_like(words.tokens), None if words.pooled is None else torch.zeros_like(words.pooled)
            )
        return words

    def _encode(self, captions: list[str]) -> list[Tokens]:
        """Load the encoders, embed, free them."""
        pipeline = self._pipeline()
        with torch.no_grad(), quietly():
            words = self.checkpoint.family.embed(pipeline, captions, self.device)
        self._free(pipeline)
        rows = [words.rows([k]) for k in range(len(captions))]
        # Kept in float32, which holds every value of the smaller types; the prior's own type is applied when it asks.
        return [whole(r.tokens.float().cpu(), None if r.pooled is None else r.pooled.float().cpu()) for r in rows]

    def _free(self, pipeline: Any) -> None:
        """Release the encoders' memory now, even if something still refers to them."""
        for part in self.checkpoint.text_parts:
            if part.is_model:
                with suppress(ValueError, RuntimeError, NotImplementedError):  # models in 8 bit do not move
                    getattr(pipeline, part.name).to("meta")
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def _pipeline(self) -> Any:
        """The checkpoint's pipeline with its tokenizers and text encoders alone."""
        import diffusers

        folder = self.checkpoint.folder
        assert folder is not None
        wanted = getattr(diffusers, self.checkpoint.family.pipeline)
        loaded: dict[str, Any] = {}
        for part in self.checkpoint.text_parts:
            options: dict[str, Any] = {}
            if self.eight_bit and part.class_name == "T5EncoderModel":
                options["quantization_config"] = eight_bit_config()
            loaded[part.name] = load_part(part, folder, self.dtype, **options)
            if part.is_model:
                fuse(loaded[part.name], part.name, self.checkpoint)
                loaded[part.name].requires_grad_(False)
            if part.is_model and not options:
                loaded[part.name].to(self.device)
        none = {
            n: None
            for n, p in inspect.signature(wanted.__init__).parameters.items()
            if p.default is p.empty and n != "self"
        }
        extra = (
            {"requires_safety_checker": False}
            if "requires_safety_checker" in inspect.signature(wanted.__init__).parameters
            else {}
        )
        pipeline = wanted(**{**none, **extra, **loaded})
        if "text_encoder_3" in none and "text_encoder_3" not in loaded:
            # Without its T5, Stable Diffusion 3 reads zeros, as wide as its transformer says.
            pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**self._network_config()))
        return pipeline

    def _network_config(self) -> dict[str, Any]:
        assert self.checkpoint.folder is not None
        return read_json(self.checkpoint.folder / self.checkpoint.family.network / "config.json")

    def _place(self, caption: str, cache: Path) -> Path:
        key = hashlib.sha256(json.dumps([*self.identity, caption]).encode()).hexdigest()
        return cache / "embeddings" / key[:2] / f"{key}.safetensors"

    def _read(self, caption: str) -> Tokens | None:
        for cache in cache_folders():
            with suppress(OSError, SafetensorError, KeyError):  # a damaged cache entry is ignored
                stored = load(self._place(caption, cache).read_bytes())
                return whole(stored["tokens"], stored.get("pooled"))
        return None

    def _write(self, caption: str, words: Tokens) -> None:
        tensors = {"tokens": words.tokens} | ({} if words.pooled is None else {"pooled": words.pooled})
        data = save({k: v.contiguous() for k, v in tensors.items()})
        for cache in cache_folders():
            try:
                write_atomic(self._place(caption, cache), data)
                return
            except UserError as error:  # a cache that cannot be written costs time, not the run
                if not self.warned:
                    self.warned = True
                    warnings.warn(f"the cache of embeddings cannot be used: {error} (DREAMFUSION_CACHE)", stacklevel=2)


def eight_bit_config() -> Any:
    """transformers' 8-bit configuration; UserError if bitsandbytes is not installed."""
    if importlib_missing("bitsandbytes"):
        raise UserError(
            "text encoders in 8 bit need bitsandbytes: pip install bitsandbytes, or set prior.text_8bit to false"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def importlib_missing(name: str) -> bool:
    """Whether a package is not installed."""
    import importlib.util

    return importlib.util.find_spec(name) is None
