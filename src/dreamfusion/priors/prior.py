"""What every prior is: a frozen diffusion model that embeds words and predicts the noise in a noisy picture.

Conventions: t in [0, 1], z_t = alpha_t z + sigma_t e. ``z`` is the prior's own space (for a pixel prior 2 x - 1).
Whatever a prior predicts inside, it answers e (the noise) outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What a prior is asked about: one row a picture.

    tokens: (B, L, D) float embeddings; mask: (B, L) bool, true where a token stands;
    camera: (B, 3) of azimuth and elevation in radians and distance in world units, or None (words alone);
    background: (B, 3) in [0, 1], the plain colour behind the object, or None for the prior's own (or where it is not plain);
    pooled: (B, P) whole-sentence embeddings, for priors that want them;
    nothing: words that stand for "nothing" in guidance (a negative prompt), or None for the prior's own;
    repelled: conditions to move away from, each with its weights (B,) (Perp-Neg);
    alone: the answer to "nothing" will not be used, and a prior may save itself the work.
    """

    tokens: Tensor
    mask: Tensor
    camera: Tensor | None = None
    pooled: Tensor | None = None
    nothing: Condition | None = None
    repelled: tuple[tuple[Condition, Tensor], ...] = ()
    alone: bool = False
    background: Tensor | None = None

    def rows(self, index: Tensor) -> Condition:
        """The condition of a choice of rows, index (B',) int64."""
        return Condition(
            self.tokens[index], self.mask[index], None if self.camera is None else self.camera[index],
            None if self.pooled is None else self.pooled[index],
            None if self.nothing is None else self.nothing.rows(index),
            tuple((words.rows(index), weight[index]) for words, weight in self.repelled), self.alone,
            None if self.background is None else self.background[index],
        )  # fmt: skip

    def with_camera(self, camera: Tensor | None) -> Condition:
        """The same words, asked from other cameras."""
        return replace(self, camera=camera)

    def with_background(self, background: Tensor | None) -> Condition:
        """The same words, asked about pictures before other backgrounds."""
        return replace(self, background=background)

    def blended(self, other: Condition, share: Tensor) -> Condition:
        """(1 - share) of these words and ``share`` (B,) of the other's, embedding by embedding; without camera."""
        tokens = torch.lerp(self.tokens, other.tokens, share[:, None, None].to(self.tokens))
        both = None if self.pooled is None or other.pooled is None else (self.pooled, other.pooled)
        pooled = None if both is None else torch.lerp(*both, share[:, None].to(both[0]))
        return Condition(tokens, self.mask | other.mask, pooled=pooled)

    def against(self, nothing: Condition | None, repelled: tuple[tuple[Condition, Tensor], ...] = ()) -> Condition:
        """The same words, asked against a negative prompt and away from others (see ``nothing``, ``repelled``)."""
        return replace(self, nothing=nothing, repelled=repelled)


def stack(first: Condition, second: Condition) -> Condition:
    """The words of both, one below the other (cameras and negatives aside); the shorter is padded."""
    length = max(first.tokens.shape[1], second.tokens.shape[1])

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(len(x), length - x.shape[1], *x.shape[2:])], 1)

    tokens = torch.cat([padded(first.tokens), padded(second.tokens)])
    mask = torch.cat([padded(first.mask), padded(second.mask)])
    pooled = None if first.pooled is None or second.pooled is None else torch.cat([first.pooled, second.pooled])
    return Condition(tokens, mask, pooled=pooled)


class Prior(Protocol):
    """A frozen text-to-image diffusion model. ``encode`` is differentiable; the caller decides for ``predict_noise``."""

    id: str
    hash: str
    resolution: int
    """Side of the pictures it was trained on, in pixels."""

    def embed(self, captions: list[str]) -> Condition:
        """Embed captions (no cameras)."""
        ...

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The noise schedule at t (B,): alpha (B,), sigma (B,)."""
        ...

    def encode(self, picture: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the prior's space (B, C, h, w); differentiable."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """The prior's space back to pictures in [0, 1]."""
        ...

    def predict_noise(self, z_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Noise predictions (with the condition, with nothing), each shaped as z_t (B, C, h, w); t (B,).

        Differentiable in z_t under the caller's grad mode. ``condition.nothing`` takes the place of no words.
        Where the condition stands ``alone`` both answers may be the first.
        """
        ...

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the noise for ``count`` pictures, that of ``encode``'s answer."""
        ...


class Scorer(Prior, Protocol):
    """A prior that embeds words and scores pictures; asked for noise, it raises UserError."""

    def similarity(self, picture: Tensor, condition: Condition) -> Tensor:
        """Cosine similarity (B,) of pictures (B, 3, H, W) in [0, 1] to their captions; differentiable."""
        ...


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance, (1 + w) e(y) - w e(nothing) (Ho & Salimans 2021, eq. 6).

    Libraries that write e(nothing) + s (e(y) - e(nothing)) mean s = 1 + w.
    """
    return (1 + guidance_scale) * conditional - guidance_scale * unconditional


def broadcast(x: Tensor, like: Tensor) -> Tensor:
    """A (B,) tensor shaped (B, 1, 1, …) to multiply ``like``."""
    return x.reshape(-1, *[1] * (like.ndim - 1))


def clean_from_noise(z_t: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x0 = (z_t - sigma e) / alpha; alpha and sigma are (B,)."""
    return (z_t - broadcast(sigma, z_t) * noise) / broadcast(alpha, z_t).clamp_min(1e-4)


def cosine_schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol & Dhariwal 2021 without the offset; Imagen's form)."""
    return torch.cos(t * torch.pi / 2), torch.sin(t * torch.pi / 2)
