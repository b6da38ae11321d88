"""Checkpoints on the Hugging Face hub: found, explained and downloaded, at a pinned revision, safetensors only.

The token comes from the environment (HF_TOKEN, or what ``hf auth login`` stored); HF_HUB_OFFLINE=1 stays off the net.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..priors.checkpoint import Checkpoint, open_folder, read_json, read_parts

ID = re.compile(r"^hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")


def parse(id: str) -> tuple[str, str | None]:
    """'hf:OWNER/NAME' or 'hf:OWNER/NAME@REVISION' as (OWNER/NAME, REVISION or None). UserError for anything else."""
    found = ID.match(id)
    if not found:
        raise UserError(f"{id!r} is not a hub id; it must look like hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    return found["repo"], found["revision"]


@contextmanager
def explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's refusals into a UserError of one line. Failures to reach it pass as ConnectionError."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"{repo} is gated: accept its licence at huggingface.co/{repo} while logged in, then put your token into HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"the hub has no model {repo} (or it is private and HF_TOKEN cannot see it); check the spelling"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{repo} has no revision {revision!r}; leave out '@{revision}' for the newest") from None
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise ConnectionError(str(error)) from error
        raise UserError(f"{repo} is not a diffusers pipeline: it has no model_index.json") from None
    except errors.HfHubHTTPError as error:
        raise ConnectionError(str(error)) from error
    except UserError:
        raise
    except Exception as error:
        # The HTTP library's own errors (no route, no name, time-out) are not part of the hub's interface.
        if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(
            ("httpx", "httpcore", "requests")
        ):
            raise ConnectionError(str(error)) from error
        raise


def find(id: str, half: bool) -> Checkpoint:
    """What would be downloaded for an id (only the index and the weights' headers are fetched), or the cache's copy.

    UserError where the model does not exist, is gated, or neither hub nor cache has it.
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
    """The hub's local cache's copy; UserError where there is none."""
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
    """The checkpoint in the hub's local cache, downloaded where it is not there yet."""
    if checkpoint.folder is not None:
        return checkpoint
    from huggingface_hub import snapshot_download

    repo, revision = parse(checkpoint.id)
    try:
        with explained(repo, revision):
            folder = snapshot_download(repo, revision=revision, allow_patterns=checkpoint.patterns)
    except ConnectionError as error:
        raise UserError(
            f"the download of {repo} broke off ({' '.join(str(error).split())[:120]}); run it again to go on"
        ) from None
    return replace(checkpoint, folder=Path(folder))
