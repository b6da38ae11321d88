"""Settings of the prior."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..schema import Settings

Asks = Literal["words", "camera", "views", "image"]
"""What a prior is given besides the words: nothing, the absolute camera, how the views of a group relate, or a reference
picture and how each view stands to it."""


class PriorSettings(Settings):
    id: str = "bundled"
    """Which frozen diffusion model: 'bundled', a .safetensors file of its kind, 'hf:OWNER/NAME[@REVISION]', the folder or the single
    .safetensors file of a diffusers pipeline, any of these with ' + lora:FILE@0.8', or a mixture such as '0.7*A + 0.3*B'.
    'ray://HOST:PORT': one that 'dreamfusion serve-prior' serves there. With distillation.kind=clip, 'guide', a CLIP."""
    asks: Asks = "camera"
    """What the prior is given besides the words. 'camera': where each picture is seen from, as in MVDream. 'words':
    nothing, as in the paper. 'views': how the views of one group stand to each other, but not to the object. 'image': a
    reference picture, and where each picture is seen from relative to it, as in Zero-1-to-3."""
    image: str = ""
    """The reference picture of the question 'image': a PNG, JPEG or WebP file with transparency or a plain background."""
    views: Annotated[int, Field(ge=1, le=16)] = 1
    """Views in a group. A group is one question to the prior: its views share elevation, distance and noise level, and
    stand evenly around the object."""
    instance: Annotated[int, Field(ge=-1)] = -1
    """Which of a name's shapes the bundled prior means, counted round: it may know several chairs. -1: the one of the run's
    seed. A name with one shape means that one."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the prior's forward pass; auto takes bfloat16 if the processor has it in hardware."""
    memory: Literal["auto", "fast", "low", "lowest"] = "auto"
    """How to load large priors: all on the device, one model at a time, or layer by layer; auto takes the first that
    fits."""
    text_8bit: bool = False
    """Load a T5 text encoder in 8 bit (needs bitsandbytes and a GPU)."""
