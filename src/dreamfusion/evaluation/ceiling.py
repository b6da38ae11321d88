"""The ceiling: the prior's own 2D samples judged as the assets are. What the prior cannot draw, no asset of it can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..view.view_settings import ViewSettings
from ..errors import UserError
from ..view.view_words import view_words, with_view
from . import geometry
from .inputs import is_held_out
from .measure import Judge, Judgement


def sample(prior: Any, prompt: str, judge: Judge, views: int, guidance_scale: float, seed: int) -> Tensor:
    """The prior's samples (V, 3, H, W) of a prompt, seen from the first ``views`` of the judge's cameras."""
    if not hasattr(prior, "sample"):
        raise UserError(f"the prior {prior.id!r} cannot be sampled here, so there is no ceiling; the bundled one can")
    cameras, settings = judge.views.cameras, ViewSettings()
    turns = zip(cameras.azimuth.rad2deg().tolist(), cameras.elevation.rad2deg().tolist(), strict=True)
    words = [with_view(prompt, view_words(a, e, settings)) for a, e in turns][:views]
    condition = prior.embed(words).with_camera(cameras.condition()[:views])
    return prior.sample(condition, torch.Generator().manual_seed(seed), guidance_scale).float().cpu()


def judge_samples(
    prior: Any, prompt: str, judge: Judge, views: int = 4, guidance_scale: float = 0.0, seed: int = 0
) -> Judgement:
    """The same figures as an asset's, as far as pictures without a shape have them; without guidance, as `fast` and
    `balanced` ask the bundled prior."""
    pictures = sample(prior, prompt, judge, views, guidance_scale, seed)
    figures = {"prompt": prompt, "held_out": is_held_out(prompt), "saturation": geometry.saturation(pictures)}
    return Judgement(figures | judge.rank(pictures, prompt), {"colour": pictures})
