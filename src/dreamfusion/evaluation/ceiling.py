"""The ceiling: the prior's own 2D samples, judged like the assets. No asset can show what the prior cannot draw."""

from __future__ import annotations

from torch import Tensor

from ..priors.prior import Prior
from ..samples import sample_view_of
from ..view.view import Shading, orbit_view
from . import geometry
from .inputs import is_held_out
from .measure import Judge, Judgement


def samples_of(
    prior: Prior,
    prompt: str,
    judge: Judge,
    views: int,
    guidance_scale: float,
    seed: int,
    shading: Shading = "lambertian",
) -> Tensor:
    """The prior's samples (V, 3, H, W) of a prompt, seen from the first ``views`` of the judge's cameras, in front of mid-gray;
    "textureless": of its clay model."""
    view = orbit_view(judge.views.cameras[:views], prior.resolution, shading)
    return sample_view_of(prior, prompt, view, guidance_scale, seed).float().cpu()


def judge_samples(
    prior: Prior, prompt: str, judge: Judge, views: int = 4, guidance_scale: float = 0.0, seed: int = 0
) -> Judgement:
    """The same figures as an asset's, as far as pictures without a shape have them; without guidance, as `fast` and
    `balanced` ask the bundled prior."""
    colour = samples_of(prior, prompt, judge, views, guidance_scale, seed)
    clay = samples_of(prior, prompt, judge, views, guidance_scale, seed, "textureless")
    figures = {"prompt": prompt, "held_out": is_held_out(prompt), "saturation": geometry.saturation(colour)}
    ranked = judge.rank(colour, prompt) | judge.rank(clay, prompt, "clay_")
    return Judgement(figures | ranked, {"colour": colour, "clay": clay})
