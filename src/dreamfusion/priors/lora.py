"""LoRAs: low-rank weights that are added to a checkpoint's, W + scale B A (Hu et al. 2021), by diffusers and peft.

They are fused into the weights, so that a network with a LoRA costs what it costs without.
"""

from __future__ import annotations

import hashlib
from typing import Any

from safetensors import SafetensorError

from ..errors import UserError
from .checkpoint import Checkpoint, fingerprint, read_header, read_json
from .prior_id import Lora

DOWN = ("lora_A", "lora.down", "lora_down", "lora.A", "lora_linear_layer.down")
"""How the names of a LoRA's first matrices tell themselves, in the layouts that diffusers reads."""


def check_lora(lora: Lora) -> None:
    """UserError if there is no such file, if it is damaged or no LoRA, or if peft is missing. Nothing large is read."""
    if lora.path.is_dir():
        raise UserError(f"lora:{lora.path} is a folder; give the .safetensors file in it")
    if not lora.path.is_file():
        raise UserError(f"lora:{lora.path}: there is no such file")
    if lora.path.suffix != ".safetensors":
        raise UserError(f"lora:{lora.path}: only .safetensors are loaded, never pickles")
    if not any("lora" in name for name in read_header(lora.path)):
        raise UserError(f"lora:{lora.path} is no LoRA: no name in it has 'lora' in it")
    from diffusers.utils import USE_PEFT_BACKEND

    if not USE_PEFT_BACKEND:
        raise UserError("LoRAs need peft: pip install 'dreamfusion[diffusers]'")


def lora_identities(checkpoint: Checkpoint) -> list[str]:
    """What tells each of the LoRAs, at its scale, apart from others."""
    return [f"{fingerprint(x.path.parent, [x.path.name])}@{x.scale:.10g}" for x in checkpoint.loras]


def identity(checkpoint: Checkpoint) -> str:
    """The checkpoint's revision; with LoRAs a hash of it and them."""
    if not checkpoint.loras:
        return checkpoint.revision
    return hashlib.sha256("\0".join([checkpoint.revision, *lora_identities(checkpoint)]).encode()).hexdigest()


def fuse(model: Any, name: str, checkpoint: Checkpoint) -> None:
    """Add the checkpoint's LoRAs to one of its models (``name``: 'unet', 'text_encoder' …), in place. UserError if one does not
    fit."""
    for number, lora in enumerate(checkpoint.loras):
        tensors, alphas = _converted(checkpoint, lora)
        parts = tuple(f"{p.name}." for p in checkpoint.parts.values())
        if strange := next((key for key in tensors if not key.startswith(parts)), None):
            raise UserError(f"lora:{lora.path} is for another kind of model: {checkpoint.family.name} has no {strange}")
        mine = {key: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if mine:
            _fuse_one(model, name, checkpoint, lora, f"lora{number}", mine, alphas)


def _converted(checkpoint: Checkpoint, lora: Lora) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A LoRA's tensors under diffusers' names ('unet.…', 'text_encoder.…'), and its alphas if the file has them."""
    import diffusers

    pipeline = getattr(diffusers, checkpoint.family.pipeline)
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    if checkpoint.family.pipeline == "StableDiffusionXLPipeline":
        options["unet_config"] = _config_object(checkpoint)
    if checkpoint.family.pipeline == "FluxPipeline":
        options["return_alphas"] = True
    try:
        found = pipeline.lora_state_dict(str(lora.path), **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(f"lora:{lora.path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    tensors, alphas = found[:2] if isinstance(found, tuple) else (found, None)
    return tensors, alphas


def _config_object(checkpoint: Checkpoint) -> Any:
    from diffusers.configuration_utils import FrozenDict

    assert checkpoint.folder is not None
    return FrozenDict(read_json(checkpoint.folder / checkpoint.family.network / "config.json"))


def _fuse_one(
    model: Any, name: str, checkpoint: Checkpoint, lora: Lora, adapter: str, tensors: dict[str, Any], alphas: Any
) -> None:
    import diffusers
    from diffusers.loaders.lora_base import fuse_text_encoder_lora
    from diffusers.utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    network = name == checkpoint.family.network
    try:
        if network:
            model.load_lora_adapter(tensors, prefix=name, network_alphas=alphas, adapter_name=adapter)
        else:
            pipeline = getattr(diffusers, checkpoint.family.pipeline)
            pipeline.load_lora_into_text_encoder(
                tensors, network_alphas=alphas, text_encoder=model, prefix=name, adapter_name=adapter
            )
        found = sum(isinstance(m, BaseTunerLayer) and adapter in m.active_adapters for m in model.modules())
        wanted = sum(any(word in key for word in DOWN) for key in tensors)
        if found < wanted:
            raise UserError(
                f"lora:{lora.path} is of another model: {wanted - found} of its {wanted} layers are not in {name}"
            )
        if network:
            model.fuse_lora(lora_scale=lora.scale, adapter_names=[adapter])
            model.unload_lora()
        else:
            fuse_text_encoder_lora(model, lora.scale, adapter_names=[adapter])
            recurse_remove_peft_layers(model)
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise UserError(f"lora:{lora.path} does not fit {name}: {' '.join(str(error).split())[:200]}") from None
