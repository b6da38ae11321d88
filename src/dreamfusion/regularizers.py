"""Penalties on renderings. They know no scene: each is a function of pictures. B pictures of H x W pixels."""

from __future__ import annotations

from torch import Tensor

from .distillation.rule import Figures
from .errors import UserError
from .scene.scene import Rendering
from .schema import scheduled
from .settings.config import RegularizerSettings

OF_SAMPLES = ("emptiness", "depth_variance")
"""Penalties that only renderers give which look at the samples one by one."""


def opacity_sparsity(opacity: Tensor) -> Tensor:
    """mean sqrt(o^2 + 0.01) over all pixels: keeps space from filling up (Poole et al. 2022, A.2)."""
    return (opacity.square() + 0.01).sqrt().mean()


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean binary entropy of opacities, in nats: 0 where pixels are solid or empty, log 2 where they are half.

    Values and gradients stay finite at 0 and 1.
    """
    o = opacity.clamp(1e-5, 1 - 1e-5)
    return -(o * o.log() + (1 - o) * (-o).log1p()).mean()


def smoothness(normal: Tensor, opacity: Tensor) -> Tensor:
    """Mean squared difference of normals (B, 3, H, W) of neighbouring pixels, weighted by both pixels' opacities
    (B, 1, H, W).

    The weights are constants: a picture does not get smoother by getting thinner.
    """
    n = normal.permute(0, 2, 3, 1)
    o = opacity.detach()[:, 0]
    across = (n[:, :, 1:] - n[:, :, :-1]).square().sum(-1) * o[:, :, 1:] * o[:, :, :-1]
    down = (n[:, 1:] - n[:, :-1]).square().sum(-1) * o[:, 1:] * o[:, :-1]
    return across.mean() + down.mean()


def transmittance(opacity: Tensor, target: float) -> Tensor:
    """-min(target, mean transmittance), the mean over pictures (Jain et al. 2022, Dream Fields, eq. 5): empty space pays.

    A picture (of opacities (B, 1, H, W)) that is emptier than ``target`` feels nothing.
    """
    return -(1 - opacity).flatten(1).mean(1).clamp_max(target).mean()


def total(settings: RegularizerSettings, rendering: Rendering, progress: float) -> tuple[Tensor, Figures]:
    """Weighted sum of the penalties in force at ``progress``, and each one's value without its weight.

    Penalties of weight 0 are not computed, but for those that rays add up as they are drawn; a scene's own that the settings do
    not know are left out. UserError for one that this way of rendering does not give.
    """
    penalties = {
        "opacity": lambda: opacity_sparsity(rendering.opacity),
        "entropy": lambda: opacity_entropy(rendering.opacity),
        "smoothness": lambda: smoothness(rendering.normal, rendering.opacity),
        "transmittance": lambda: transmittance(rendering.opacity, scheduled(settings.transmittance_target, progress)),
    }
    loss, figures = rendering.opacity.new_zeros(()), {}
    for name in type(settings).model_fields:
        if name not in penalties and name not in rendering.penalties:
            if name in OF_SAMPLES and scheduled(getattr(settings, name), progress):
                raise UserError(
                    f"regularizers.{name} looks at the samples of each ray: it needs a field, with scene.fast=false"
                )
            continue
        if weight := scheduled(getattr(settings, name), progress):
            found = penalties[name] if name in penalties else rendering.penalties[name]
            value = found if isinstance(found, Tensor) else found()
            loss = loss + weight * value
            figures[f"regularizer_{name}"] = value.detach()
    return loss, figures
