"""What an id of a diffusers checkpoint means: a folder, or a model on the hub."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import torch

from ..device import inference_dtype
from ..errors import UserError, nearest
from ..models.hub import parse as parse_hub
from ..paths import kind_of, user_path
from .checkpoint import Checkpoint, open_folder
from .lora import check_lora
from .prior_id import PriorId, parse
from .single_file import SingleFile, is_single_file, open_file

NAMES = ("bundled", "guide")


def find_checkpoint(id: str, device: str | torch.device = "cpu", precision: str = "auto") -> Checkpoint:
    """The checkpoint of an id that is neither 'bundled' nor a mixture; nothing large is read. UserError for an unknown id."""
    wanted = parse(id)
    id = wanted.base
    hub_id, path = id.startswith("hf:"), user_path(id)
    if not hub_id and kind_of(path) == "nothing":
        if "*" in id or "+" in id:
            raise UserError(f"unknown prior {id!r}; a mixture is written 0.7*A + 0.3*B, with spaces around the plus")
        if id.count("/") == 1 and not id.startswith((".", "~", "/")):
            raise UserError(f"there is no folder {id}; for a model on the hub write hf:{id}")
        if "/" not in id:
            raise UserError(
                f"unknown prior {id!r}{nearest(id, NAMES)}; or hf:OWNER/NAME, a folder, or a .safetensors file"
            )
    if importlib.util.find_spec("diffusers") is None:
        raise UserError("this prior needs diffusers: pip install 'dreamfusion[diffusers]'")
    for lora in wanted.loras:
        check_lora(lora)
    return replace(_find(wanted, inference_dtype(precision, torch.device(device)).itemsize == 2), loras=wanted.loras)


def _find(wanted: PriorId, half: bool) -> Checkpoint:
    """The checkpoint of an id, without its LoRAs."""
    from .hub_checkpoint import find, find_config  # the hub's library is an extra

    path = user_path(wanted.base)
    if wanted.base.startswith("hf:"):
        _no_config(wanted)
        found = find(wanted.base, half, wanted.variant)
    elif path.is_dir() or not path.exists():
        _no_config(wanted)
        found = open_folder(path, half, variant=wanted.variant)
    else:
        if path.suffix != ".safetensors":
            raise UserError(f"{path} is no .safetensors file; pickled checkpoints are never loaded")
        if wanted.variant:
            raise UserError(f"{path} is one file; it has no variants")
        given = wanted.config or f"hf:{SingleFile.open(path).default_config()}"
        folder = find_config(parse_hub(given)[0]) if given.startswith("hf:") else user_path(given)
        return open_file(path, folder, half, str(replace(wanted, loras=())))
    return replace(found, id=f"{found.id} + variant:{wanted.variant}") if wanted.variant else found


def _no_config(wanted: PriorId) -> None:
    if wanted.config:
        raise UserError(f"config:{wanted.config} is for a single file; {wanted.base} has its own configurations")


def is_bundled_kind(id: str) -> bool:
    """Whether an id means the bundled prior or other weights of its kind. UserError if it asks them for something more, or
    if a .safetensors file is neither such weights nor a whole checkpoint."""
    wanted = parse(id)
    own = wanted.base == "bundled" or (
        wanted.base.endswith(".safetensors") and not is_single_file(user_path(wanted.base))
    )
    if own and (wanted.loras or wanted.config or wanted.variant):
        extras = id[len(wanted.base) :].strip(" +")
        raise UserError(f"the bundled prior takes no LoRA, configuration or variant; leave out {extras!r}")
    return own
