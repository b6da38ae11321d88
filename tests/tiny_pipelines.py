"""Pipelines of the real diffusers classes with tiny random weights, saved as a user's folder would be."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    IFPipeline,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = string.ascii_lowercase
CLIP_VOCABULARY = {"<|startoftext|>": 0, "<|endoftext|>": 1} | {
    x: 2 + i for i, x in enumerate([*LETTERS, *(c + "</w>" for c in LETTERS)])
}
T5_VOCABULARY = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in LETTERS)]
NAMES = ("if", "sd", "sdv", "sdxl", "sd3", "flux")


def clip(width: int = 32, projection: bool = False) -> tuple[Any, Any]:
    tokenizer = CLIPTokenizer(vocab=CLIP_VOCABULARY, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(CLIP_VOCABULARY), hidden_size=width, intermediate_size=37, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1, hidden_act="gelu",
    )  # fmt: skip
    return tokenizer, (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(width: int = 32) -> tuple[Any, Any]:
    tokenizer = T5Tokenizer(vocab=T5_VOCABULARY, extra_ids=0, model_max_length=512)
    config = T5Config(vocab_size=len(T5_VOCABULARY), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return tokenizer, T5EncoderModel(config)


def vae(channels: int = 4, **config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16), in_channels=3, out_channels=3, latent_channels=channels, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **config,
    )  # fmt: skip


def make_if() -> Any:
    tokenizer, encoder = t5()
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=3, out_channels=6, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=4,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=32, encoder_hid_dim=32, attention_head_dim=8, addition_embed_type="text", addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm", resnet_time_scale_shift="scale_shift", act_fn="gelu",
    )  # fmt: skip
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", prediction_type="epsilon"
    )
    return IFPipeline(tokenizer, encoder, unet, scheduler, None, None, None, requires_safety_checker=False)


def sd_unet(**config: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, **config,
    )  # fmt: skip


def tiny_vae(channels: int = 4) -> AutoencoderTiny:
    return AutoencoderTiny(
        latent_channels=channels, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip


def make_sd(prediction: str = "epsilon") -> Any:
    tokenizer, encoder = clip()
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction,
    )
    unet = sd_unet(cross_attention_dim=32)
    return StableDiffusionPipeline(
        vae(scaling_factor=0.18215), encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def make_sdxl() -> Any:
    (tokenizer, one), (_, two) = clip(), clip(projection=True)
    unet = sd_unet(
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    return StableDiffusionXLPipeline(
        vae(scaling_factor=0.13025, force_upcast=True),
        one,
        two,
        tokenizer,
        tokenizer,
        unet,
        scheduler,
        add_watermarker=False,
    )


def make_sd3() -> Any:
    (tokenizer, one), (_, two), (tokenizer3, three) = clip(projection=True), clip(projection=True), t5(64)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=8, num_layers=2, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=64,
        caption_projection_dim=32, pooled_projection_dim=64, out_channels=8,
    )  # fmt: skip
    latents = vae(8, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return StableDiffusion3Pipeline(transformer, scheduler, latents, one, tokenizer, two, tokenizer, three, tokenizer3)


def make_flux() -> Any:
    (tokenizer, one), (tokenizer2, two) = clip(), t5()
    transformer: Any = FluxTransformer2DModel(
        patch_size=1, in_channels=32, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    transformer.register_to_config(sample_size=8)  # FLUX does not say its size; the tiny one must be tiny
    latents = vae(8, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return FluxPipeline(scheduler, latents, one, tokenizer, two, tokenizer2, transformer)


MAKERS = {
    "if": make_if, "sd": make_sd, "sdv": lambda: make_sd("v_prediction"), "sdxl": make_sdxl, "sd3": make_sd3, "flux": make_flux,
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    """Build the tiny pipeline ``name`` with fixed random weights and save it under ``folder``."""
    torch.manual_seed(sum(map(ord, name)))
    pipeline = MAKERS[name]()
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    with torch.no_grad():  # output layers that start at zero would make every answer the same
        for p in network.parameters():
            if p.abs().sum() == 0:
                p.normal_(0, 0.02)
    pipeline.save_pretrained(folder / name, safe_serialization=True)
    return folder / name
