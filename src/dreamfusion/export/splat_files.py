"""Splats as files: the .ply of 3D Gaussian splatting, and GLB with KHR_gaussian_splatting. N splats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import write_files
from ..geometry.mesh import Floats, Mesh
from ..geometry.splat_file import SplatData
from ..scene.harmonics import FLAT
from .formats import placement
from .glb import METADATA, VERTICES, Binary, container

EXTENSION = "KHR_gaussian_splatting"
SUFFIXES = (".ply", ".glb")


def write_splats(stem: Path, held: SplatData, mesh: Mesh, details: dict[str, Any], height: float = 1.0) -> list[Path]:
    """Write STEM.ply, in the scene's own unit, and STEM.glb, where the asset's mesh stands that is ``height`` metres tall."""
    foot, scale = placement(mesh, height)
    files = {stem.with_suffix(".ply"): ply(held), stem.with_suffix(".glb"): glb(held, foot, scale, details, stem.name)}
    write_files(files)
    return list(files)


def ply(held: SplatData) -> bytes:
    """The file that viewers of 3D Gaussian splatting read (Kerbl et al. 2023): log scales, logits of opacities, quaternions with
    w first; f_rest holds all coefficients of red, then those of green, then those of blue."""
    count = len(held.centres)
    rest = held.harmonics[:, 1:].transpose(0, 2, 1).reshape(count, -1)
    columns = {
        "": (["x", "y", "z"], held.centres), "n": (["nx", "ny", "nz"], np.zeros((count, 3))),
        "dc": (_names("f_dc", 3), held.harmonics[:, 0]), "rest": (_names("f_rest", rest.shape[1]), rest),
        "opacity": (["opacity"], held.logits[:, None]), "scale": (_names("scale", 3), held.log_scales),
        "rot": (_names("rot", 4), held.rotations),
    }  # fmt: skip
    names = [name for some, _ in columns.values() for name in some]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    head += [f"property float {name}" for name in names] + ["end_header", ""]
    return "\n".join(head).encode() + np.concatenate([v for _, v in columns.values()], 1).astype("<f4").tobytes()


def _names(name: str, count: int) -> list[str]:
    return [f"{name}_{k}" for k in range(count)]


def attributes(held: SplatData, foot: Floats, scale: float) -> dict[str, NDArray[np.float32]]:
    """The attributes of a primitive of KHR_gaussian_splatting, for splats that are moved by -foot and then scaled.

    Scales and opacities are plain, quaternions of unit length with w last, coefficients of degree l and order m in
    SH_DEGREE_l_COEF_(l + m). COLOR_0 is for viewers that know no splats and draw points: linear, with the opacity.
    """
    rotations = held.rotations / np.linalg.norm(held.rotations, axis=1, keepdims=True)
    opacity = 1 / (1 + np.exp(-held.logits.astype(np.float64)))
    made: dict[str, Any] = {
        "POSITION": (held.centres - foot) * scale,
        "COLOR_0": np.concatenate([linear(np.clip(0.5 + FLAT * held.harmonics[:, 0], 0, 1)), opacity[:, None]], 1),
        f"{EXTENSION}:ROTATION": rotations[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": np.exp(held.log_scales) * scale,
        f"{EXTENSION}:OPACITY": opacity,
    }
    for degree in range(round(held.harmonics.shape[1] ** 0.5)):
        for k in range(2 * degree + 1):
            made[f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{k}"] = held.harmonics[:, degree**2 + k]
    return {name: np.ascontiguousarray(values, "<f4") for name, values in made.items()}


def linear(colours: NDArray[Any]) -> NDArray[Any]:
    """sRGB to linear light (IEC 61966-2-1)."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def glb(held: SplatData, foot: Floats, scale: float, details: Mapping[str, Any], name: str) -> bytes:
    """The GLB file: a point primitive with the extension KHR_gaussian_splatting, kernel 'ellipse'."""
    binary = Binary()
    kinds = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
    primitive = {
        "mode": 0,
        "attributes": {
            key: binary.accessor(rows, kinds[rows[0].size], VERTICES, bounds=key == "POSITION")
            for key, rows in attributes(held, foot, scale).items()
        },
        "extensions": {
            EXTENSION: {
                "kernel": "ellipse",
                "colorSpace": "srgb_rec709_display",
                "projection": "perspective",
                "sortingMethod": "cameraDistance",
            }
        },
    }
    extras = {"extras": {METADATA: dict(details)}}
    tree = {
        "asset": {"version": "2.0", "generator": "dreamfusion", **extras},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0], **extras}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "bufferViews": binary.views,
        "accessors": binary.accessors,
        "buffers": [{"byteLength": len(binary.data)}],
    }
    return container(tree, bytes(binary.data))
