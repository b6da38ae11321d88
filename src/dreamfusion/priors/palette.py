"""From a latent prior's latents to colours by a linear map, fitted to the prior's own VAE.

Latent-NeRF (Metzer et al. 2022, "RGB refinement") found that four numbers a latent give its colour nearly linearly; here the
map is fitted by least squares, so that it exists for every VAE.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from .prior import Prior

PATCHES = 8


@torch.no_grad()
def latent_palette(prior: Prior, channels: int) -> tuple[Tensor, Tensor]:
    """weight (3, channels) and bias (3,) from rendered latents in [0, 1] to colours in [0, 1], on the CPU.

    Fitted to two pictures of 8 x 8 patches of random colours. UserError if the prior has other latents.
    """
    has = prior.channels
    if has != channels or channels == 3:
        said = f"has latents of {has} channels" if has != 3 else "works on pictures"
        raise UserError(f"scene.channels is {channels}, but the prior {prior.id} {said}; set scene.channels to {has}")
    from .diffusers_prior import LATENT_RANGE

    colours = torch.rand(2, 3, PATCHES, PATCHES, generator=torch.Generator().manual_seed(0))
    side = prior.resolution // PATCHES
    pictures = colours.repeat_interleave(side, 2).repeat_interleave(side, 3)
    latents = prior.encode(pictures.to(prior.device)).float().cpu() / LATENT_RANGE / 2 + 0.5
    means = torch.nn.functional.adaptive_avg_pool2d(latents, PATCHES).permute(0, 2, 3, 1).reshape(-1, channels)
    known = torch.cat([means, torch.ones(len(means), 1)], 1).double()
    wanted = colours.permute(0, 2, 3, 1).reshape(-1, 3).double()
    # A little ridge, so that random or degenerate encoders do not give huge colours.
    solution = torch.linalg.solve(
        known.T @ known + 1e-3 * torch.eye(channels + 1, dtype=torch.float64), known.T @ wanted
    ).float()
    return solution[:-1].T.contiguous(), solution[-1]
