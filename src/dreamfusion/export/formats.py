"""An asset as files: GLB, OBJ, PLY, STL, USDZ. All stand on the ground, Y up, front towards +Z, in metres."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from ..errors import UserError, nearest
from ..files import write_files
from ..geometry.mesh import Mesh
from ..reports import report
from . import usdz
from .texture import Picture, vertex_colours

ROUGHNESS = 0.9
METADATA = "dreamfusion"
"""Key of an asset's prompt and metadata in a GLB's ``asset.extras`` and ``scene.extras``."""


def place(mesh: Mesh, height: float = 1.0, longest: float = 3.0) -> Mesh:
    """Stand the mesh on y = 0, centred in x and z, ``height`` metres tall; a flat object is made no longer than
    ``longest``."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    size = np.maximum(high - low, 1e-9)
    scale = min(height / size[1], longest / size.max())
    foot = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return replace(mesh, vertices=(mesh.vertices - foot) * scale)


def png_bytes(picture: Picture) -> bytes:
    """A picture (H, W, 3) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _body(mesh: Mesh, **visual: Any) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False, **visual)


def _glb(path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any]) -> dict[Path, bytes]:
    name = details["prompt"] or path.stem
    image = Image.open(io.BytesIO(png_bytes(texture)))  # an image that knows its format is stored in that format
    material = PBRMaterial(name="material", baseColorTexture=image, metallicFactor=0.0, roughnessFactor=ROUGHNESS)
    body = _body(mesh, visual=TextureVisuals(uv=mesh.uv, material=material))
    scene = trimesh.Scene()
    scene.add_geometry(body, node_name=name, geom_name=name)

    def annotate(tree: dict[str, Any]) -> None:
        tree["asset"]["generator"] = "dreamfusion"
        tree["asset"]["extras"] = {METADATA: details}
        tree["scenes"][0].setdefault("extras", {})[METADATA] = details
        tree["scenes"][0]["name"] = name

    data = scene.export(file_type="glb", include_normals=True, tree_postprocessor=annotate)
    return {path: bytes(data)}


def plain_stem(path: Path) -> str:
    """The name of an OBJ's material and texture files. Names inside the files may hold no blanks; where one is changed, a
    piece of its hash keeps 'chair 1.obj' and 'chair_1.obj' apart."""
    plain = re.sub(r"[^\w.-]+", "_", path.stem)
    if plain == path.stem and path.suffix == ".obj":
        return plain
    return f"{plain}-{hashlib.sha256(path.name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _obj(path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any]) -> dict[Path, bytes]:
    stem = plain_stem(path)
    image = Image.open(io.BytesIO(png_bytes(texture)))
    white, black = [255, 255, 255, 255], [0, 0, 0, 255]
    material = SimpleMaterial(name=stem, image=image, diffuse=white, ambient=black, specular=black, glossiness=1)
    body = _body(mesh, visual=TextureVisuals(uv=mesh.uv, material=material))
    header = " ".join(details["prompt"].split()) or "dreamfusion"
    text, others = export_obj(
        body, include_normals=True, return_texture=True, mtl_name=f"{stem}.mtl", header=header, write_texture=False
    )
    return {**{path.parent / k: bytes(v) for k, v in others.items()}, path: text.encode()}


def _ply(path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any]) -> dict[Path, bytes]:
    welded, colours = vertex_colours(mesh, texture)
    return {path: export_ply(_body(welded, vertex_colors=colours), vertex_normal=True)}


def _stl(path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any]) -> dict[Path, bytes]:
    return {path: export_stl(_body(mesh))}


def _usdz(path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any]) -> dict[Path, bytes]:
    return {path: usdz.write(mesh, png_bytes(texture), details["prompt"], ROUGHNESS)}


Writer = Callable[[Path, Mesh, Picture, dict[str, Any]], dict[Path, bytes]]
FORMATS: dict[str, Writer] = {"glb": _glb, "obj": _obj, "ply": _ply, "stl": _stl, "usdz": _usdz}


def check_format(path: Path) -> Writer:
    """The writer for a file's suffix. UserError for an unknown suffix."""
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        said = f"{path.suffix!r}" if kind else "a name without a suffix"
        raise UserError(f"cannot write {path.name}: {said} is no known format{nearest(kind, FORMATS)}")
    return FORMATS[kind]


def write_asset(path: Path, mesh: Mesh, texture: Picture, prompt: str, metadata: Mapping[str, Any]) -> list[Path]:
    """Write a mesh with normals and uv, placed by ``place``, in the format of the path's suffix; the files written."""
    report(f"writing {path.name}", 0, 1)
    files = check_format(path)(path, place(mesh), texture, {"prompt": prompt, **metadata})
    write_files(files)
    return list(files)
