"""Pictures and captions for the two CLIPs, put together and roughened on the fly from drawn views.

The judge will look at volume renderings: soft, noisy, half transparent, off-centre, before any background. So that is
what it is shown, and it is shown junk too, which it must call nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "prior"))

from draw import HELD_OUT_EVERY
from paint import CLAY_ALBEDO, RULE_VIEWS, rule_of, tint
from vocabulary import COLOURS, MODELS
from wordings import CLAY, PLAIN, captions

from dreamfusion.evaluation.fronts import fronts
from dreamfusion.models.text_encoder import TextEncoder

NAMES = list(MODELS)
LOOKS = (PLAIN, CLAY, *COLOURS)
CLAY_SHARE, PLAIN_SHARE, JUNK_SHARE = 0.15, 0.25, 0.05
HAS_FRONT = np.array([name in fronts() for name in NAMES])
PAINT = torch.tensor([COLOURS.get(look, (float("nan"),) * 3) for look in LOOKS])


@dataclass
class Batch:
    """pictures (B, 3, 64, 64) in [0, 1]; label (B,) index of (name, look), -1 for junk; azimuth_deg (B,), NaN where the
    view is not to be learned."""

    pictures: Tensor
    label: Tensor
    azimuth_deg: Tensor


def label_of(name: int, look: int) -> int:
    """The class of a (name, look) pair, both as indices."""
    return name * len(LOOKS) + look


class Table:
    """Sentence embeddings of all wordings of all (name, look) classes."""

    def __init__(self, path: Path):
        if not path.exists():
            self.build(path)
        stored = load_file(path)
        self.sentences, self.first, self.count = stored["sentences"].float(), stored["first"], stored["count"]

    @staticmethod
    def build(path: Path) -> None:
        """Embed every wording once; the sides' words too, so that they change little."""
        texts: list[str] = []
        first, count = [], []
        for name in NAMES:
            for look in LOOKS:
                rows = captions(name, look, "")
                rows += [captions(name, look, view)[0] for view in ("front", "side", "back", "overhead")]
                first.append(len(texts))
                count.append(len(rows))
                texts += rows
        encoder, parts = TextEncoder.load(), []
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike lengths together: less padding
        for start in range(0, len(texts), 128):
            parts.append(encoder.sentence([texts[i] for i in order[start : start + 128]]).half())
        sentences = torch.empty(len(texts), parts[0].shape[1], dtype=torch.float16)
        sentences[torch.tensor(order)] = torch.cat(parts)
        save_file({"sentences": sentences, "first": torch.tensor(first), "count": torch.tensor(count)}, path)
        print(f"{len(texts)} wordings of {len(first)} captions", flush=True)

    def usual(self) -> Tensor:
        """The first wording of every class, (classes, 384)."""
        return self.sentences[self.first]

    def draw(self, rng: torch.Generator) -> Tensor:
        """A wording of every class, (classes, 384): the first in half of the draws."""
        u = torch.rand(2, len(self.first), generator=rng)
        other = (u[0] * self.count).long()
        return self.sentences[self.first + torch.where(u[1] < 0.5, 0, other)]


class Views:
    """Drawn views in memory. ``bare``: their fifth channel is n . l (``draw.py``), not the shading (``tools/prior``)."""

    def __init__(self, folder: Path, bare: bool, held_out: bool | None = False):
        """The views of training, the held-out ones, or (None) all of them."""
        self.bare, self.fronts = bare, 1.0
        pixels, azimuths, self.span = [], [], {}
        total = 0
        for index, name in enumerate(NAMES):
            stem, first = name.replace(" ", "_"), total
            found = (
                [folder / f"{stem}.npz", folder / "more" / f"{stem}.npz"] if bare else folder.glob(f"{stem}.[0-9]*.npz")
            )
            for path in sorted(path for path in found if path.exists()):
                with np.load(path) as stored:
                    rows = np.arange(len(stored["cameras"]))
                    if held_out is not None:
                        rows = rows[(rows % HELD_OUT_EVERY == 0) == held_out]
                    pixels.append(stored["pixels"][rows])
                    azimuths.append(stored["cameras"][rows, 0])
                total += len(rows)
            if total > first:
                self.span[index] = (first, total)
        self.names = list(self.span)
        self.pixels, self.azimuth = np.concatenate(pixels), np.concatenate(azimuths)
        self.luma, self.rule = np.full(len(NAMES), 0.5, np.float32), np.zeros(len(NAMES), np.int64)
        for index, (first, last) in self.span.items():
            self.rule[index], self.luma[index] = rule_of(self.pixels[first:last][:RULE_VIEWS])

    def rows(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Random (names, views), both (count,). Names with a front come ``fronts`` times as often."""
        share = np.where(HAS_FRONT[self.names], self.fronts, 1.0)
        names = rng.choice(self.names, count, p=share / share.sum())
        return names, np.array([rng.integers(*self.span[int(n)]) for n in names])


def compose(
    pixels: Tensor, look: Tensor, luma: Tensor, rule: Tensor, ambient: Tensor | None, behind: Tensor, solid: Tensor
) -> Tensor:
    """Views (B, 5, H, W) in [0, 1] to pictures (B, 3, H, W) in [0, 1].

    look, luma, rule (B,), the last two as ``dataset.paint_rule`` has them; ambient (B,) the share of light from everywhere,
    None where the views are shaded already; behind (B, 3, H, W) or broadcastable the background; solid (B,) the object's
    opacity.
    """
    cover = pixels[:, 3:4]
    albedo = pixels[:, :3] / cover.clamp_min(1 / 255)
    paint = PAINT[look]
    painted = tint(albedo, paint.nan_to_num(), luma, rule)
    albedo = torch.where(paint.isnan().any(1)[:, None, None, None], albedo, painted).clamp(0, 1)
    albedo = torch.where((look == 1)[:, None, None, None], torch.full_like(albedo, CLAY_ALBEDO), albedo)
    shade = pixels[:, 4:5]
    if ambient is not None:
        a = ambient[:, None, None, None]
        shade = a * cover + (1 - a) * shade
    solid = solid[:, None, None, None]
    return (albedo * shade * solid + (1 - cover * solid) * behind).clamp(0, 1)


def uniform(low: float, high: float, count: int, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=rng)


def moved(pixels: Tensor, flip: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Views turned by up to 8 degrees, shifted by up to 9 %, scaled by 0.72 to 1.15, all of it times ``strength`` (B,);
    mirrored where ``flip`` (B,)."""
    count = len(pixels)
    turn, scale = uniform(-0.14, 0.14, count, rng) * strength, uniform(0.72, 1.15, count, rng) ** -strength
    c, s = turn.cos() * scale, turn.sin() * scale
    sign = torch.where(flip, -1.0, 1.0)
    shift = uniform(-0.18, 0.18, 2 * count, rng).reshape(2, count) * strength
    matrix = torch.stack([torch.stack([c * sign, -s, shift[0]], -1), torch.stack([s * sign, c, shift[1]], -1)], 1)
    grid = F.affine_grid(matrix, [count, 1, *pixels.shape[2:]], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def smooth_noise(count: int, size: int, rng: torch.Generator, channels: int = 3) -> Tensor:
    """Soft random colours, (count, channels, 64, 64) in [0, 1], from a grid of ``size`` x ``size`` numbers."""
    coarse = torch.rand(count, channels, size, size, generator=rng)
    return F.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)


def backgrounds(count: int, rng: torch.Generator) -> Tensor:
    """(count, 3, 64, 64): mid-gray in half, else a gray, a colour, a gradient or blotches."""
    kind = torch.rand(count, generator=rng)[:, None, None, None]
    out = torch.full((count, 3, 64, 64), 0.5)
    gray = torch.rand(count, 1, 1, 1, generator=rng)
    out = torch.where(kind > 0.5, gray.expand_as(out), out)
    out = torch.where(kind > 0.65, torch.rand(count, 3, 1, 1, generator=rng).expand_as(out), out)
    out = torch.where(kind > 0.8, smooth_noise(count, 2, rng), out)
    return torch.where(kind > 0.9, smooth_noise(count, 8, rng), out)


def blurred(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Half of the batch, blurred by a Gaussian of one of three widths up to 1.6 pixels."""
    out = pictures.clone()
    for sigma, part in zip((0.6, 1.0, 1.6), torch.randperm(len(pictures), generator=rng).chunk(6), strict=False):
        x = torch.arange(-4, 5) / sigma
        line = (-(x**2) / 2).exp()
        line = (line / line.sum()).expand(3, 1, -1)
        soft = F.conv2d(F.pad(pictures[part], (4, 4, 4, 4), mode="replicate"), line[:, :, None, :], groups=3)
        out[part] = F.conv2d(soft, line[:, :, :, None], groups=3)
    return out


def junk(count: int, rng: torch.Generator) -> Tensor:
    """Pictures of nothing: white noise, soft blotches of several sizes, plain backgrounds, a random blob."""
    kinds = [torch.rand(count, 3, 64, 64, generator=rng), smooth_noise(count, 4, rng), smooth_noise(count, 16, rng)]
    blob = (smooth_noise(count, 5, rng, 1) * 12 - 6).sigmoid()
    kinds += [
        backgrounds(count, rng),
        blob * smooth_noise(count, 3, rng) + (1 - blob) * 0.5,
        0.5 + 0.2 * torch.randn(count, 3, 64, 64, generator=rng),
    ]
    pick = torch.randint(len(kinds), (count,), generator=rng)
    return torch.stack(kinds)[pick, torch.arange(count)].clamp(0, 1)


def roughened(
    views: Views,
    names: np.ndarray,
    rows: np.ndarray,
    look: np.ndarray,
    flip: Tensor,
    strength: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """Given views in given looks, moved, half transparent, blurred, noisy, over anything: pictures (B, 3, 64, 64).

    ``strength`` (B,) in [0, 1] is how much of all that a picture gets; 0 leaves mid-gray and light from anywhere.
    """
    size = len(rows)

    def touched() -> Tensor:
        return torch.rand(size, generator=rng) < strength

    pixels = moved(torch.from_numpy(views.pixels[rows]).float() / 255, flip, strength, rng)
    ambient = uniform(0.3, 0.9, size, rng) if views.bare else None
    solid = torch.where(touched() & (torch.rand(size, generator=rng) < 0.3), uniform(0.6, 1.0, size, rng), 1.0)
    behind = torch.full((size, 3, 64, 64), 0.5)
    other = touched()
    behind[other] = backgrounds(int(other.sum()), rng)
    luma, rule = torch.from_numpy(views.luma[names]).clamp_min(0.01), torch.from_numpy(views.rule[names])
    pictures = compose(pixels, torch.from_numpy(look), luma, rule, ambient, behind, solid)
    soft = touched()
    pictures[soft] = blurred(pictures[soft], rng)
    bright = 1 + uniform(-0.15, 0.15, size, rng) * strength
    noise = uniform(-0.06, 0.08, size, rng).clamp_min(0) * strength
    grain = torch.randn(pictures.shape, generator=rng) * noise[:, None, None, None]
    return (pictures * bright[:, None, None, None] + grain).clamp(0, 1)


def batch(views: Views, size: int, np_rng: np.random.Generator, rng: torch.Generator, strength: float = 1.0) -> Batch:
    """A random batch for training, roughened by up to ``strength``."""
    names, rows = views.rows(size, np_rng)
    u = np_rng.random(size)
    look = np.where(u < PLAIN_SHARE, 0, np.where(u < PLAIN_SHARE + CLAY_SHARE, 1, np_rng.integers(2, len(LOOKS), size)))
    flip = torch.from_numpy(np_rng.random(size) < 0.5)
    pictures = roughened(views, names, rows, look, flip, uniform(0, strength, size, rng), rng)
    label = torch.from_numpy(names * len(LOOKS) + look)
    azimuth = torch.from_numpy(np.where(HAS_FRONT[names], views.azimuth[rows], np.nan)).float()
    azimuth = torch.where(flip, -azimuth, azimuth)
    count = int(size * JUNK_SHARE)
    pictures[:count] = junk(count, rng)
    label[:count] = -1
    azimuth[:count] = float("nan")
    return Batch(pictures, label, azimuth)


def plain_batch(views: Views, names: np.ndarray, rows: np.ndarray, look: np.ndarray, gray: float = 0.5) -> Batch:
    """Given views as they are, over one gray, half of the light from everywhere."""
    pixels = torch.from_numpy(views.pixels[rows]).float() / 255
    ambient = torch.full((len(rows),), 0.5) if views.bare else None
    luma, rule = torch.from_numpy(views.luma[names]).clamp_min(0.01), torch.from_numpy(views.rule[names])
    pictures = compose(pixels, torch.from_numpy(look), luma, rule, ambient, torch.tensor(gray), torch.ones(len(rows)))
    azimuth = torch.from_numpy(np.where(HAS_FRONT[names], views.azimuth[rows], np.nan)).float()
    return Batch(pictures, torch.from_numpy(names * len(LOOKS) + look), azimuth)
