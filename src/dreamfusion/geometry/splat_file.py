"""Splats and points from .ply files that users bring. N splats or points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..paths import readable, user_path
from .mesh_file import FILLS, LARGEST

Floats32 = NDArray[np.float32]
MOST = 1_000_000
"""Splats that are taken."""
TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
FORMATS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
REST = (0, 9, 24, 45)
"""Numbers of coefficients beside f_dc: of degree 0, 1, 2 and 3."""
OTHERS = {
    ".splat": "antimatter15's format", ".ksplat": "mkkellogg's format", ".spz": "Niantic's format", ".sog": "PlayCanvas's format",
}  # fmt: skip
HEADER = 1 << 16  # bytes in which a header ends
MIDDLE = 0.98
"""Share of the splats, along each axis, that is put into the unit sphere if not all are in it; the others are left out."""
FEW = 101
"""With fewer splats none is left out: so few have no strays to tell, and the middle share would cut off their own ends."""


@dataclass(frozen=True)
class SplatData:
    """centres, log_scales (N, 3); rotations (N, 4), w first; logits (N,) of the opacities; harmonics (N, K, 3)."""

    centres: Floats32
    log_scales: Floats32
    rotations: Floats32
    logits: Floats32
    harmonics: Floats32


@dataclass(frozen=True)
class PointCloud:
    """centres (N, 3) and colours (N, 3) in [0, 1]; gray if the file has none."""

    centres: Floats32
    colours: Floats32


def is_cloud(path: str | Path) -> bool:
    """Whether a file is read by ``read_cloud`` and not as a mesh: a .ply without faces, or another format of splats."""
    path = user_path(path)
    suffix = path.suffix.lower()
    if suffix != ".ply":
        return suffix in OTHERS
    with readable(path), path.open("rb") as file:
        head = file.read(HEADER).partition(b"end_header")[0]
    return b"element face" not in head or b"element face 0" in head


def read_cloud(path: str | Path) -> SplatData | PointCloud:
    """The splats or points of a .ply file. What does not lie in the unit sphere is moved and scaled into it. UserError, in one
    line, if that is not possible."""
    path = user_path(path)
    if (suffix := path.suffix.lower()) in OTHERS:
        raise UserError(f"{path}: {OTHERS[suffix]} cannot be read; save the splats as a .ply of 3D Gaussian splatting")
    with readable(path), path.open("rb") as file:
        if file.seek(0, 2) > LARGEST:
            raise UserError(
                f"{path} is larger than {LARGEST / 2**30:.0f} GiB; prune the splats to at most {MOST:,} first"
            )
        file.seek(0)
        rows = vertices(file.read(), path)
    names = rows.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise UserError(f"{path} has no places: its vertices lack x, y and z")
    centres = columns(rows, ("x", "y", "z"))
    made = splats_of(rows, centres, path) if "f_dc_0" in names else PointCloud(centres, colours_of(rows))
    if not all(np.isfinite(value).all() for value in vars(made).values()):
        raise UserError(f"{path} is damaged: it has values that are not numbers")
    return within(made)


def columns(rows: Any, names: Sequence[str]) -> Floats32:
    """Some properties of all rows as one array (N, …)."""
    return np.stack([rows[name].astype(np.float32) for name in names], -1)


def splats_of(rows: Any, centres: Floats32, path: Path) -> SplatData:
    """The splats of a file of 3D Gaussian splatting, as its authors' program writes them."""
    rest = sum(name.startswith("f_rest_") for name in rows.dtype.names)
    names = {
        "scale": [f"scale_{k}" for k in range(3)], "rot": [f"rot_{k}" for k in range(4)], "opacity": ["opacity"],
        "dc": [f"f_dc_{k}" for k in range(3)], "rest": [f"f_rest_{k}" for k in range(rest)],
    }  # fmt: skip
    missing = [name for some in names.values() for name in some if name not in rows.dtype.names]
    if missing:
        raise UserError(f"{path} is not a .ply of 3D Gaussian splatting: its vertices lack {', '.join(missing[:4])}")
    if rest not in REST:
        raise UserError(f"{path} has {rest} f_rest values; degrees 0 to 3 have {', '.join(map(str, REST))}")
    higher = columns(rows, names["rest"]).reshape(len(rows), 3, -1) if rest else np.zeros((len(rows), 3, 0), np.float32)
    harmonics = np.concatenate([columns(rows, names["dc"])[:, :, None], higher], 2).transpose(0, 2, 1)
    rotations = columns(rows, names["rot"])
    if (np.linalg.norm(rotations, axis=1) == 0).any():
        raise UserError(f"{path} is damaged: it has rotations of length 0")
    scales, logits = columns(rows, names["scale"]), columns(rows, names["opacity"])[:, 0]
    if scales.min() >= 0 and logits.min() >= 0 and logits.max() <= 1:
        raise UserError(
            f"{path} holds plain scales and opacities; a .ply of 3D Gaussian splatting has their log and logit"
        )
    return SplatData(centres, scales, rotations, logits, np.ascontiguousarray(harmonics))


def colours_of(rows: Any) -> Floats32:
    """Colours (N, 3) of points, in bytes or in numbers up to 1; gray without any."""
    names = ("red", "green", "blue")
    if not set(names) <= set(rows.dtype.names):
        return np.full((len(rows), 3), 0.5, np.float32)
    whole = np.issubdtype(rows["red"].dtype, np.integer)
    return np.clip(columns(rows, names) / (np.iinfo(rows["red"].dtype).max if whole else 1), 0, 1)


def within(held: SplatData | PointCloud) -> SplatData | PointCloud:
    """The same inside the unit sphere: unchanged if it is there, else the middle ``MIDDLE`` of it as large as ``FILLS``. What is
    all at one place has no size to go by, and is only moved."""
    if np.linalg.norm(held.centres, axis=1).max() <= 1:
        return held
    few = len(held.centres) < FEW
    share = 1.0 if few else MIDDLE
    low, high = np.quantile(held.centres, [(1 - share) / 2, (1 + share) / 2], axis=0)
    centres = held.centres - (low + high) / 2
    inside = (np.abs(centres) <= (high - low) / 2 + 1e-6).all(1) | few
    farthest = float(np.linalg.norm(centres[inside], axis=1).max())
    scale = FILLS / farthest if farthest else 1.0
    some = type(held)(**{name: value[inside] for name, value in vars(held).items()})
    some = replace(some, centres=(centres[inside] * scale).astype(np.float32))
    if isinstance(some, SplatData):
        some = replace(some, log_scales=some.log_scales + np.float32(math.log(scale)))
    return some


def vertices(data: bytes, path: Path) -> Any:
    """The vertices of a .ply file as an array with named fields. UserError for what is no such file."""
    head, mark, body = data.partition(b"end_header")
    lines = head.decode("ascii", "replace").split("\n")
    if not data.startswith(b"ply") or not mark:
        raise UserError(f"{path} is not a PLY file" if data else f"{path} is empty")
    body = body.partition(b"\n")[2]
    words = [line.split() for line in lines if line.strip()]
    order = next((FORMATS.get(w[1]) for w in words if w[0] == "format" and len(w) > 1), None)
    elements = [(w[1], int(w[2])) for w in words if w[0] == "element" and len(w) == 3 and w[2].isdigit()]
    if order is None or not elements:
        raise UserError(f"{path} is not a PLY file: its header names no format or no elements")
    if elements[0][0] != "vertex":
        packed = "; it is a compressed one of SuperSplat, save it uncompressed" if elements[0][0] == "chunk" else ""
        raise UserError(f"{path} does not begin with its vertices{packed}")
    count, start = elements[0][1], next(k for k, w in enumerate(words) if w[0] == "element")
    properties = []
    for w in words[start + 1 :]:
        if w[0] == "element":
            break
        if w[0] == "property":
            if len(w) != 3 or w[1] not in TYPES:
                raise UserError(f"{path} has vertices with {' '.join(w[1:])}, which no splats have")
            properties.append((w[2], (order or "<") + TYPES[w[1]]))
    if count == 0:
        raise UserError(f"{path} holds no splats and no points")
    if count > MOST:
        raise UserError(f"{path} has {count:,} splats; prune them to at most {MOST:,} first")
    try:
        kind = np.dtype(properties)
    except ValueError:
        raise UserError(f"{path} names a property of its vertices twice") from None
    if order == "":
        return _from_text(body, kind, count, path)
    if len(body) < count * kind.itemsize:
        raise UserError(
            f"{path} is truncated: it holds {len(body):,} bytes of vertices, expected {count * kind.itemsize:,}"
        )
    return np.frombuffer(body, kind, count)


def _from_text(body: bytes, kind: np.dtype[Any], count: int, path: Path) -> Any:
    try:
        table = np.loadtxt(body.decode("ascii", "replace").splitlines()[:count], np.float64, ndmin=2)
    except ValueError:
        raise UserError(f"{path} is damaged: its vertices are not numbers") from None
    if table.shape != (count, len(kind.names or ())):
        raise UserError(f"{path} is truncated: it holds {len(table):,} whole vertices, expected {count:,}")
    rows = np.empty(count, kind)
    for k, name in enumerate(kind.names or ()):
        rows[name] = table[:, k]
    return rows
