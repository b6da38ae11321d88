"""What an id of a diffusers checkpoint means: a folder, or a model on the hub."""

from __future__ import annotations

import importlib.util

import torch

from ..device import inference_dtype
from ..errors import UserError, nearest
from ..paths import kind_of, user_path
from .checkpoint import Checkpoint, open_folder

NAMES = ("bundled", "guide")


def find_checkpoint(id: str, device: str | torch.device = "cpu", precision: str = "auto") -> Checkpoint:
    """The checkpoint of an id that is neither 'bundled' nor a mixture; nothing large is read. UserError for an unknown id."""
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
    half = inference_dtype(precision, torch.device(device)).itemsize == 2
    if hub_id:
        from .hub_checkpoint import find  # the hub's library is an extra

        return find(id, half)
    return open_folder(path, half)
