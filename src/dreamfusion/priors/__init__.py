"""Frozen diffusion priors. ``load_prior`` is the one way to get one; ``describe_prior`` says what it would load."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError, nearest
from ..clip.guide import is_guide
from .mixture import Mixture, is_mixture, parse_mixture

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .memory import Memory

NAMES = ("bundled", "guide")


def load_prior(
    id: str = "bundled",
    device: str | torch.device = "cpu",
    precision: str = "auto",
    memory: Memory = "auto",
    text_8bit: bool = False,
    views: int = 1,
    graphs: int = 0,
) -> Any:
    """Load a prior: 'bundled', a safetensors file of its kind, 'hf:OWNER/NAME[@REVISION]', the folder of a diffusers
    pipeline, or a mixture of them, '0.7*A + 0.3*B'; or 'guide', a CLIP ('guide:hf:OWNER/NAME' for another one).

    ``memory`` and ``text_8bit``: see ``config.PriorSettings``; ``views``: pictures asked about at once, and ``graphs``:
    answers whose graphs are kept (``distillation.kept_graphs``), both for the estimate of the memory. UserError, before
    anything large is loaded, for what cannot be.
    """
    from .bundled_prior import WEIGHTS, BundledPrior

    if is_guide(id):
        from ..clip.guide import load

        return load(id, device)
    if is_mixture(id):
        rest = device, precision, memory, text_8bit, views, graphs
        return Mixture([(share, load_prior(part, *rest)) for share, part in parse_mixture(id)])
    if id == "bundled":
        return BundledPrior(WEIGHTS, device, precision)
    if id.endswith(".safetensors"):
        return BundledPrior(Path(id), device, precision)
    checkpoint = find_checkpoint(id, device, precision)
    from .diffusers_prior import DiffusersPrior
    from ..models.hub import download

    if checkpoint.folder is None:
        from .prior_report import refuse_what_cannot_fit

        refuse_what_cannot_fit(checkpoint, device, precision)
    return DiffusersPrior(download(checkpoint), device, precision, memory, text_8bit, views, graphs)


def find_checkpoint(id: str, device: str | torch.device = "cpu", precision: str = "auto") -> Checkpoint:
    """What an id that is neither 'bundled' nor a mixture means; nothing large is read. UserError where it means nothing."""
    from ..device import inference_dtype

    hub_id, path = id.startswith("hf:"), Path(id).expanduser()
    if not hub_id and not path.exists():
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
        from ..models.hub import find

        return find(id, half)
    from .checkpoint import open_folder

    return open_folder(path, half)


def describe_prior(id: str, device: str | torch.device = "cpu", precision: str = "auto") -> dict[str, Any]:
    """What ``load_prior`` would load, from where, how large, and whether it fits; for ``doctor --prior``."""
    from .prior_report import describe

    return describe(id, device, precision)
