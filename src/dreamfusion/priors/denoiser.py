"""The bundled prior's second network, the denoiser, and the parts that both are made of; ``layout.py`` has the first.

The denoiser is a small U-Net that predicts v (Salimans & Ho 2022) from the noisy picture and the layout beside it.
Pictures are (B, 3, 64, 64) in [-1, 1]; both networks work on 32 x 32 feature maps through a pixel shuffle of 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .prior import broadcast, cosine_schedule

TEXT_WIDTH = 384
AZIMUTH_HARMONICS, ELEVATION_HARMONICS = 6, 3
SPREAD = 0.06
"""How far pictures scatter around the layout, roughly: the root of its mean squared error on views that were held out."""
CAMERA_WIDTH = (1 + 2 * AZIMUTH_HARMONICS) * (1 + 2 * ELEVATION_HARMONICS) + 1


def camera_features(camera: Tensor) -> Tensor:
    """Features (B, 92) of cameras (B, 3): azimuth, elevation in radians, distance in world units.

    All products of the azimuth's and the elevation's harmonics, a basis of smooth functions on the sphere of views;
    and the distance.
    """
    azimuth, elevation, distance = camera.unbind(-1)

    def harmonics(angle: Tensor, count: int) -> Tensor:
        k = angle[:, None] * torch.arange(1, count + 1, device=camera.device)
        return torch.cat([torch.ones_like(angle)[:, None], k.sin(), k.cos()], -1)

    a, e = harmonics(azimuth, AZIMUTH_HARMONICS), harmonics(elevation, ELEVATION_HARMONICS)
    products = (a[:, :, None] * e[:, None, :]).flatten(1)
    return torch.cat([products, ((distance - 2.5) / 0.2).clamp(-3, 3)[:, None]], -1)


def time_features(t: Tensor, width: int = 64) -> Tensor:
    """Sinusoidal features (B, width) of t (B,) in [0, 1]."""
    frequency = torch.exp(torch.linspace(0.0, 5.5, width // 2, device=t.device))
    angle = t[:, None] * frequency * 2
    return torch.cat([angle.sin(), angle.cos()], -1)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(16, channels)


class Residual(nn.Module):
    """Two convolutions, the second one's input scaled and shifted by the style (B, S)."""

    def __init__(self, inside: int, outside: int, style: int):
        super().__init__()
        self.norm1, self.norm2 = norm(inside), norm(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.film = nn.Linear(style, 2 * outside)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(style)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))


class Words(nn.Module):
    """Word embeddings (B, L, 384) to tokens of our own width and a pooled vector; learned tokens stand for "nothing"."""

    def __init__(self, width: int, queries: int = 4):
        super().__init__()
        self.project = nn.Linear(TEXT_WIDTH, width)
        self.query = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.key = nn.Linear(width, width)
        self.pooled_width = queries * width

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.project(tokens)
        score = (self.key(x) @ self.query.T.to(x.dtype)) / x.shape[-1] ** 0.5  # (B, L, Q)
        weight = score.masked_fill(~mask[..., None], -1e4).softmax(1)
        return x, (weight.transpose(1, 2) @ x).flatten(1)


class Denoiser(nn.Module):
    """Noisy picture and layout -> v (B, 3, 64, 64).

    The U-Net corrects the best guess for pictures that scatter around the layout by ``SPREAD`` (Karras et al. 2022, with
    the layout as the mean), so that it starts from a denoiser that works. What the picture shows is the layout's to say: the
    U-Net reads no words, and works the same whatever the layout was told and what it inferred.
    """

    def __init__(self, widths: tuple[int, int, int] = (48, 96, 192), style: int = 256):
        super().__init__()
        a, b, c = widths
        self.time = nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, style))
        self.style = nn.Sequential(nn.SiLU(), nn.Linear(style, style), nn.SiLU())
        self.inside = nn.Conv2d(24, a, 3, padding=1)
        self.down1 = Residual(a, a, style)
        self.to2 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.down2 = Residual(b, b, style)
        self.to3 = nn.Conv2d(b, c, 3, stride=2, padding=1)
        self.middle1 = Residual(c, c, style)
        self.middle2 = Residual(c, c, style)
        self.from3 = nn.Conv2d(c, b, 3, padding=1)
        self.up2 = Residual(2 * b, b, style)
        self.from2 = nn.Conv2d(b, a, 3, padding=1)
        self.up1 = Residual(2 * a, a, style)
        self.last = Residual(a, a, style)
        last = nn.Conv2d(a, 12, 3, padding=1)
        self.out = nn.Sequential(norm(a), nn.SiLU(), last)
        for p in last.parameters():
            nn.init.zeros_(p)

    def forward(self, z_t: Tensor, t: Tensor, layout: Tensor) -> Tensor:
        """z_t, layout (B, 3, 64, 64); t (B,)."""
        dtype = self.inside.weight.dtype
        style = self.style(self.time(time_features(t).to(dtype)))
        surprise, guess, scale = around_layout(z_t.float(), t, layout.float(), SPREAD)
        x = F.pixel_unshuffle(torch.cat([surprise, layout], 1).to(dtype), 2).contiguous(
            memory_format=torch.channels_last
        )
        one = self.down1(self.inside(x), style)
        two = self.down2(self.to2(one), style)
        x = self.middle2(self.middle1(self.to3(two), style), style)
        x = self.from3(F.interpolate(x, scale_factor=2, mode="nearest"))
        x = self.up2(torch.cat([x, two], 1), style)
        x = self.from2(F.interpolate(x, scale_factor=2, mode="nearest"))
        x = self.last(self.up1(torch.cat([x, one], 1), style), style)
        return guess + scale * F.pixel_shuffle(self.out(x).float(), 2)


def around_layout(z_t: Tensor, t: Tensor, layout: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """How far z_t is from its expected value, in standard errors, the best v if pictures were Gaussian around the layout
    (both (B, 3, H, W)), and the standard error of that (B, 1, 1, 1).

    With x ~ N(layout, s^2), s the spread: E[x | z] = (sigma^2 layout + s^2 alpha z) / d and Var[x | z] = s^2 sigma^2 / d where
    d = sigma^2 + s^2 alpha^2 is the variance of z; and v = (alpha z - x) / sigma.
    """
    alpha, sigma = (broadcast(x, z_t) for x in cosine_schedule(t.float()))
    variance = spread**2
    d = sigma.square() + variance * alpha.square()
    guess = sigma / d * (alpha * (1 - variance) * z_t - layout)
    return (z_t - alpha * layout) * d.rsqrt(), guess, (variance / d).sqrt()
