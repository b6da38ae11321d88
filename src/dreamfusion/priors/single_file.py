"""Checkpoints in one .safetensors file, as they are traded: all parts under the names of the model's first publication.

diffusers reads them (``from_single_file``); how large each part is and what it is made of comes from a folder of
configurations, a diffusers pipeline with or without its weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import UserError
from .checkpoint import (
    Checkpoint,
    Part,
    count_parameters,
    fingerprint,
    folder_files,
    read_header,
    read_json,
    read_parts,
)

NETWORK = "model.diffusion_model."
BARE = ("double_blocks.0.", "joint_blocks.0.")
"""What some files' networks begin with, whose names have nothing in front."""
OURS = ("layout.", "denoiser.")
PREFIXES = {
    "vae": ("first_stage_model.", "vae."),
    "StableDiffusionPipeline.text_encoder": ("cond_stage_model.",),
    "StableDiffusionXLPipeline.text_encoder": ("conditioner.embedders.0.",),
    "StableDiffusionXLPipeline.text_encoder_2": ("conditioner.embedders.1.",),
    "StableDiffusion3Pipeline.text_encoder": ("text_encoders.clip_l.",),
    "StableDiffusion3Pipeline.text_encoder_2": ("text_encoders.clip_g.",),
    "StableDiffusion3Pipeline.text_encoder_3": ("text_encoders.t5xxl.",),
    "FluxPipeline.text_encoder": ("text_encoders.clip_l.",),
    "FluxPipeline.text_encoder_2": ("text_encoders.t5xxl.",),
}
SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


def is_single_file(path: Path) -> bool:
    """Whether a .safetensors file holds a whole checkpoint, and not weights of the bundled prior's kind (as which damaged
    and missing files count too). UserError if it holds something else that people have: a LoRA, or one part of a pipeline."""
    try:
        names = list(read_header(path))
    except UserError:
        return False
    if not names or any(name.startswith(OURS) for name in names):
        return False
    if any("lora" in name for name in names):
        raise UserError(f"{path} is a LoRA, not a model; add it to one: --prior 'hf:OWNER/NAME + lora:{path}@0.8'")
    if any(name.startswith((NETWORK, *BARE)) for name in names):
        return True
    raise UserError(
        f"{path} is neither a whole checkpoint nor the bundled prior's kind; of one part of a pipeline, give the pipeline's folder"
    )


@dataclass(frozen=True)
class SingleFile:
    """A file, and the header of its tensors."""

    path: Path
    header: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> SingleFile:
        """UserError if the file is damaged."""
        return cls(path, read_header(path))

    def default_config(self) -> str:
        """The repository whose configurations fit, as diffusers tells from names and shapes."""
        from diffusers.loaders.single_file_utils import fetch_diffusers_config

        shapes = {name: torch.empty(t["shape"], device="meta") for name, t in self.header.items()}
        return str(fetch_diffusers_config(shapes)["pretrained_model_name_or_path"])

    def part(self, part: Part, pipeline: str) -> Part | None:
        """The part as this file has it, or None if it does not."""
        if part.name in ("unet", "transformer"):
            others = tuple(p for prefixes in PREFIXES.values() for p in prefixes)
            inside = [n for n in self.header if n.startswith(NETWORK)]
            inside = inside or [n for n in self.header if not n.startswith(others)]
        else:
            prefixes = PREFIXES.get(part.name) or PREFIXES.get(f"{pipeline}.{part.name}", ())
            inside = [n for n in self.header if prefixes and n.startswith(prefixes)]
        if not inside:
            return None
        held = {name: self.header[name] for name in inside}
        stored = sum(count_parameters({"": t}) * SIZES.get(t["dtype"], 4) for t in held.values())
        return replace(part, file=self.path, pipeline=pipeline, parameters=count_parameters(held), stored_bytes=stored)


def open_file(path: Path, folder: Path, half: bool, id: str) -> Checkpoint:
    """The checkpoint in a file whose configurations are in a folder; parts that the file lacks come from the folder too.

    UserError if either is damaged, or a part is in neither.
    """
    if not (folder / "model_index.json").is_file():
        raise UserError(f"config:{folder} has no model_index.json; give the folder of a diffusers pipeline")
    single = SingleFile.open(path)
    files = folder_files(folder)
    try:
        family, options, parts = read_parts(read_json(folder / "model_index.json"), files, half, single=single)
    except UserError as error:
        raise UserError(f"{path} with the configurations in {folder}: {error}") from None
    kept = [f for f in files if f.partition("/")[0] in parts and f.endswith((".json", ".txt", ".model"))]
    revision = f"{fingerprint(path.parent, [path.name])[:32]}{fingerprint(folder, kept)[:32]}"
    return Checkpoint(id, revision, family, options, parts, folder)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep diffusers' talk of types, unused weights and cut captions to itself; what matters of it is said elsewhere."""
    from diffusers.utils import logging

    bars, loud = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(loud)
        if bars:
            logging.enable_progress_bar()


def load_component(part: Part, folder: Path, dtype: torch.dtype) -> Any:
    """One part of a single file, by diffusers. UserError, in one line, for weights that do not fit."""
    import diffusers

    pipeline = getattr(diffusers, part.pipeline)
    others = {
        name: None
        for name, p in inspect.signature(pipeline.__init__).parameters.items()
        if name not in ("self", part.name) and p.default in (p.empty, None)
    }
    try:
        with quietly():
            loaded = pipeline.from_single_file(
                str(part.file), config=str(folder), local_files_only=True, torch_dtype=dtype, **others
            )
    except (
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        KeyError,
        AttributeError,
        ImportError,
        SafetensorError,
    ) as error:
        if "meta tensor" in str(error):  # a weight that the file does not have has stayed one
            raise UserError(f"{part.file} lacks weights of {part.name}; {_others(folder)}") from None
        raise UserError(f"{part.name} of {part.file} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    model = getattr(loaded, part.name)
    if missing := [name for name, p in model.named_parameters() if p.is_meta]:
        raise UserError(
            f"{part.file} lacks {len(missing)} weights of {part.name}, {missing[0]} for one; {_others(folder)}"
        )
    return model


def _others(folder: Path) -> str:
    return f"the configurations in {folder} are not this model's (give others with ' + config:FOLDER')"
