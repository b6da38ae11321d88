"""What a checkpoint needs in memory, estimated before anything is loaded, and the way of loading that fits.

Three ways, from the quickest to the smallest:

- ``fast``: network and VAE stay on the device;
- ``low``: one of them at a time, the VAE encoder with gradient checkpointing and tiling and run again for its gradient,
  guidance's two halves one after the other;
- ``lowest``: as ``low``, and the network visits the device layer by layer (accelerate's sequential offload).

A rule that back-propagates through the network (``reconstruction``) keeps the activations of both halves of guidance in
every way. The way ``lowest`` is not possible for it, as it takes the weights away layer by layer.

Attention is sliced in ``low`` and ``lowest`` only on devices where PyTorch has no fused attention for it: fused attention
never holds the matrix of scores, and its memory is linear already. Slices of it were measured as slower and larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..device import inference_dtype
from ..errors import UserError
from .checkpoint import Checkpoint, read_json
from .parts import check_network, check_widths
from .vae import known_config

Memory = Literal["auto", "fast", "low", "lowest"]
WAYS: tuple[Memory, ...] = ("fast", "low", "lowest")

# Activations in units of (pictures x places x channels at full resolution x bytes), as benchmarks/priors.py measured them.
NETWORK_UNITS = 150.0
ENCODER_UNITS = 26.0
ENCODER_CHECKPOINTED_UNITS = 22.0
# The same for a network whose graph is kept for a gradient through it, for each half of guidance. U-Nets as measured: the
# larger of Stable Diffusion's 475 and IF's 292. Transformers by derivation, nothing measured: 34 bytes a token, channel
# and layer in half precision without the scores (Korthikanti et al. 2022, section 4.1), so 17 values.
UNET_GRAPH_UNITS = 475.0
LAYER_GRAPH_UNITS = 17.0
LARGEST_LAYER = 0.08  # of the network, at once on the device in sequential offload
MARGIN = 0.05  # of free memory, left to the scene and to the allocator
FUSED_ATTENTION = ("cpu", "cuda")
NO_GRADIENT = (
    "prior.memory 'lowest' takes weights away after each layer, so nothing can be back-propagated; use 'low' or sds"
)


@dataclass(frozen=True)
class Needs:
    """Bytes: text encoders, network, VAE, work of a network call (two halves) and of the VAE encoder with its gradient;
    ``graph``: what network calls keep for a gradient through them, 0 for score distillation."""

    text: int
    network: int
    vae: int
    network_work: int
    encoder_work: int
    encoder_work_low: int
    graph: int = 0

    @property
    def ways(self) -> tuple[Memory, ...]:
        """The ways of loading that can do the work, from the quickest to the smallest."""
        return WAYS[:-1] if self.graph else WAYS

    def on_device(self, way: Memory, offloads: bool = True) -> int:
        """Peak on the device. Without ``offloads`` (no memory of its own) weights stay.

        The text encoders come and go first, so they never add to the rest.
        """
        if way == "fast":  # the encoder's graph is held until the network answers
            network_work = max(self.network_work, self.graph)
            return max(self.text, self.network + self.vae + network_work + self.encoder_work)
        network_work = max(self.network_work // 2, self.graph)
        if not offloads:
            # Measured: a CPU's allocator and kernels keep what the network's call took.
            return max(self.text, self.network + self.vae + network_work + self.encoder_work_low)
        network = self.network if way == "low" else int(self.network * LARGEST_LAYER)
        return max(network + network_work, self.vae + self.encoder_work_low)

    def on_host(self, way: Memory) -> int:
        """Peak in the host's memory, for a device with memory of its own. Text encoders may then run on the host."""
        return max(self.text, 0 if way == "fast" else self.network + self.vae)


def needs_of(
    checkpoint: Checkpoint,
    config: dict[str, Any],
    vae: dict[str, Any],
    dtype: torch.dtype,
    resolution: int,
    views: int = 1,
    graphs: int = 0,
) -> Needs:
    """The needs of a checkpoint whose network and VAE have these configurations (dictionaries as in config.json).

    ``views``: pictures at once; ``graphs``: network calls (of two halves) whose activations are kept for a gradient.
    """
    family, size = checkpoint.family, dtype.itemsize
    bytes_of = {name: part.parameters * size for name, part in checkpoint.parts.items()}
    text = sum(b for name, b in bytes_of.items() if name.startswith("text_encoder"))
    widths = config.get("block_out_channels")
    side = resolution // vae_factor(vae)
    # A transformer keeps about as much per place as a U-Net level of the same width.
    width = (
        widths[0]
        if widths
        else config.get("num_attention_heads", 24) * config.get("attention_head_dim", 64) // family.patch**2
    )
    unit = 2 * views * side * side * width * size
    layers = config.get("num_layers", 24) + config.get("num_single_layers", 0)
    graph_units = UNET_GRAPH_UNITS if widths else LAYER_GRAPH_UNITS * layers
    encoder = views * resolution**2 * vae["block_out_channels"][0] * size if family.latent else 0
    return Needs(
        text,
        bytes_of[family.network],
        bytes_of.get("vae", 0),
        int(NETWORK_UNITS * unit),
        int(ENCODER_UNITS * encoder),
        int(ENCODER_CHECKPOINTED_UNITS * encoder),
        int(graphs * graph_units * unit),
    )


def needs_of_folder(checkpoint: Checkpoint, dtype: torch.dtype, views: int = 1, graphs: int = 0) -> Needs:
    """The needs of a checkpoint on disk (see ``needs_of``)."""
    config, vae = configurations(checkpoint)
    return needs_of(checkpoint, config, vae, dtype, side_of(checkpoint, config) * vae_factor(vae), views, graphs)


def configurations(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network's config.json, and the VAE's ({} for a pixel prior). UserError if they are not such as a prior can be
    made of."""
    assert checkpoint.folder is not None
    config = read_json(checkpoint.folder / checkpoint.family.network / "config.json")
    path = checkpoint.folder / "vae" / "config.json"
    vae = known_config(read_json(path), str(path)) if checkpoint.family.latent else {}
    check_network(checkpoint.family, config, vae.get("latent_channels", 3), checkpoint.id)
    encoders = [part.name for part in checkpoint.text_parts if part.is_model]
    widths = {name: read_json(checkpoint.folder / name / "config.json") for name in encoders}
    check_widths(checkpoint.family, config, widths, checkpoint.id)
    return config, vae


def side_of(checkpoint: Checkpoint, config: dict[str, Any]) -> int:
    """Side of z: what the network says, else what its family was trained on."""
    return int(config.get("sample_size") or checkpoint.family.side)


def vae_factor(vae: dict[str, Any]) -> int:
    """Pixels per side of one latent place; 1 without a VAE."""
    if not vae:
        return 1
    return 2 ** (len(vae["block_out_channels"]) - 1)


def free_memory(device: torch.device) -> tuple[int, int]:
    """Free bytes (on the device, on the host)."""
    import psutil  # type: ignore[import-untyped]

    host = int(psutil.virtual_memory().available)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]), host
    return host, host


def fits(needs: Needs, way: Memory, device: torch.device, free: tuple[int, int]) -> bool:
    """Whether a way of loading fits into the free bytes (device, host)."""
    if device.type != "cuda":
        return needs.on_device(way, offloads=False) <= (1 - MARGIN) * free[1]
    return needs.on_device(way) <= (1 - MARGIN) * free[0] and needs.on_host(way) <= (1 - MARGIN) * free[1]


def choose(memory: Memory, needs: Needs, device: torch.device, free: tuple[int, int]) -> Memory:
    """The way to load: what was asked for, or the quickest that fits. UserError, before loading, where nothing fits."""
    if memory == "lowest" and needs.graph:
        raise UserError(NO_GRADIENT)
    for way in needs.ways if memory == "auto" else (memory,):
        if fits(needs, way, device, free):
            return way
    last = needs.ways[-1] if memory == "auto" else memory
    asked = f"even with memory {last!r}" if memory == "auto" else f"with memory {memory!r}"
    least = needs.on_device(last, device.type == "cuda")
    host = f" and {gigabytes(free[1])} of main memory" if device.type == "cuda" else ""
    through = ", as distillation.kind back-propagates through it (sds does not)" if needs.graph else ""
    raise UserError(
        f"the prior does not fit {asked}: it needs about {gigabytes(max(least, needs.text))}{through}, "
        f"{device} has {gigabytes(free[0])} free{host}; take a smaller checkpoint or a half precision"
    )


def slice_attention(model: Any, way: Memory, device: torch.device) -> None:
    """Make a U-Net hold one head's matrix of scores at a time, if memory is to be saved and attention is not fused.

    Transformers and VAEs have no such switch in diffusers; they are left as they are.
    """
    if way != "fast" and device.type not in FUSED_ATTENTION and hasattr(model, "set_attention_slice"):
        model.set_attention_slice("max")


def gigabytes(count: int) -> str:
    """Bytes for people: '1.3 GB'."""
    return f"{count / 1e9:.1f} GB"


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
