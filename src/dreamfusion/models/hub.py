"""The Hugging Face hub: its ids, and its refusals in one line.

The token comes from the environment (HF_TOKEN, or what ``hf auth login`` stored); HF_HUB_OFFLINE=1 stays off the net.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError

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
