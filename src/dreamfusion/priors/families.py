"""What differs between families of diffusion pipelines: how captions are embedded and how the network is called.

Everything else (schedules, guidance, memory, spaces) is the same for all and lives in ``diffusers_prior``. The text is
embedded by the pipeline's own ``encode_prompt``, so that tokens, padding and layers are what the network was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .question import Tokens

Embed = Callable[[Any, list[str], torch.device], Tokens]
Call = Callable[[Any, Tensor, Tensor, Tokens, int], Tensor]


@dataclass(frozen=True)
class Family:
    """One row of the table of families.

    embed(pipeline, captions, device) -> Tokens; call(network, z_t, network_time, words, resolution) -> output;
    ``side``: side of z, if the network's own configuration does not say it; ``zeros``: "nothing" is zeros instead of the
    empty caption, if the pipeline's configuration says so; ``patch``: side of what a transformer takes for a token;
    ``packs``: how many latent places lie in one of its tokens' input; ``longest``:
    most tokens that its T5 reads of a caption, if it has one.
    """

    name: str
    pipeline: str
    network: str
    latent: bool
    embed: Embed
    call: Call
    side: int = 64
    zeros: str = ""
    patch: int = 1
    packs: int = 1
    longest: int = 77


def whole(tokens: Tensor, pooled: Tensor | None = None) -> Tokens:
    """Tokens that are all read (these networks take no mask: they were trained with the padding)."""
    return Tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), pooled=pooled)


def embed_if(pipeline: Any, captions: list[str], device: torch.device) -> Tokens:
    """IF: tokens (B, L, D) of its T5."""
    return whole(pipeline.encode_prompt(captions, do_classifier_free_guidance=False, device=device)[0])


def embed_sd(pipeline: Any, captions: list[str], device: torch.device) -> Tokens:
    """Stable Diffusion: tokens (B, L, D) of its CLIP."""
    return whole(pipeline.encode_prompt(captions, device, 1, False)[0])


def embed_sdxl(pipeline: Any, captions: list[str], device: torch.device) -> Tokens:
    """Stable Diffusion XL: tokens (B, L, D) of both its CLIPs side by side, and the second one's pooled (B, P)."""
    tokens, _, pooled, _ = pipeline.encode_prompt(captions, device=device, do_classifier_free_guidance=False)
    return whole(tokens, pooled)


def embed_sd3(pipeline: Any, captions: list[str], device: torch.device) -> Tokens:
    """Stable Diffusion 3: tokens (B, L, D) of its two CLIPs and then of its T5, and both CLIPs' pooled (B, P)."""
    tokens, _, pooled, _ = pipeline.encode_prompt(
        captions, None, None, device=device, do_classifier_free_guidance=False
    )
    return whole(tokens, pooled)


def embed_flux(pipeline: Any, captions: list[str], device: torch.device) -> Tokens:
    """FLUX: tokens (B, L, D) of its T5, and its CLIP's pooled (B, P)."""
    tokens, pooled, _ = pipeline.encode_prompt(captions, None, device=device)
    return whole(tokens, pooled)


def call_unet(network: Any, z_t: Tensor, time: Tensor, words: Tokens, resolution: int) -> Tensor:
    """IF, Stable Diffusion and SDXL. IF's learned variance (the second half of its channels) is split off."""
    added = None
    if words.pooled is not None:  # SDXL: original size, crop corner, target size (Podell et al. 2023, section 2.2)
        sizes = torch.tensor([resolution, resolution, 0, 0, resolution, resolution], device=z_t.device, dtype=z_t.dtype)
        added = {"text_embeds": words.pooled, "time_ids": sizes.repeat(len(z_t), 1)}
    output = network(z_t, time, encoder_hidden_states=words.tokens, added_cond_kwargs=added, return_dict=False)[0]
    return output[:, : z_t.shape[1]]


def call_sd3(network: Any, z_t: Tensor, time: Tensor, words: Tokens, resolution: int) -> Tensor:
    """Stable Diffusion 3, whose output is of the shape (B, C, h, w) of z_t."""
    return network(
        hidden_states=z_t,
        timestep=time,
        encoder_hidden_states=words.tokens,
        pooled_projections=words.pooled,
        return_dict=False,
    )[0]


def call_flux(network: Any, z_t: Tensor, time: Tensor, words: Tokens, resolution: int) -> Tensor:
    """FLUX reads 2 x 2 patches in a row with their places. A distilled guidance input is held at 1, so that our
    guidance is the only one."""
    count, channels, height, width = z_t.shape
    patches = z_t.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(count, (height // 2) * (width // 2), channels * 4)
    rows, columns = torch.arange(height // 2, device=z_t.device), torch.arange(width // 2, device=z_t.device)
    grid = torch.cartesian_prod(rows, columns).to(z_t.dtype)
    guidance = torch.ones(count, device=z_t.device) if network.config.guidance_embeds else None
    output = network(
        hidden_states=patches, timestep=time / 1000, guidance=guidance, pooled_projections=words.pooled,
        encoder_hidden_states=words.tokens, txt_ids=grid.new_zeros(words.tokens.shape[1], 3),
        img_ids=torch.cat([torch.zeros_like(grid[:, :1]), grid], 1), return_dict=False,
    )[0]  # fmt: skip
    output = output.reshape(count, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return output.reshape(z_t.shape)


FAMILIES = (
    Family("DeepFloyd IF", "IFPipeline", "unet", False, embed_if, call_unet),
    Family("Stable Diffusion", "StableDiffusionPipeline", "unet", True, embed_sd, call_unet),
    Family(
        "Stable Diffusion XL",
        "StableDiffusionXLPipeline",
        "unet",
        True,
        embed_sdxl,
        call_unet,
        128,
        "force_zeros_for_empty_prompt",
    ),
    Family(
        "Stable Diffusion 3",
        "StableDiffusion3Pipeline",
        "transformer",
        True,
        embed_sd3,
        call_sd3,
        128,
        patch=2,
        longest=256,
    ),
    Family("FLUX", "FluxPipeline", "transformer", True, embed_flux, call_flux, 64, patch=2, packs=4, longest=512),
)


def family_of(pipeline: str) -> Family:
    """The family of a pipeline class as model_index.json names it. UserError, with those we know, for any other."""
    for family in FAMILIES:
        if family.pipeline == pipeline:
            return family
    raise UserError(
        f"the pipeline class {pipeline!r} is not known here; known: {', '.join(f.pipeline for f in FAMILIES)}"
    )
