"""What a prior would load, from where, how large, and whether it fits: said before anything is downloaded or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from . import find_checkpoint
from .bundled_prior import WEIGHTS
from ..device import inference_dtype
from .checkpoint import Checkpoint
from ..clip.guide import is_guide, load
from .memory import MARGIN, Memory, choose, free_memory, gigabytes, needs_of_folder
from .mixture import is_mixture, parse_mixture


def describe(id: str, device: str | torch.device = "cpu", precision: str = "auto") -> dict[str, Any]:
    """Figures for people (texts and numbers). UserError where the id means nothing; not fitting is a figure, no error."""
    if is_mixture(id):
        return {f"{share:g}*{part}": describe(part, device, precision) for share, part in parse_mixture(id)}
    if is_guide(id):
        return load(id, device).info() | {"fits": True}
    if id == "bundled" or id.endswith(".safetensors"):
        path = WEIGHTS if id == "bundled" else Path(id)
        if not path.is_file():
            raise UserError(f"the prior's weights are missing: {path}")
        return {"id": id, "family": "bundled", "from": str(path), "size": gigabytes(path.stat().st_size), "fits": True}
    device, dtype = torch.device(device), inference_dtype(precision, torch.device(device))
    checkpoint = find_checkpoint(id, device, precision)
    repository = checkpoint.id.removeprefix("hf:").partition("@")[0]
    said: dict[str, Any] = {
        "id": checkpoint.id,
        "family": checkpoint.family.name,
        "revision": checkpoint.revision,
        "from": str(checkpoint.folder or f"huggingface.co/{repository} (not downloaded yet)"),
    }
    if checkpoint.licence:
        said["licence"] = checkpoint.licence
    for part in checkpoint.parts.values():
        if part.weights:
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


def parameter_bytes(checkpoint: Checkpoint, dtype: torch.dtype) -> int:
    """Bytes of what must be in memory at once at the very least: the text encoders alone, or network and VAE."""
    sizes = {name: part.parameters * dtype.itemsize for name, part in checkpoint.parts.items()}
    text = sum(size for name, size in sizes.items() if name.startswith("text_encoder"))
    return max(text, sum(sizes.values()) - text)


def refuse_what_cannot_fit(checkpoint: Checkpoint, device: str | torch.device, precision: str) -> None:
    """UserError before a download whose weights alone exceed the machine's memory."""
    needed = parameter_bytes(checkpoint, inference_dtype(precision, torch.device(device)))
    free = free_memory(torch.device(device))[1]
    if needed > (1 - MARGIN) * free:
        raise UserError(
            f"{checkpoint.id} does not fit: it needs {gigabytes(needed)} of memory, {gigabytes(free)} are free; "
            "take a smaller checkpoint or a half precision"
        )
