"""CLIPs: the judge ranks finished assets, and the CLIP baselines optimise the guide. Their roles are checked."""

from __future__ import annotations

import torch

from ..errors import UserError, nearest
from ..paths import kind_of, readable, user_path
from ..torch_state import kept_random, own_torch
from .bundled_clip import WEIGHTS, BundledClip
from .clip import Clip, Role
from .public_clip import PublicClip, download

__all__ = ["Clip", "load_guide", "load_judge"]


def load_judge(name: str = "bundled", device: str | torch.device = "cpu") -> Clip:
    """The CLIP that judges: 'bundled', 'hf:OWNER/NAME[@REVISION]', or a path. UserError for a guide's weights."""
    return _load(name, {"bundled": "judge"}, "judge", device)


def load_guide(name: str = "bundled-guide", device: str | torch.device = "cpu") -> Clip:
    """The CLIP that guides a scene: 'bundled-guide', 'hf:…', or a path. UserError for a judge's weights."""
    return _load(name, {"bundled-guide": "guide"}, "guide", device)


@own_torch()
@kept_random()
def _load(name: str, bundled: dict[str, str], wanted: Role, device: str | torch.device) -> Clip:
    clip: Clip
    if name in bundled:
        clip = BundledClip(WEIGHTS / f"{bundled[name]}.safetensors", name, device)
    elif name.startswith("hf:"):
        clip = PublicClip(download(name), name, device)
    elif (found := kind_of(path := user_path(name))) == "folder":
        clip = PublicClip(path, str(path), device)
    elif found == "file":
        with readable():
            clip = BundledClip(path, str(path), device)
    else:
        raise UserError(f"unknown CLIP {name!r}{nearest(name, bundled)}; or hf:OWNER/NAME, or a path")
    if clip.role not in (wanted, "any"):
        raise UserError(f"{name} is a {clip.role}'s CLIP and must never be a {wanted}: what guides may not judge")
    return clip
