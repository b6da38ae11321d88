"""A reference picture: read from a file, cut out of its background, and put into the middle of a frame."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from .errors import UserError

LARGEST = 64_000_000
"""Most pixels of a picture."""
FORMATS = ("PNG", "JPEG", "WEBP")
SIDE = 128
FILL = 0.8
"""How much of the frame the longer side takes."""
PLAIN, DIFFERENT = 0.10, 0.12
"""A border whose colours differ less is a plain background; what differs more from it is the object."""
SMALLEST = 0.004
"""Less of the picture than this is nothing."""


def read_reference(path: str | Path) -> Tensor:
    """The object of a picture file, (4, 128, 128): colours over mid-gray in [0, 1], and the coverage. The object is what is not
    transparent; a picture without transparency needs a plain background, which is cut away.

    UserError if the file is no picture, too large or empty, or if no object can be told from the background.
    """
    path = Path(path).expanduser()
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as opened,
        ):
            if opened.format not in FORMATS:
                raise UserError(f"{path} is a {opened.format} file; a reference picture is PNG, JPEG or WebP")
            if opened.width * opened.height > LARGEST:
                raise UserError(
                    f"{path} has {opened.width} x {opened.height} pixels; at most {LARGEST // 10**6} million"
                )
            picture = opened.convert("RGBA")
    except Image.DecompressionBombError:
        raise UserError(f"{path} is too large; at most {LARGEST // 10**6} million pixels") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no picture, or damaged"
        raise UserError(f"cannot read the reference picture {path}: {reason}") from None
    picture.thumbnail((512, 512), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, np.float32) / 255
    cover = pixels[..., 3] if pixels[..., 3].min() < 0.9 else without_background(pixels[..., :3], path)
    if cover.mean() < SMALLEST:
        raise UserError(f"{path} shows nothing: all of it is transparent or background")
    return in_frame(pixels[..., :3], cover)


def without_background(colours: np.ndarray, path: Path) -> np.ndarray:
    """The coverage (H, W) of what stands in front of a plain background, of colours (H, W, 3)."""
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    background = np.median(border, axis=0)
    if np.quantile(np.abs(border - background).max(1), 0.9) > PLAIN:
        raise UserError(f"{path} has no transparency and no plain background; cut the object out first")
    away = np.abs(colours - background).max(2)
    inside = ndimage.binary_fill_holes(ndimage.binary_opening(away > DIFFERENT))
    parts, count = ndimage.label(inside)
    if count > 1:  # specks and shadows go; parts that are a tenth of the largest stay
        sizes = ndimage.sum_labels(inside, parts, range(1, count + 1))
        inside = np.isin(parts, 1 + np.flatnonzero(sizes > 0.1 * sizes.max()))
    return inside.astype(np.float32)


def in_frame(colours: np.ndarray, cover: np.ndarray) -> Tensor:
    """The object of colours (H, W, 3) and coverage (H, W) in the middle of a square frame, over mid-gray, (4, 128, 128)."""
    rows, columns = np.flatnonzero((cover > 0.5).any(1)), np.flatnonzero((cover > 0.5).any(0))
    if not len(rows):
        rows, columns = np.arange(cover.shape[0]), np.arange(cover.shape[1])
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    middle = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    both = torch.from_numpy(np.concatenate([colours * cover[..., None], cover[..., None]], 2)).permute(2, 0, 1)
    half = side / FILL / 2
    height, width = cover.shape
    theta = torch.tensor([
        [2 * half / width, 0, 2 * middle[1] / width - 1], [0, 2 * half / height, 2 * middle[0] / height - 1]
    ], dtype=torch.float32)  # fmt: skip
    grid = torch.nn.functional.affine_grid(theta[None], [1, 4, 4 * SIDE, 4 * SIDE], align_corners=False)
    large = torch.nn.functional.grid_sample(both[None].float(), grid, align_corners=False)
    small = torch.nn.functional.avg_pool2d(large, 4)[0]
    return torch.cat([small[:3] + (1 - small[3:]) * 0.5, small[3:]])
