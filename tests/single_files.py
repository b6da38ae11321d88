"""A tiny Stable Diffusion in one file, under the names of its first publication (as merges and fine-tunes are traded)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str, with_attention: set[str]) -> str:
    """A U-Net's tensor (one layer a block, two blocks) in the first publication's names."""
    for here, there in UNET.items():
        if name.startswith(f"{here}."):
            return there + name[len(here) :]
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = 2 * int(found[2]) if found[1] == "resnets" else 1
        return f"middle_block.{place}.{inside(found[3])}"
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name)
    assert found, name
    way, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{2 * (block + 1)}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{2 * block + 1}.{2 if f'up_blocks.{block}' in with_attention else 1}.{rest}"
    place = f"input_blocks.{2 * block + layer + 1}" if way == "down" else f"output_blocks.{2 * block + layer}"
    return f"{place}.{0 if kind == 'resnets' else 1}.{inside(rest)}"


def inside(rest: str) -> str:
    """A tensor inside a residual block; attention blocks keep their names."""
    head, _, tail = rest.partition(".")
    return f"{RESNET[head]}.{tail}" if head in RESNET else rest


def vae_name(name: str) -> str:
    """A VAE's tensor (two blocks) in the first publication's names."""
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample", name)
    if "attn_1" in name:
        for here, there in VAE_ATTENTION.items():
            name = name.replace(f"attn_1.{here}.", f"attn_1.{there}.")
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def single_file(folder: Path, path: Path) -> Path:
    """The weights of a tiny Stable Diffusion that was saved in a folder, in one file."""
    unet, vae, text = (load_file(next((folder / n).glob("*.safetensors"))) for n in ("unet", "vae", "text_encoder"))
    attention = {".".join(name.split(".")[:2]) for name in unet if "attentions" in name}
    tensors: dict[str, Tensor] = {f"model.diffusion_model.{unet_name(n, attention)}": x for n, x in unet.items()}
    for name, x in vae.items():
        new = vae_name(name)
        convolution = "attn_1" in new and new.endswith("weight") and "norm" not in new
        tensors[f"first_stage_model.{new}"] = x[..., None, None] if convolution else x
    for name, x in text.items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = x
    tensors["model_ema.decay"] = vae["quant_conv.bias"][:1].clone()  # files have such rests
    save(tensors, path)
    return path


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors that may share memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: x.clone().contiguous() for name, x in tensors.items()}, path)
