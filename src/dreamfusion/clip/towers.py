"""The towers of the two bundled CLIPs (after Radford et al. 2021): pictures 64 x 64 and captions to unit vectors.

``Judge``  a residual ConvNet with attention pooling.
``Guide``  a small patch transformer. The two share no code but the projection of the words, and no weights at all.

Training begins with pictures of 32 x 32, which cost a quarter; the towers take any multiple of 16.
Captions are read as sentence embeddings (B, 384) of the frozen MiniLM encoder in ``models/text_encoder.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 64
SENTENCE = 384
WIDTH = 128
"""Of the space that pictures and captions share."""


def resized(pictures: Tensor, size: int) -> Tensor:
    """Pictures or maps (B, C, H, W) at ``size`` x ``size``, with antialiasing; differentiable."""
    if pictures.shape[-2:] == (size, size):
        return pictures
    return F.interpolate(pictures, (size, size), mode="bilinear", antialias=True, align_corners=False)


class Words(nn.Module):
    """Sentence embeddings (N, 384) to unit vectors (N, WIDTH): a linear map, and what a small hidden layer adds."""

    def __init__(self, hidden: int = 512):
        super().__init__()
        self.linear = nn.Linear(SENTENCE, WIDTH)
        self.inside, self.outside = nn.Linear(SENTENCE, hidden), nn.Linear(hidden, WIDTH)
        nn.init.zeros_(self.outside.weight)
        nn.init.zeros_(self.outside.bias)

    @torch.no_grad()
    def spread(self, sentences: Tensor) -> None:
        """Begin with the whitened principal components of ``sentences`` (N, 384): MiniLM's are all much alike, and a
        picture is told apart from the first step on where they are not."""
        mean = sentences.mean(0)
        _, size, axes = torch.linalg.svd(sentences - mean, full_matrices=False)
        rows = axes[:WIDTH] / (size[:WIDTH, None] / len(sentences) ** 0.5)
        self.linear.weight.copy_(rows / SENTENCE**0.5)
        self.linear.bias.copy_(-rows @ mean)

    def forward(self, sentences: Tensor) -> Tensor:
        hidden = F.gelu(self.inside(sentences * SENTENCE**0.5))  # unit vectors have small entries
        return F.normalize(self.linear(sentences * SENTENCE**0.5) + self.outside(hidden), dim=-1)


class Block(nn.Module):
    """Residual: a 3 x 3 convolution, then a pointwise one that adds to the input."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class Tower(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] -> features (B, width): a residual ConvNet with attention pooling."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 192), heads: int = 8):
        super().__init__()
        first, *others = widths
        self.stem = nn.Conv2d(12, first, 3, padding=1, bias=False)
        stages: list[nn.Module] = []
        for before, width in zip(widths, others, strict=False):
            stages += [nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, width, 3, 2, padding=1, bias=False)]
            stages += [Block(width)]
        last = widths[-1]
        self.stages = nn.Sequential(*stages, Block(last), nn.BatchNorm2d(last), nn.ReLU())
        self.heads, self.width = heads, 2 * last
        self.place = nn.Parameter(torch.randn(1, last, 4, 4) * 0.02)
        self.query = nn.Conv2d(last, heads, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.pixel_unshuffle(pictures * 4 - 2, 2).contiguous(memory_format=torch.channels_last)
        x = self.stages(self.stem(x))
        x = x + resized(self.place, x.shape[-1])
        weight = self.query(x).flatten(2).softmax(-1)  # (B, heads, places)
        value = x.flatten(2)
        parts = value.unflatten(1, (self.heads, -1))  # (B, heads, C / heads, places)
        return torch.cat([torch.einsum("bhcp,bhp->bhc", parts, weight).flatten(1), value.mean(-1)], 1)


class Judge(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] -> unit vectors (B, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = Words()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.tower = Tower()
        # What all pictures share is taken off before the directions are compared.
        self.out = nn.Sequential(nn.BatchNorm1d(self.tower.width), nn.Linear(self.tower.width, WIDTH))

    def features(self, pictures: Tensor) -> Tensor:
        """What ``out`` reads, (B, 2 C)."""
        return self.tower(pictures)

    def forward(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.out(self.features(pictures)), dim=-1)


class Guide(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] -> unit vectors (B, WIDTH), by self-attention over 8 x 8 patches."""

    def __init__(self, width: int = 96, layers: int = 3, heads: int = 4):
        super().__init__()
        self.words = Words()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.stem = nn.Sequential(nn.Conv2d(48, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, width, 2, 2))
        self.place = nn.Parameter(torch.randn(1, width, 8, 8) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True, layer_norm_eps=1e-5
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Sequential(nn.BatchNorm1d(2 * width), nn.Linear(2 * width, WIDTH))

    def features(self, pictures: Tensor) -> Tensor:
        """Mean and maximum over the patches, (B, 2 width)."""
        patches = F.pixel_unshuffle(pictures * 4 - 2, 4).contiguous(memory_format=torch.channels_last)
        x = self.stem(patches)
        x = self.layers((x + resized(self.place, x.shape[-1])).flatten(2).transpose(1, 2))
        return torch.cat([x.mean(1), x.amax(1)], -1)

    def forward(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.out(self.features(pictures)), dim=-1)
