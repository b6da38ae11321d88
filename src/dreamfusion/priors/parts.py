"""Whether the parts of a pipeline are such as a prior can be made of: their classes, and what their configurations say."""

from __future__ import annotations

from typing import Any

from ..errors import UserError
from .families import Family
from .vae import WIDTHS

UNET, CLIP, PROJECTED, T5 = "UNet2DConditionModel", "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
CLASSES = {
    "IFPipeline": {"unet": UNET, "text_encoder": T5},
    "StableDiffusionPipeline": {"unet": UNET, "text_encoder": CLIP},
    "StableDiffusionXLPipeline": {"unet": UNET, "text_encoder": CLIP, "text_encoder_2": PROJECTED},
    "StableDiffusion3Pipeline": {
        "transformer": "SD3Transformer2DModel", "text_encoder": PROJECTED, "text_encoder_2": PROJECTED, "text_encoder_3": T5,
    },
    "FluxPipeline": {"transformer": "FluxTransformer2DModel", "text_encoder": CLIP, "text_encoder_2": T5},
}  # fmt: skip
ADDED = {"StableDiffusionXLPipeline": "text_time", "IFPipeline": "text"}
"""What U-Nets of a pipeline read besides the tokens (``addition_embed_type``); others read nothing else."""
PURPOSES = {
    5: "a depth map", 6: "a small picture that it enlarges", 7: "a small picture that it enlarges",
    8: "a picture that it edits", 9: "a mask and the picture around it (inpainting)",
}  # fmt: skip
"""What the further channels of known U-Nets are for, by the number of all of them."""


def check_classes(family: Family, classes: dict[str, str]) -> None:
    """UserError if one of the parts {name: class} is of a class that this family's prior does not know."""
    for name, found in classes.items():
        known = tuple(WIDTHS) if name == "vae" else (CLASSES[family.pipeline].get(name, found),)
        if found not in known:
            raise UserError(f"{name} of the checkpoint is of class {found}; {family.name} needs {' or '.join(known)}")


def check_network(family: Family, config: dict[str, Any], latent_channels: int, where: str) -> None:
    """UserError if a network's config.json says that it reads more than a noisy picture and words. What it does not say
    counts as usual."""
    expected = latent_channels * family.packs
    channels = config.get("in_channels", expected)
    if channels != expected:
        purpose = PURPOSES.get(channels, "") if family.network == "unet" else ""
        reads = f": it also reads {purpose}, which a prior does not have" if purpose else ""
        raise UserError(f"the {family.network} of {where} has {channels} input channels, not {expected}{reads}")
    for key in ("class_embed_type", "num_class_embeds"):
        if config.get(key) is not None:
            raise UserError(f"the {family.network} of {where} reads class labels ({key}), which a prior does not have")
    added, usual = config.get("addition_embed_type"), ADDED.get(family.pipeline)
    if family.network == "unet" and added is not None and added != usual:
        raise UserError(f"the unet of {where} reads {added!r} besides the words, which {family.name} does not have")
    if config.get("encoder_hid_dim_type") not in (None, "text_proj"):
        raise UserError(f"the unet of {where} reads {config['encoder_hid_dim_type']!r} instead of words")


def check_widths(family: Family, network: dict[str, Any], encoders: dict[str, dict[str, Any]], where: str) -> None:
    """UserError if a U-Net reads words of another width than the text encoders (their config.json by name) give."""
    read = network.get("encoder_hid_dim") or network.get("cross_attention_dim")
    given = [c.get("hidden_size") or c.get("d_model") for c in encoders.values()]
    if family.network != "unet" or not isinstance(read, int) or not all(isinstance(width, int) for width in given):
        return
    if (width := sum(given)) != read:  # type: ignore[arg-type]
        raise UserError(
            f"the unet of {where} reads words of width {read}, its text encoders give {width}: they do not belong together"
        )
