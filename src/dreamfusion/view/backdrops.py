"""Backgrounds: what is behind the object."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .view import View
from .view_settings import ViewSettings

Groups = dict[str, tuple[dict[str, nn.Parameter], float]]
"""What an optimiser moves: {group: ({name: parameter}, learning rate)}."""

_PLAIN = {"gray": 0.5, "white": 1.0, "black": 0.0}


MEAN_LATENT = 0.5
"""The background of latents: the middle of their rendered range."""


class Backdrop(nn.Module):
    """Chooses the background. The kind 'learned' is one colour for all views, learned with the scene."""

    def __init__(self, settings: ViewSettings):
        super().__init__()
        self.settings = settings
        if settings.background == "learned":
            self.logits = nn.Parameter(torch.zeros(3))  # mid-gray

    def groups(self) -> Groups:
        """What learns, as ``scene.Scene.groups`` has it."""
        return {"background": (dict(self.named_parameters()), self.settings.background_lr)}

    def behind(self, view: View, rng: torch.Generator) -> View:
        """The view with its background. It draws only as many random numbers as the kind needs."""
        count, kind = len(view), self.settings.background
        if view.shading == "latent":
            return view.over(torch.full((count, 1, 1, 1), MEAN_LATENT))
        if kind == "learned":
            return view.over(torch.sigmoid(self.logits).expand(count, 3)[:, :, None, None])
        if kind == "augmented":
            return view.over(augmented_backgrounds(count, view.size, rng))
        return view.over(background_colours(kind, count, rng)[:, :, None, None])


def background_colours(
    kind: Literal["gray", "white", "black", "random"], count: int, generator: torch.Generator
) -> Tensor:
    """Colours (count, 3) in [0, 1], one for each picture; ``random`` is uniform in the colour cube."""
    if kind == "random":
        return torch.rand(count, 3, generator=generator, device=generator.device)
    return torch.full((count, 3), _PLAIN[kind])


def checkerboards(count: int, size: int, generator: torch.Generator, squares: int = 8) -> Tensor:
    """Boards of ``squares`` per side in two random colours each, (count, 3, size, size)."""
    colours = torch.rand(count, 2, 3, generator=generator)
    place = torch.arange(size) * squares // size
    return colours[:, (place[:, None] + place) % 2].permute(0, 3, 1, 2)


def frequencies(size: int) -> Tensor:
    """|f| of each bin of ``rfft2``, in cycles a pixel, (size, size // 2 + 1)."""
    return (torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size) ** 2).sqrt()


def fourier_textures(count: int, size: int, generator: torch.Generator, decay: float = 1.5) -> Tensor:
    """Clouds of colour (count, 3, size, size): sigmoid of twice a normal field whose amplitudes fall as |f|^-decay.

    The field's root mean square is 1 in each channel (after Mordvintsev et al. 2018).
    """
    spectrum = torch.fft.rfft2(torch.randn(count, 3, size, size, generator=generator))
    field = torch.fft.irfft2(spectrum * frequencies(size).clamp_min(1 / size) ** -decay, s=(size, size))
    return torch.sigmoid(2 * field / field.square().mean((2, 3), keepdim=True).sqrt())


def blur(pictures: Tensor, spread: Tensor) -> Tensor:
    """Gaussian blur of pictures (B, C, S, S), each by its own ``spread`` (B,) in pixels; edges wrap around."""
    size = pictures.shape[-1]
    keep = torch.exp(-2 * (torch.pi * spread[:, None, None, None] * frequencies(size)) ** 2)
    return torch.fft.irfft2(torch.fft.rfft2(pictures) * keep, s=(size, size))


def augmented_backgrounds(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Blurred Gaussian noise, checkerboards or Fourier textures, with equal probability: (count, 3, size, size) in [0, 1].

    Jain et al. 2022 (Dream Fields), section 4.2: a scene cannot imitate a background that changes. The blur is
    uniform up to 10 / 224 of the picture, as in its code.
    """
    noise = 0.5 + 0.25 * torch.randn(count, 3, size, size, generator=generator)
    kinds = torch.stack([noise, checkerboards(count, size, generator), fourier_textures(count, size, generator)])
    drawn = kinds[torch.randint(3, (count,), generator=generator), torch.arange(count)]
    return blur(drawn, torch.rand(count, generator=generator) * size * 10 / 224).clamp(0, 1)
