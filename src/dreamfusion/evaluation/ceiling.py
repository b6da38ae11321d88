"""The ceiling: the prior's own 2D samples, judged like the assets. No asset can show what the prior cannot draw."""

from __future__ import annotations

from torch import Tensor

from ..priors.prior import Prior
from ..samples import sample_view_of
from ..view.view import orbit_view
from . import geometry
from .inputs import is_held_out
from .measure import Judge, Judgement


def samples_of(prior: Prior, prompt: str, judge: Judge, views: int, guidance_scale: float, seed: int) -> Tensor:
    """The prior's samples (V, 3, H, W) of a prompt, seen from the first ``views`` of the judge's cameras, in front of mid-gray."""
    view = orbit_view(judge.views.cameras[:views], prior.resolution)
    return sample_view_of(prior, prompt, view, guidance_scale, seed).float().cpu()


def judge_samples(
    prior: Prior, prompt: str, judge: Judge, views: int = 4, guidance_scale: float = 0.0, seed: int = 0
) -> Judgement:
    """The same figures as an asset's, as far as pictures without a shape have them; without guidance, as `fast` and
    `balanced` ask the bundled prior."""
    pictures = samples_of(prior, prompt, judge, views, guidance_scale, seed)
    figures = {"prompt": prompt, "held_out": is_held_out(prompt), "saturation": geometry.saturation(pictures)}
    return Judgement(figures | judge.rank(pictures, prompt), {"colour": pictures})
