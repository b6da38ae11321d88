"""What a diffusers checkpoint consists of: its parts, their weight files, their sizes. Nothing is loaded here."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError
from .families import Family, family_of
from .parts import check_classes
from .prior_id import Lora

LIBRARIES = ("diffusers", "transformers")
SHARD = r"(-\d{5}-of-\d{5})?"
WEIGHTS = re.compile(rf"^(?:model|diffusion_pytorch_model)(?:\.(\w+?))?{SHARD}(?:\.(\w+?))?\.safetensors$")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".h5")
SAMPLE = 1 << 16


@dataclass(frozen=True)
class Part:
    """One component: its class, its weight files (paths inside the checkpoint), parameters and bytes on disk."""

    name: str
    library: str
    class_name: str
    weights: tuple[str, ...] = ()
    variant: str | None = None
    parameters: int = 0
    stored_bytes: int = 0
    file: Path | None = None
    pipeline: str = ""

    @property
    def is_model(self) -> bool:
        """Whether it has weights: in files of its own, or in a single ``file`` of a whole ``pipeline``."""
        return bool(self.weights) or self.file is not None

    def load_class(self) -> Any:
        """The class that loads this part. UserError if the installed library does not have it."""
        found = getattr(importlib.import_module(self.library), self.class_name, None)
        if found is None:
            raise UserError(
                f"the installed {self.library} has no class {self.class_name}, which the checkpoint's {self.name} needs"
            )
        return found


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline on disk (``folder``) or still on a hub (None), at one revision."""

    id: str
    revision: str
    family: Family
    options: dict[str, Any]
    parts: dict[str, Part]
    folder: Path | None = None
    licence: str = ""
    loras: tuple[Lora, ...] = ()

    @property
    def full_id(self) -> str:
        """The id with its LoRAs."""
        return " + ".join([self.id, *map(str, self.loras)])

    @property
    def text_parts(self) -> list[Part]:
        """Tokenizers and text encoders."""
        return [p for p in self.parts.values() if p.name.startswith(("tokenizer", "text_encoder"))]

    @property
    def patterns(self) -> list[str]:
        """Files that are needed, as patterns of a download: every part's small files, and the chosen weights."""
        small = [f"{p.name}/*{end}" for p in self.parts.values() for end in (".json", ".txt", ".model")]
        return ["model_index.json", *small, *(w for p in self.parts.values() for w in p.weights)]


def choose_weights(files: dict[str, int], name: str, half: bool, asked: str = "") -> tuple[tuple[str, ...], str | None]:
    """A part's safetensors files and their variant: the one that is asked for if there is one, else fp16 (or bf16) for half
    precision, else plain.

    UserError if the folder is missing, has pickled weights only, or lacks a shard.
    """
    by_variant: dict[str, list[str]] = {}
    inside = [f for f in files if f.startswith(f"{name}/")]
    for file in inside:
        if found := WEIGHTS.match(file.partition("/")[2]):
            by_variant.setdefault(found[1] or found[3] or "", []).append(file)
    if not by_variant:
        if any(f.endswith(PICKLES) for f in inside):
            raise UserError(
                f"{name} has pickled weights only, which are never loaded; save it again with safe_serialization=True"
            )
        raise UserError(f"the checkpoint has no {name}: there is no {name}/*.safetensors")
    order = [asked or "fp16", "fp16", "bf16", ""] if half else [asked, "", "fp32", "fp16", "bf16"]
    others = sorted(by_variant, key=lambda v: v == "non_ema")  # made for further training, the last choice
    variant = next(v for v in (*order, *others) if v in by_variant)
    chosen = sorted(by_variant[variant])
    if shards := re.search(r"-of-(\d{5})", chosen[0]):
        chosen = [f for f in chosen if shards[0] in f]
        if len(chosen) != int(shards[1]):
            raise UserError(f"{name} has {len(chosen)} of its {int(shards[1])} shards; download or save it again")
    return tuple(chosen), variant or None


class WholeFile(Protocol):
    """A single file that may hold parts."""

    def part(self, part: Part, pipeline: str) -> Part | None:
        """The part as the file has it, or None."""


def read_parts(
    index: dict[str, Any], files: dict[str, int], half: bool, variant: str = "", single: WholeFile | None = None
) -> tuple[Family, dict[str, Any], dict[str, Part]]:
    """Family, pipeline options and needed parts of a model_index.json whose checkpoint has ``files`` {path: bytes}.

    ``variant``: which weights are wanted; ``single``: where weights are looked for first. UserError for an unknown pipeline
    or class, or a part that is missing.
    """
    family = family_of(str(index.get("_class_name")))
    wanted = ("tokenizer", "text_encoder", "scheduler", "vae", family.network)
    parts, options = {}, {}
    for name, value in index.items():
        if not isinstance(value, list):
            options[name] = value
        elif name.startswith(wanted) and len(value) == 2 and value[0] is not None:
            if value[0] not in LIBRARIES:
                raise UserError(
                    f"{name} of the checkpoint is {value[0]}.{value[1]}, which is not a class of {' or '.join(LIBRARIES)}"
                )
            part = Part(name, *value)
            if name.startswith(("text_encoder", "vae", family.network)):
                held = single.part(part, family.pipeline) if single else None
                if not held and _optional(family, name) and not _has_weights(files, name):
                    continue
                part = held or _with_weights(part, files, half, variant)
            elif not any(f.startswith(f"{name}/") for f in files):
                raise UserError(f"the checkpoint has no {name}: the folder {name} is missing or empty")
            parts[name] = part
    needed = [family.network, "scheduler", *(["vae"] if family.latent else [])]
    needed += [n for n in index if n.startswith(("text_encoder", "tokenizer")) and not _optional(family, n)]
    needed += ["text_encoder", "tokenizer"] if not any(n in index for n in ("text_encoder", "tokenizer")) else []
    if "text_encoder_3" not in parts:
        parts.pop("tokenizer_3", None)  # it would be of no use
    if variant and not any(part.variant == variant for part in parts.values()):
        raise UserError(f"no part of the checkpoint has the variant {variant!r}; leave out 'variant:{variant}'")
    for name in needed:
        if name not in parts:
            raise UserError(f"the checkpoint has no {name}, without which {family.name} cannot be asked anything")
    return family, options, parts


def _with_weights(part: Part, files: dict[str, int], half: bool, asked: str) -> Part:
    weights, variant = choose_weights(files, part.name, half, asked)
    return replace(part, weights=weights, variant=variant, stored_bytes=sum(files[w] for w in weights))


def _has_weights(files: dict[str, int], name: str) -> bool:
    return any(f.startswith(f"{name}/") and f.endswith((".safetensors", *PICKLES)) for f in files)


def _optional(family: Family, name: str) -> bool:
    # Stable Diffusion 3 was trained to do without its T5.
    return family.pipeline == "StableDiffusion3Pipeline" and name.endswith("_3")


def folder_files(folder: Path) -> dict[str, int]:
    """The files of a pipeline's folder, {path inside it: bytes}."""
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.glob("*/*")) if p.is_file()}


def open_folder(folder: Path, half: bool, id: str = "", revision: str = "", variant: str = "") -> Checkpoint:
    """The checkpoint saved in a folder. UserError if the folder is no checkpoint or a weight file is damaged."""
    path = folder / "model_index.json"
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; a prior is a name, hf:OWNER/NAME, or a folder saved with save_pretrained"
        )
    if not path.is_file():
        raise UserError(
            f"{folder} has no model_index.json; give a folder that a diffusers pipeline was saved to with save_pretrained"
        )
    index = read_json(path)
    files = folder_files(folder)
    family, options, parts = read_parts(index, files, half, variant)
    check_classes(family, {name: part.class_name for name, part in parts.items()})
    for name, part in parts.items():
        if part.weights or name == "scheduler":
            read_json(folder / name / ("config.json" if part.weights else "scheduler_config.json"))
        headers = [read_header(folder / w) for w in part.weights]
        parts[name] = replace(part, parameters=sum(map(count_parameters, headers)))
    kept = ("model_index.json", *(f for f in files if f.partition("/")[0] in parts and _used(f, parts)))
    return Checkpoint(id or str(folder), revision or fingerprint(folder, kept), family, options, parts, folder)


def _used(file: str, parts: dict[str, Part]) -> bool:
    return not file.endswith((".safetensors", *PICKLES)) or file in parts[file.partition("/")[0]].weights


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; UserError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, {tensor: {dtype, shape, data_offsets}}; UserError for a damaged or cut file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((t["data_offsets"][1] for t in header.values()), default=0)
        if end != size - 8 - length:
            raise ValueError(f"{end + 8 + length} bytes expected, {size} found")
        return header
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}); download or save it again") from None


def count_parameters(header: dict[str, Any]) -> int:
    """Number of values that a safetensors header describes."""
    total = 0
    for tensor in header.values():
        count = 1
        for side in tensor["shape"]:
            count *= side
        total += count
    return total


def fingerprint(folder: Path, files: tuple[str, ...] | list[str]) -> str:
    """SHA-256 over names, sizes and content; of a large file 16 blocks of 64 KiB, evenly spread, stand for the rest.

    Tells fine-tunes and precisions of one architecture apart in well under a second; it does not prove integrity.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        path = folder / name
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= 16 * SAMPLE:
                digest.update(file.read())
            else:
                for k in range(16):
                    file.seek((size - SAMPLE) * k // 15)
                    digest.update(file.read(SAMPLE))
    return digest.hexdigest()
