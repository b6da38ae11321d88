"""Checkpoints on the hub: found, explained and downloaded, at a pinned revision, safetensors only."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models.hub import explained, parse
from .checkpoint import Checkpoint, open_folder, read_json, read_parts
from .mirrors import mirror_of
from .parts import check_classes, check_network

SMALL = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model"]
"""What a pipeline has besides its weights."""


def find(id: str, half: bool, variant: str = "") -> Checkpoint:
    """What would be downloaded for an id (only the index and the weights' headers are fetched), or the cache's copy.

    UserError if the model does not exist, is gated, or is neither on the hub nor in the cache.
    """
    from huggingface_hub import HfApi, hf_hub_download

    repo, revision = moved(*parse(id))
    try:
        with explained(repo, revision):
            info = HfApi().model_info(repo, revision=revision, files_metadata=True)
            index = read_json(Path(hf_hub_download(repo, "model_index.json", revision=info.sha)))
            files = {s.rfilename: s.size or 0 for s in info.siblings or []}
            family, options, parts = read_parts(index, files, half, variant)
            check_classes(family, {name: part.class_name for name, part in parts.items()})

            def config(name: str) -> dict[str, Any]:
                file = f"{name}/config.json"
                return read_json(Path(hf_hub_download(repo, file, revision=info.sha))) if file in files else {}

            channels = int(config("vae").get("latent_channels", 4)) if family.latent else 3
            check_network(family, config(family.network), channels, f"hf:{repo}")
            for name, part in parts.items():
                meta = [HfApi().parse_safetensors_file_metadata(repo, w, revision=info.sha) for w in part.weights]
                parts[name] = replace(part, parameters=sum(sum(m.parameter_count.values()) for m in meta))
            licence = str(getattr(info.card_data, "license", None) or "")
            return Checkpoint(f"hf:{repo}@{info.sha}", str(info.sha), family, options, parts, None, licence)
    except ConnectionError as error:
        return cached(repo, revision, half, error, variant)


def moved(repo: str, revision: str | None) -> tuple[str, str | None]:
    """Where a repository is today. For one that is gone, and not in the cache, its mirror, with a warning."""
    from huggingface_hub import try_to_load_from_cache

    mirror = mirror_of(repo)
    if mirror is None or isinstance(try_to_load_from_cache(repo, "model_index.json", revision=revision), str):
        return repo, revision
    kept = f", and its revision {revision!r} with it" if revision else ""
    warnings.warn(f"{repo} is gone from the hub{kept}; its copy hf:{mirror} is taken instead", stacklevel=2)
    return mirror, None


def find_config(repo: str) -> Path:
    """A folder with a pipeline's configurations and tokenizers, from the hub or its cache; no weights are downloaded.

    UserError if it is in neither.
    """
    from huggingface_hub import snapshot_download

    repo, _ = moved(repo, None)
    try:
        with explained(repo, None):
            return Path(snapshot_download(repo, allow_patterns=SMALL))
    except (ConnectionError, OSError):
        raise UserError(
            f"the configurations of a single file come from hf:{repo}, which is neither in the hub's local cache nor can it be "
            "reached; give a folder of them: ' + config:FOLDER'"
        ) from None


def cached(
    repo: str, revision: str | None, half: bool, error: Exception | None = None, variant: str = ""
) -> Checkpoint:
    """The copy in the hub's local cache; UserError if there is none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "model_index.json", revision=revision)
    if not isinstance(found, str):
        why = type(error.__cause__ or error).__name__ if error else "offline"
        raise UserError(
            f"the hub cannot be reached ({why}) and its local cache has no {repo}; download it once, or give a folder"
        )
    folder = Path(found).parent
    return open_folder(folder, half, f"hf:{repo}@{folder.name}", folder.name, variant)


def download(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint in the hub's local cache, downloaded if it is not there yet."""
    if checkpoint.folder is not None:
        return checkpoint
    from huggingface_hub import snapshot_download

    repo, revision = parse(checkpoint.id.partition(" + ")[0])
    try:
        with explained(repo, revision):
            folder = snapshot_download(repo, revision=revision, allow_patterns=checkpoint.patterns)
    except ConnectionError as error:
        raise UserError(
            f"the download of {repo} broke off ({' '.join(str(error).split())[:120]}); run it again to continue"
        ) from None
    return replace(checkpoint, folder=Path(folder))
