"""What every prior is: a frozen diffusion model that embeds words and predicts the noise in a noisy picture.

Conventions: t in [0, 1], z_t = alpha_t z + sigma_t e. ``z`` is the prior's own space (for a pixel prior 2 x - 1).
Whatever a prior predicts inside, it answers e (the noise) outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from ..errors import UserError
from .question import Question, Words


@dataclass(frozen=True)
class Unknown:
    """A word the prior was never taught: the nearest name it knows, and their cosine similarity."""

    word: str
    nearest: str
    similarity: float


class Frozen(ABC):
    """A frozen model that reads captions: a ``Prior`` or a ``Scorer``."""

    id: str
    hash: str
    device: torch.device
    resolution: int
    """Side of the pictures it was trained on, in pixels."""

    joint: bool = False
    """Whether it answers the views of a group together (``prior.asks: views``)."""

    reads_camera: bool = True
    """Whether a camera that it is told (``prior.asks: camera``) changes its answer."""

    knows_depth: bool = False
    """Whether it knows pictures of depths (``shading.depth``) from a camera that it is told."""

    @property
    def names(self) -> Sequence[str]:
        """The things that it can draw, if there is a list of them."""
        return ()

    @abstractmethod
    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Words:
        """Read captions, a row each. ``images``, if there are any, are reference pictures for all of them, (4, S, S) as
        ``reference.read_reference`` has them. UserError if this model takes none (``no_images``)."""

    def no_images(self, images: Sequence[Tensor]) -> None:
        """UserError if there are reference pictures, for models that read words only."""
        if images:
            raise UserError(f"the prior {self.id!r} takes no reference pictures")

    def describe(self, image: Tensor, prompt: str = "") -> str:
        """What a reference picture shows, in words; the prompt says what is known of it. UserError if it takes none."""
        self.no_images([image])
        raise NotImplementedError

    def unknown_words(self, prompt: str) -> list[Unknown]:
        """Words of a prompt that the model is known not to have been taught."""
        return []

    def ignored(self, prompt: str) -> list[str]:
        """Words and phrases of a prompt that change nothing, as the model is known to have no pictures for them."""
        return []

    def familiar(self, caption: str) -> str:
        """The caption as the model will read it, unknown words put as known ones."""
        return caption

    def unread(self, caption: str) -> str:
        """The end of a caption that is too long for the model, which it does not read; '' if it reads all of it."""
        return ""

    def info(self) -> dict[str, object]:
        """What it is, as text and numbers."""
        return {"id": self.id, "sha256": self.hash, "resolution": self.resolution}

    def of_instance(self, instance: int) -> Self:
        """The same model for a run whose names mean their shape number ``instance``; itself if it knows one of each name."""
        return self


class Prior(Frozen):
    """A frozen text-to-image diffusion model. ``encode`` is differentiable; the caller decides for ``predict_noise``."""

    channels: int = 3
    """Channels of z: a scene may render latents of as many."""
    limit: float | None = None
    """Bounds of the clean z, +-limit, if it has any (pictures: 1)."""

    def adaptable(self) -> nn.Module | None:
        """The network to whose layers a rule may add low-rank updates while it asks; None if there is none. Its weights
        stay as they are."""
        return None

    @abstractmethod
    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The noise schedule at t (B,): alpha, sigma, each (B,), or shaped as z where it differs inside (a mixture)."""

    @abstractmethod
    def encode(self, picture: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to z (B, …); differentiable. A latent prior also takes rendered latents
        (B, channels, h, w) in [0, 1]."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """z back to pictures in [0, 1]."""

    @abstractmethod
    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        """Noise predictions for z_t (B, …) at t (B,), one for each entry of ``about``, shaped as z_t.

        An entry is ``question.words`` itself, which is asked with all that the question says; or other words, which are
        asked alone; or None, which is the prior's own "nothing". Differentiable in z_t under the caller's grad mode.
        """

    @abstractmethod
    def noise_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the noise for ``count`` pictures, that of ``encode``'s answer."""

    def rows_apart(self, about: Sequence[Words | None]) -> bool:
        """Whether each row of such an answer depends on that row (or its group) alone. Then the questions of several runs may
        be asked as one."""
        return True


class Scorer(Frozen):
    """A frozen model that scores pictures against captions, and predicts no noise (a CLIP)."""

    @abstractmethod
    def similarity(self, picture: Tensor, question: Question) -> Tensor:
        """Cosine similarity (B,) of pictures (B, 3, H, W) in [0, 1] to their captions; differentiable."""


def pixels(picture: Tensor, side: int) -> Tensor:
    """The z of a pixel prior: pictures (B, 3, H, W) in [0, 1] at side x side (bilinear, antialiased), in [-1, 1]."""
    if picture.shape[-2:] != (side, side):
        picture = torch.nn.functional.interpolate(picture, (side, side), mode="bilinear", antialias=True)
    return picture * 2 - 1


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance, (1 + w) e(y) - w e(nothing) (Ho & Salimans 2021, eq. 6).

    Libraries that write e(nothing) + s (e(y) - e(nothing)) mean s = 1 + w.
    """
    return (1 + guidance_scale) * conditional - guidance_scale * unconditional


def broadcast(x: Tensor, like: Tensor) -> Tensor:
    """A (B,) tensor shaped (B, 1, 1, …) to multiply ``like``; what has all dimensions already stays as it is."""
    return x if x.ndim == like.ndim else x.reshape(-1, *[1] * (like.ndim - 1))


def levels(prior: Prior, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of t (B,), shaped to multiply ``like`` (B, …)."""
    alpha, sigma = prior.alpha_sigma(t)
    if alpha.ndim == like.ndim:
        return alpha, sigma
    shape = (-1, *[1] * (like.ndim - 1))
    return alpha.reshape(shape), sigma.reshape(shape)


def clean_from_noise(z_t: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x0 = (z_t - sigma e) / alpha; alpha and sigma are (B,)."""
    return (z_t - broadcast(sigma, z_t) * noise) / broadcast(alpha, z_t).clamp_min(1e-4)


def cosine_schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol & Dhariwal 2021 without the offset; Imagen's form)."""
    return torch.cos(t * torch.pi / 2), torch.sin(t * torch.pi / 2)
