"""Any checkpoint of a known family (``families``) as a prior: one class; the family's row says what differs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from ..device import inference_dtype
from ..errors import UserError
from ..models.unread import unread_end
from . import vae
from .checkpoint import Checkpoint
from .embeddings import TextEncoders, load_part
from .lora import fuse, identity
from .memory import (
    NO_GRADIENT,
    Memory,
    Needs,
    choose,
    configurations,
    free_memory,
    gigabytes,
    needs_of_folder,
    side_of,
    slice_attention,
    vae_factor,
)
from .prior import Prior
from .question import Question, Tokens, Words, stacked
from .schedules import schedule_of

CLIP_TOKENS = 77
"""Most tokens that a CLIP reads of a caption."""
LATENT_RANGE = 4.0
"""A rendered latent in [0, 1] stands for one in [-4, 4]: what scaled latents (spread about 1) reach."""


class DiffusersPrior(Prior):
    """A frozen prior from a diffusers checkpoint.

    Nothing large is loaded before it is needed: the text encoders for the first captions (and freed at once), then the
    network, then the VAE (not at all if latents are rendered).
    """

    reads_camera = False

    def __init__(
        self, checkpoint: Checkpoint, device: str | torch.device = "cpu", precision: str = "auto", memory: Memory = "auto",
        text_8bit: bool = False, views: int = 1, graphs: int = 0,
    ):  # fmt: skip
        """UserError if the checkpoint is damaged, of an unknown kind, or does not fit (``memory``, for ``views`` at once
        and ``graphs`` kept, see ``memory.needs_of``)."""
        assert checkpoint.folder is not None
        self.checkpoint, self.family, self.folder = checkpoint, checkpoint.family, checkpoint.folder
        self.id, self.hash, self.device = checkpoint.full_id, identity(checkpoint), torch.device(device)
        self.dtype = inference_dtype(precision, self.device)
        self.network_config, self.vae_config = configurations(checkpoint)
        self.side = side_of(checkpoint, self.network_config)
        self.resolution = self.side * vae_factor(self.vae_config)
        self.channels = int(self.vae_config["latent_channels"]) if self.family.latent else 3
        self.limit = None if self.family.latent else 1.0
        scheduler = load_part(checkpoint.parts["scheduler"], self.folder, self.dtype)
        self.schedule = schedule_of(scheduler, (self.side // self.family.patch) ** 2)
        self.needs: Needs = needs_of_folder(checkpoint, self.dtype, views, graphs)
        self.memory = choose(memory, self.needs, self.device, free_memory(self.device))
        print(self.estimate(), file=sys.stderr)
        large_text = self.device.type == "cuda" and self.needs.text > 0.9 * free_memory(self.device)[0]
        text_device = torch.device("cpu") if large_text and not text_8bit else self.device
        self.text = TextEncoders(checkpoint, text_device, self.dtype, text_8bit)

    def estimate(self) -> str:
        """One line: what will be loaded and what it will take."""
        n = self.needs
        peak = n.on_device(self.memory, self.device.type == "cuda")
        return (
            f"{self.family.name} from {self.id}: text {gigabytes(n.text)} (freed before the run), "
            f"network {gigabytes(n.network)}, VAE {gigabytes(n.vae)}, {str(self.dtype).removeprefix('torch.')} on {self.device}; "
            f"peak about {gigabytes(peak)} (memory: {self.memory})"
        )

    @cached_property
    def network(self) -> Any:
        """The U-Net or transformer, loaded when first asked."""
        network = load_part(self.checkpoint.parts[self.family.network], self.folder, self.dtype)
        fuse(network, self.family.network, self.checkpoint)
        network.requires_grad_(False)
        slice_attention(network, self.memory, self.device)
        return self._place(network, self.memory == "lowest")

    @cached_property
    def vae(self) -> Any:
        """The VAE, loaded when first asked; in float32 if it says that half precision overflows."""
        overflow = self.vae_config.get("force_upcast", False) and self.dtype == torch.float16
        model = load_part(self.checkpoint.parts["vae"], self.folder, torch.float32 if overflow else self.dtype)
        if self.memory != "fast":
            model.enable_gradient_checkpointing()
            if not vae.is_tiny(self.vae_config):  # which is small, and tiles at one factor only
                model.enable_tiling()
        return self._place(model, False)

    def _place(self, model: Any, by_layer: bool) -> Any:
        if all(p.ndim != 5 for p in model.parameters()):
            model.to(memory_format=torch.channels_last)
        if by_layer:
            from accelerate import cpu_offload

            cpu_offload(model, self.device, offload_buffers=True)
            return model
        # With ``low`` the two models take turns on the device (``_bring``).
        return model if self.memory != "fast" else model.to(self.device)

    def _bring(self, name: str) -> Any:
        """The network or the VAE, on the device; with memory ``low`` the other one leaves it."""
        model = getattr(self, "vae" if name == "vae" else "network")
        if self.memory == "fast" or (self.memory == "lowest" and name != "vae"):
            return model
        other = self.__dict__.get("network" if name == "vae" else "vae")
        if other is not None and self.device.type == "cuda" and self.memory == "low":
            other.to("cpu")
        return model.to(self.device)

    @cached_property
    def _nothing(self) -> Tokens:
        return self.text.nothing().to(self.device)

    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Tokens:
        self.no_images(images)
        # The empty caption comes along, so that the encoders are loaded once.
        words = self.text([*captions, ""]).to(self.device)
        _ = self._nothing
        return words.rows(range(len(captions)))

    def adaptable(self) -> Any:
        return self._bring("network")

    def unread(self, caption: str) -> str:
        """What none of the text encoders reads: the last one reads furthest."""
        part = max((p for p in self.checkpoint.text_parts if p.name.startswith("tokenizer")), key=lambda p: p.name)
        most = self.family.longest if "T5" in part.class_name else CLIP_TOKENS
        return unread_end(load_part(part, self.folder, self.dtype), caption, most)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.alpha_sigma(t)

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, self.channels, self.side, self.side)

    def encode(self, picture: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) to z; or rendered latents (B, C, h, w) in [0, 1], of a latent prior, to z directly."""
        if self.family.latent and picture.shape[1] == self.channels and self.channels != 3:
            return resized(picture * 2 - 1, self.side) * LATENT_RANGE
        picture = resized(picture, self.resolution) * 2 - 1
        if not self.family.latent:
            return picture
        if self.memory == "fast" or not picture.requires_grad:
            return self._encode(picture)
        # The graph is dropped and made again in the backward pass, when the VAE is back on the device. In between, the
        # network gets the memory.
        return recomputed(self._encode, picture, use_reentrant=False)

    def _encode(self, picture: Tensor) -> Tensor:
        return vae.encode(self._bring("vae"), self.vae_config, picture)

    def decode(self, z: Tensor) -> Tensor:
        if not self.family.latent:
            return (z + 1) / 2
        return (vae.decode(self._bring("vae"), self.vae_config, z) + 1) / 2

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled() and self.memory == "lowest":
            raise UserError(NO_GRADIENT)
        asked = [self._nothing.rows([0] * len(z_t)) if words is None else words for words in about]
        rows = [words for words in asked if isinstance(words, Tokens)]
        if self.memory == "fast":
            many = len(rows)
            return self._predict(z_t.repeat(many, 1, 1, 1), t.repeat(many), stacked(rows)).split(len(z_t))
        return tuple(self._predict(z_t, t, words) for words in rows)

    def _predict(self, z_t: Tensor, t: Tensor, words: Tokens) -> Tensor:
        network = self._bring("network")
        pooled = None if words.pooled is None else words.pooled.to(self.dtype)
        typed = Tokens(words.tokens.to(self.dtype), words.mask, pooled)
        output = self.family.call(network, z_t.to(self.dtype), self.schedule.network_time(t), typed, self.resolution)
        exact = torch.promote_types(z_t.dtype, torch.float32)  # guidance amplifies differences: no half precision here
        return self.schedule.noise(output.to(exact), z_t.to(exact), t)

    def info(self) -> dict[str, Any]:
        """What the checkpoint is, as text and numbers."""
        return {
            "id": self.id, "revision": self.hash, "family": self.family.name, "pipeline": self.family.pipeline,
            "space": f"latent {self.side} x {self.side} x {self.channels}" if self.family.latent else "pixels",
            "resolution": self.resolution, "prediction": self.schedule.prediction, "dtype": str(self.dtype),
            "parameters": self.checkpoint.parts[self.family.network].parameters, "memory": self.memory,
        }  # fmt: skip


def resized(picture: Tensor, side: int) -> Tensor:
    """Pictures (B, C, H, W) at side x side, bilinear with antialiasing; the same tensor if they have that size already."""
    if picture.shape[-2:] == (side, side):
        return picture
    return torch.nn.functional.interpolate(picture, (side, side), mode="bilinear", antialias=True)
