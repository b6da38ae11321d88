"""A CLIP's loss: the cosine similarity of picture and caption, climbed through the picture tower."""

from __future__ import annotations

import torch
from torch import Tensor

from .rule_settings import DistillationSettings
from ..priors.prior import Condition, Scorer


def direction(
    picture: Tensor, prior: Scorer, condition: Condition, t: Tensor, noise: Tensor, settings: DistillationSettings
) -> tuple[Tensor, dict[str, float]]:
    """Gradient of -similarity (Jain et al. 2022, Dream Fields, eq. 4) for pictures (B, 3, H, W) in [0, 1].

    It is multiplied by H W: the loop takes the mean over pixels, so the loss becomes the mean of -similarity over the
    views, the scale in which Dream Fields weighs its transmittance. ``t``, ``noise`` and ``settings`` play no part.
    """
    with torch.enable_grad():
        picture = picture.detach().requires_grad_()
        similarity = prior.similarity(picture, condition)
        (gradient,) = torch.autograd.grad(-similarity.sum(), picture)
    pixels = picture.shape[-2] * picture.shape[-1]
    return gradient * pixels, {"similarity": float(similarity.detach().mean())}
