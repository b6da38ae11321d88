"""Checkpoints on the hub: found, explained and downloaded, at a pinned revision, safetensors only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..models.hub import explained, parse
from .checkpoint import Checkpoint, open_folder, read_json, read_parts


def find(id: str, half: bool) -> Checkpoint:
    """What would be downloaded for an id (only the index and the weights' headers are fetched), or the cache's copy.

    UserError if the model does not exist, is gated, or is neither on the hub nor in the cache.
    """
    from huggingface_hub import HfApi, hf_hub_download

    repo, revision = parse(id)
    try:
        with explained(repo, revision):
            info = HfApi().model_info(repo, revision=revision, files_metadata=True)
            index = read_json(Path(hf_hub_download(repo, "model_index.json", revision=info.sha)))
            files = {s.rfilename: s.size or 0 for s in info.siblings or []}
            family, options, parts = read_parts(index, files, half)
            for name, part in parts.items():
                meta = [HfApi().parse_safetensors_file_metadata(repo, w, revision=info.sha) for w in part.weights]
                parts[name] = replace(part, parameters=sum(sum(m.parameter_count.values()) for m in meta))
            licence = str(getattr(info.card_data, "license", None) or "")
            return Checkpoint(f"hf:{repo}@{info.sha}", str(info.sha), family, options, parts, None, licence)
    except ConnectionError as error:
        return cached(repo, revision, half, error)


def cached(repo: str, revision: str | None, half: bool, error: Exception | None = None) -> Checkpoint:
    """The copy in the hub's local cache; UserError if there is none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "model_index.json", revision=revision)
    if not isinstance(found, str):
        why = type(error.__cause__ or error).__name__ if error else "offline"
        raise UserError(
            f"the hub cannot be reached ({why}) and its local cache has no {repo}; download it once, or give a folder"
        )
    folder = Path(found).parent
    return open_folder(folder, half, f"hf:{repo}@{folder.name}", folder.name)


def download(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint in the hub's local cache, downloaded if it is not there yet."""
    if checkpoint.folder is not None:
        return checkpoint
    from huggingface_hub import snapshot_download

    repo, revision = parse(checkpoint.id)
    try:
        with explained(repo, revision):
            folder = snapshot_download(repo, revision=revision, allow_patterns=checkpoint.patterns)
    except ConnectionError as error:
        raise UserError(
            f"the download of {repo} broke off ({' '.join(str(error).split())[:120]}); run it again to continue"
        ) from None
    return replace(checkpoint, folder=Path(folder))
