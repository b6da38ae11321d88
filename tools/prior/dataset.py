"""Pictures with captions and cameras, put together on the fly from the drawn views (see ``render.py``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from captions import CLAY, PLAIN, CaptionTable, build
from numpy.typing import NDArray
from torch import Tensor
from vocabulary import COLOURS, MODELS, held_out

from dreamfusion.view.view_settings import ViewSettings
from dreamfusion.view.view_words import view_words

VIEW = ViewSettings()
CLAY_ALBEDO = 0.8
BACKGROUND = 0.5
LUMA = torch.tensor([0.299, 0.587, 0.114])
LOOKS = (PLAIN, CLAY, *COLOURS)
RULE_VIEWS = 24
DARK, NEUTRAL, EDGE = 0.3, 0.1, 0.04
"""Largest channel of what is dark, chroma of what has no colour, and half of the way from yes to no, which is soft."""
COLOURED_SHARE, CLAY_SHARE, WITHOUT_CAMERA = 0.55, 0.12, 0.15
VIEW_WORD_SHARE = {True: 0.5, False: 0.9}  # with and without the camera: where it is not told, the words must say it


@dataclass
class Batch:
    """pictures (B, 3, 64, 64) in [-1, 1]; tokens (B, L, 384); mask (B, L); camera (B, 3) radians, radians, distance;
    has_camera (B,) bool, false where the networks are not to be told it;
    cover (B, 1, 64, 64) in [0, 1]; thing, look (B,) what the words name, by number."""

    pictures: Tensor
    cover: Tensor
    tokens: Tensor
    mask: Tensor
    camera: Tensor
    has_camera: Tensor
    thing: Tensor
    look: Tensor


def kept(albedo: Tensor, rule: Tensor) -> Tensor:
    """The share (B, 1, H, W) of albedo (B, 3, H, W) that a painter leaves as it is, by the things' ``paint_rule`` (B,)."""
    value = albedo.amax(1, keepdim=True)
    chroma = value - albedo.amin(1, keepdim=True)
    dark = ((DARK + EDGE - value) / (2 * EDGE)).clamp(0, 1)
    neutral = ((NEUTRAL + EDGE - chroma) / (2 * EDGE)).clamp(0, 1)
    rule = rule[:, None, None, None]
    return torch.where(rule == 2, torch.maximum(dark, neutral), dark * neutral) * (rule > 0)


def paint_rule(albedo: Tensor, cover: Tensor) -> tuple[int, float]:
    """How a thing is painted, from views of it: albedo (V, 3, H, W), cover (V, 1, H, W); a rule and the mean luminance of
    what is painted.

    Glass, tyres, screens and handles are not painted with a car or a television. Of a thing that is mostly coloured what is
    dark or without colour stays (2), of any other one what is both (1); but where that is most of the thing, all is
    painted (0).
    """
    chroma = albedo.amax(1, keepdim=True) - albedo.amin(1, keepdim=True)
    total = cover.sum().clamp_min(1e-3)
    coloured = float(((chroma > 0.25) * cover).sum() / total) > 0.5
    for rule in (2, 1, 0) if coloured else (1, 0):
        painted = (1 - kept(albedo, torch.full((len(albedo),), rule))) * cover
        if float(painted.sum() / total) > 0.5:
            break
    luma = (albedo * LUMA[None, :, None, None]).sum(1, keepdim=True)
    return rule, float((luma * painted).sum() / painted.sum().clamp_min(1e-3))


def rule_of(pixels: NDArray[np.uint8]) -> tuple[int, float]:
    """``paint_rule`` of stored views (V, 5, H, W)."""
    views = torch.from_numpy(pixels.astype(np.float32)) / 255
    return paint_rule(views[:, :3] / views[:, 3:4].clamp_min(1 / 255), views[:, 3:4])


def tint(albedo: Tensor, colour: Tensor, mean_luma: Tensor, rule: Tensor) -> Tensor:
    """Repaint albedo (B, 3, H, W) in colours (B, 3), keeping the pattern of light and dark, and what is ``kept``.

    The luminance is taken relative to the mean of what is painted (B,), so that black things can become yellow.
    """
    luma = (albedo * LUMA[None, :, None, None]).sum(1, keepdim=True) / mean_luma[:, None, None, None]
    factor = luma.clamp(0.02, 1.8) ** 0.6
    painted = (0.93 * colour[:, :, None, None] * factor + 0.07 * albedo).clamp(0, 1)
    return torch.lerp(painted, albedo, kept(albedo, rule))


def compose(pixels: Tensor, colour: Tensor | None, clay: Tensor, mean_luma: Tensor, rule: Tensor) -> Tensor:
    """Stored views (B, 5, H, W) in [0, 1] to pictures (B, 3, H, W) in [-1, 1] over mid-gray.

    colour (B, 3) with NaN rows where the object keeps its own; clay (B,) bool; mean_luma, rule (B,) as ``paint_rule`` has it.
    """
    cover = pixels[:, 3:4]
    albedo = pixels[:, :3] / cover.clamp_min(1 / 255)
    if colour is not None:
        painted = tint(albedo, colour.nan_to_num(), mean_luma, rule)
        albedo = torch.where(colour.isnan().any(1)[:, None, None, None], albedo, painted)
    albedo = torch.where(clay[:, None, None, None], torch.full_like(albedo, CLAY_ALBEDO), albedo)
    shaded = albedo.clamp(0, 1) * pixels[:, 4:5]  # the shading is already multiplied by the coverage
    return (shaded + (1 - cover) * BACKGROUND) * 2 - 1


class Data:
    """All drawn views in memory; ``batch`` draws a random one."""

    def __init__(self, folder: Path, hold_out: bool = True):
        self.names = list(MODELS)
        pixels: list[NDArray[np.uint8]] = []
        cameras: list[NDArray[np.float32]] = []
        self.span: dict[str, tuple[int, int]] = {}
        total = 0
        for name in self.names:
            first = total
            for path in sorted(folder.glob(f"{name.replace(' ', '_')}.[0-9]*.npz")):
                with np.load(path) as stored:
                    pixels.append(stored["pixels"])
                    cameras.append(stored["cameras"])
                total += len(cameras[-1])
            self.span[name] = (first, total)
        self.names = [name for name in self.names if self.span[name][1] > self.span[name][0]]
        self.pixels, self.cameras = np.concatenate(pixels), np.concatenate(cameras)
        self.side = [view_words(a, e, VIEW) for a, e, _ in self.cameras.tolist()]
        self.same_side = {
            name: {
                side: np.array([k for k in range(*self.span[name]) if self.side[k] == side]) for side in set(self.side)
            }
            for name in self.names
        }
        self.paint = {name: rule_of(self.pixels[slice(*self.span[name])][:RULE_VIEWS]) for name in self.names}
        table = folder / "captions.safetensors"
        if not table.exists():
            build(table)
        self.captions = CaptionTable(table)
        self.hold_out = hold_out

    def look(self, name: str, rng: np.random.Generator) -> str:
        """Plain, clay or a colour that is not held out for this name."""
        u = rng.random()
        if u < CLAY_SHARE:
            return CLAY
        if u > CLAY_SHARE + COLOURED_SHARE:
            return PLAIN
        while True:
            colour = str(rng.choice(list(COLOURS)))
            if not (self.hold_out and held_out(name, colour)):
                return colour

    def batch(self, size: int, rng: np.random.Generator, views: int = 1) -> Batch:
        """A random batch of ``size`` captions, each with as many pictures that it is true of; those follow one another.

        The words, things and looks have ``size`` rows then, the rest ``size * views``.
        """
        items, told = [], rng.random(size) >= WITHOUT_CAMERA
        for has_camera in told.tolist():
            name = self.names[rng.integers(len(self.names))]
            look, first = self.look(name, rng), int(rng.integers(*self.span[name]))
            say = rng.random() < VIEW_WORD_SHARE[has_camera]
            same = self.same_side[name][self.side[first]] if say else np.arange(*self.span[name])
            items += [(name, look, int(k), say) for k in (first, *rng.choice(same, views - 1))]
        batch = self.make(items, rng)
        return replace(
            batch,
            tokens=batch.tokens[::views],
            mask=batch.mask[::views],
            thing=batch.thing[::views],
            look=batch.look[::views],
            has_camera=torch.from_numpy(told.repeat(views)),
        )

    def make(self, items: list[tuple[str, str, int, bool]], rng: np.random.Generator | None) -> Batch:
        """The batch of given (name, look, view number, say the view) items."""
        rows, colours = [], []
        cameras = torch.from_numpy(self.cameras[[i[2] for i in items]])
        for (name, look, _, say), (azimuth, elevation, _distance) in zip(items, cameras.tolist(), strict=True):
            rows.append(self.captions.row(name, look, view_words(azimuth, elevation, VIEW) if say else "", rng))
            colours.append(COLOURS.get(look, (float("nan"),) * 3))
        pixels = torch.from_numpy(self.pixels[[i[2] for i in items]]).float() / 255
        rule, luma = (torch.tensor(x) for x in zip(*(self.paint[i[0]] for i in items), strict=True))
        clay = torch.tensor([i[1] == CLAY for i in items])
        pictures = compose(pixels, torch.tensor(colours), clay, luma.clamp_min(0.01), rule)
        tokens, mask = self.captions.gather(rows)
        camera = torch.cat([torch.deg2rad(cameras[:, :2]), cameras[:, 2:]], 1)
        return Batch(
            pictures, pixels[:, 3:4], tokens, mask, camera, torch.ones(len(items), dtype=torch.bool),
            torch.tensor([list(MODELS).index(i[0]) for i in items]), torch.tensor([LOOKS.index(i[1]) for i in items]),
        )  # fmt: skip
