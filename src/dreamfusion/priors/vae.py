"""VAEs of latent priors: pictures to latents of spread about 1, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

WIDTHS = {"AutoencoderKL": "block_out_channels", "AutoencoderTiny": "encoder_block_out_channels"}
"""The classes that are known, and what each calls the widths of its encoder."""
ASKED = ("block_out_channels", "latent_channels", "scaling_factor")


def known_config(config: dict[str, Any], where: str) -> dict[str, Any]:
    """A VAE's config.json with its encoder's widths under 'block_out_channels'. UserError if it is of another class, or
    says too little or contradicts itself."""
    name = config.get("_class_name", "AutoencoderKL")
    if name not in WIDTHS:
        raise UserError(f"{where} is that of {name}; known VAEs: {', '.join(WIDTHS)}")
    if WIDTHS[name] in config:
        config = config | {"block_out_channels": config[WIDTHS[name]]}
    if lacks := [key for key in ASKED if config.get(key) is None]:
        raise UserError(f"{where} does not say {lacks[0]}; it is not that of an {name}")
    for key in ("latents_mean", "latents_std"):
        if config.get(key) is not None and len(config[key]) != config["latent_channels"]:
            raise UserError(f"{where}: {key} has {len(config[key])} numbers for {config['latent_channels']} channels")
    if config.get("latents_mean") is not None and config.get("shift_factor"):
        raise UserError(f"{where} has both shift_factor and latents_mean; it is not clear which one is meant")
    return config


def is_tiny(config: dict[str, Any]) -> bool:
    """Whether a VAE is an AutoencoderTiny, which has no distribution."""
    return config.get("_class_name") == "AutoencoderTiny"


def _affine(config: dict[str, Any], like: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and factor, each (1, C or 1, 1, 1): the prior's latent is (z - shift) factor, z being the VAE's own."""

    def column(value: Any) -> Tensor:
        return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)

    mean, std = config.get("latents_mean"), config.get("latents_std")
    shift = column(mean if mean is not None else config.get("shift_factor") or 0.0)
    return shift, config["scaling_factor"] / column(std if std is not None else 1.0)


def encode(vae: Any, config: dict[str, Any], picture: Tensor) -> Tensor:
    """Latents (B, C, h, w) of pictures (B, 3, H, W) in [-1, 1], scaled as the prior was trained on them.

    latents_mean and latents_std are applied as diffusers' Stable Diffusion XL pipelines do.
    """
    answer = vae.encode(picture.to(vae.dtype))
    # The mode, not a sample: the distribution is narrow and its noise would only add to the noise of the direction.
    own = answer.latents if is_tiny(config) else answer.latent_dist.mode()
    own = own.to(picture.dtype)
    shift, factor = _affine(config, own)
    return (own - shift) * factor


def decode(vae: Any, config: dict[str, Any], z: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in about [-1, 1] of latents; the inverse of ``encode``."""
    shift, factor = _affine(config, z)
    return vae.decode((z / factor + shift).to(vae.dtype), return_dict=False)[0].float()
