"""Penalties on what was rendered. They know no scene: each is a function of per-ray tensors. N = rays."""

from __future__ import annotations

import torch
from torch import Tensor

from .settings.config import RegularizerSettings
from .schema import scheduled
from .scene.scene import Rendering


def opacity_sparsity(opacity: Tensor) -> Tensor:
    """mean sqrt(o^2 + 0.01) over rays (N,): keeps space from filling up (Poole et al. 2022, A.2)."""
    return (opacity.square() + 0.01).sqrt().mean()


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean binary entropy of opacities (N,), in nats: 0 where rays are solid or empty, log 2 where they are half.

    Values and gradients stay finite at 0 and 1.
    """
    o = opacity.clamp(1e-5, 1 - 1e-5)
    return -(o * o.log() + (1 - o) * (-o).log1p()).mean()


def orientation(rendering: Rendering) -> Tensor:
    """Mean over rays of sum_i w_i max(0, n_i . d)^2 (Verbin et al. 2022, eq. 11): visible normals face the camera."""
    return rendering.orientation.mean()


def smoothness(normal: Tensor, opacity: Tensor, resolution: int) -> Tensor:
    """Mean squared difference of normals (N, 3) of neighbouring pixels, weighted by both pixels' opacities (N,).

    N = B * resolution^2, row by row. The weights are constants: a picture does not get smoother by getting thinner.
    """
    n = normal.reshape(-1, resolution, resolution, 3)
    o = opacity.detach().reshape(-1, resolution, resolution)
    across = (n[:, :, 1:] - n[:, :, :-1]).square().sum(-1) * o[:, :, 1:] * o[:, :, :-1]
    down = (n[:, 1:] - n[:, :-1]).square().sum(-1) * o[:, 1:] * o[:, :-1]
    return across.mean() + down.mean()


def transmittance(opacity: Tensor, resolution: int, target: float) -> Tensor:
    """-min(target, mean transmittance), the mean over pictures (Jain et al. 2022, Dream Fields, eq. 5): empty space pays.

    opacity (N,) with N = B * resolution^2, row by row. A picture that is emptier than ``target`` feels nothing.
    """
    return -(1 - opacity).reshape(-1, resolution**2).mean(1).clamp_max(target).mean()


def total(
    settings: RegularizerSettings, rendering: Rendering, resolution: int, progress: float
) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the penalties in force at ``progress``, and each one's value before its weight.

    Penalties of weight 0 are not computed.
    """
    penalties = {
        "opacity": lambda: opacity_sparsity(rendering.opacity),
        "entropy": lambda: opacity_entropy(rendering.opacity),
        "orientation": lambda: orientation(rendering),
        "smoothness": lambda: smoothness(rendering.normal, rendering.opacity, resolution),
        "transmittance": lambda: transmittance(
            rendering.opacity, resolution, scheduled(settings.transmittance_target, progress)
        ),
    }
    loss, terms = rendering.opacity.new_zeros(()), {}
    for name, penalty in penalties.items():
        weight = scheduled(getattr(settings, name), progress)
        if weight:
            value = penalty()
            loss = loss + weight * value
            terms[f"regularizer_{name}"] = float(torch.detach(value))
    return loss, terms
