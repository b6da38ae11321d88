"""Plain sampling, lifted view by view: the prior draws each view on its own, the scene is regressed to the drawings."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .rule_settings import DistillationSettings
from ..priors.prior import Condition, Prior
from ..priors.sampler import ddim
from .sds import guided_noise

_drawn: WeakKeyDictionary[Prior, dict[bytes, Tensor]] = WeakKeyDictionary()


def draw(prior: Prior, condition: Condition, noise: Tensor, settings: DistillationSettings) -> Tensor:
    """Samples in the prior's space (B, C, h, w) that grow out of ``noise``: DDIM (Song et al. 2021, eta = 0), guided."""
    return ddim(
        lambda z, t: guided_noise(prior, z, t, condition, settings)[0], prior.alpha_sigma, noise, settings.sample_steps
    )


def draw_once(prior: Prior, condition: Condition, noise: Tensor, settings: DistillationSettings) -> Tensor:
    """The same; remembered where the views are to come again (``repeat_views``).

    The sampler has no randomness of its own, so what is remembered is what would be drawn, and a resumed run goes on as
    if it had not stopped.
    """
    if not settings.repeat_views:
        return draw(prior, condition, noise, settings)
    seen = hashlib.sha256(settings.model_dump_json().encode())
    for part in (noise, condition.tokens, condition.camera, condition.background):
        if part is not None:
            seen.update(part.detach().cpu().float().numpy().tobytes())
    memory, key = _drawn.setdefault(prior, {}), seen.digest()
    if key not in memory:
        while len(memory) >= settings.repeat_views:
            memory.pop(next(iter(memory)))
        memory[key] = draw(prior, condition, noise, settings)
    return memory[key]


def direction(
    picture: Tensor, prior: Prior, condition: Condition, t: Tensor, noise: Tensor, settings: DistillationSettings
) -> tuple[Tensor, dict[str, float]]:
    """Gradient of 1/2 |encode(picture) - sample|^2 for pictures (B, 3, H, W) in [0, 1]; ``t`` plays no part.

    Cost: ``sample_steps`` questions to the prior for each step, against one of score distillation; with ``repeat_views``
    for that many steps only, after which a step asks nothing. The samples agree with their words and cameras, but not
    with each other: the scene becomes their mean. See ``distillation.direction`` for the other shapes.
    """
    picture = picture.detach().requires_grad_()
    with torch.enable_grad():
        z = prior.encode(picture)
    residual = z.detach() - draw_once(prior, condition, noise, settings)
    (gradient,) = torch.autograd.grad(z, picture, residual)
    return gradient, {"residual_norm": float(residual.square().mean().sqrt())}
