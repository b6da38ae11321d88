"""A prior's own pictures of a prompt."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .captions import Captions
from .errors import UserError
from .priors.prior import Prior
from .priors.prior_settings import Asks
from .priors.sampler import sample
from .settings.building import build
from .torch_state import own_torch
from .view.cameras import orbit_cameras
from .view.view import View, orbit_view


@own_torch()
def sample_view_of(
    prior: Prior,
    prompt: str,
    view: View,
    guidance_scale: float = 0.0,
    seed: int = 0,
    asks: Asks = "camera",
    image: str = "",
) -> Tensor:
    """Samples (B, 3, H, W) in [0, 1] of a prompt seen from the looks of a view."""
    if asks == "views" and not prior.joint:
        raise UserError(f"the prior {prior.id!r} answers each view alone")
    given = {"prompt": prompt, "prior.asks": asks, "view.words": asks != "views", "prior.image": image}
    config = build(given)
    question = Captions(prior, config).ask(view)
    return sample(prior, question, torch.Generator().manual_seed(seed), guidance_scale)


@own_torch()
def sample_around(
    prior: Prior,
    prompt: str,
    views: int = 4,
    guidance_scale: float = 2.0,
    seed: int = 0,
    elevation_deg: float = 20.0,
    asks: Asks = "camera",
    image: str = "",
) -> Tensor:
    """The prompt, or what a reference picture shows (the question 'image'), from ``views`` azimuths all around, in front of
    mid-gray: (views, 3, H, W) in [0, 1]."""
    cameras = orbit_cameras([360.0 * k / views for k in range(views)], elevation_deg)
    view = replace(orbit_view(cameras, prior.resolution), group=views if asks == "views" else 1)
    return sample_view_of(prior, prompt, view, guidance_scale, seed, asks, image)
