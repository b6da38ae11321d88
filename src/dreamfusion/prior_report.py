"""What a prior would load, from where, how large it is, and whether it fits, before anything is downloaded or loaded."""

from __future__ import annotations

from typing import Any

import torch

from .clip.guide import is_guide
from .clip.guide import load as load_guide
from .device import inference_dtype, pick_device
from .errors import UserError
from .paths import file_to_read, readable
from .priors.bundled_prior import WEIGHTS
from .priors.finding import find_checkpoint, is_bundled_kind
from .priors.memory import MARGIN, Memory, choose, free_memory, gigabytes, needs_of_folder, parameter_bytes
from .priors.mixture import is_mixture, parse_mixture
from .priors.prior_client import is_served
from .priors.served_prior import ServedPrior
from .torch_state import kept_random, own_torch


@readable()
@own_torch()
@kept_random()
def describe_prior(id: str, device: str | torch.device = "auto", precision: str = "auto") -> dict[str, Any]:
    """Figures for people (texts and numbers). UserError for an unknown id. A prior that does not fit is no error here."""
    device = pick_device(str(device))
    if is_mixture(id):
        return {f"{share:g}*{part}": describe_prior(part, device, precision) for share, part in parse_mixture(id)}
    if is_guide(id):
        return load_guide(id, device).info() | {"fits": True}
    if is_served(id):
        return ServedPrior(id, device).info() | {"fits": True}
    if is_bundled_kind(id):
        path = WEIGHTS if id == "bundled" else file_to_read(id)
        if not path.is_file():
            raise UserError(f"the prior's weights are missing: {path}")
        with path.open("rb"):
            pass  # a file that cannot be opened cannot be loaded either
        return {"id": id, "family": "bundled", "from": str(path), "size": gigabytes(path.stat().st_size), "fits": True}
    dtype = inference_dtype(precision, device)
    checkpoint = find_checkpoint(id, device, precision)
    repository = checkpoint.id.removeprefix("hf:").partition("@")[0]
    said: dict[str, Any] = {
        "id": checkpoint.full_id,
        "family": checkpoint.family.name,
        "revision": checkpoint.revision,
        "from": str(checkpoint.folder or f"huggingface.co/{repository} (not downloaded yet)"),
    }
    if checkpoint.licence:
        said["licence"] = checkpoint.licence
    for part in checkpoint.parts.values():
        if part.is_model:
            variant = f", variant {part.variant}" if part.variant else ""
            said[part.name] = (
                f"{part.class_name}, {part.parameters / 1e6:.1f} M parameters, {gigabytes(part.stored_bytes)} on disk{variant}, "
                f"{gigabytes(part.parameters * dtype.itemsize)} loaded as {str(dtype).removeprefix('torch.')}"
            )
    said["download"] = gigabytes(0 if checkpoint.folder else sum(p.stored_bytes for p in checkpoint.parts.values()))
    free = free_memory(device)
    said["free memory"] = gigabytes(free[0])
    if checkpoint.folder is None:
        said["fits"] = parameter_bytes(checkpoint, dtype) <= (1 - MARGIN) * free[1]
        return said
    needs = needs_of_folder(checkpoint, dtype)
    try:
        way: Memory = choose("auto", needs, device, free)
        said |= {"peak memory": gigabytes(needs.on_device(way, device.type == "cuda")), "memory": way, "fits": True}
    except UserError as error:
        said |= {
            "peak memory": gigabytes(needs.on_device("lowest", device.type == "cuda")),
            "memory": str(error),
            "fits": False,
        }
    return said
