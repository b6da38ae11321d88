"""An asset as files. GLB, OBJ, PLY, USDZ: on the ground, Y up, front towards +Z, in metres. STL and 3MF: see ``printing``."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

from ..errors import UserError, nearest
from ..files import write_files
from ..geometry.export_settings import ExportSettings
from ..geometry.hull import convex_hull
from ..geometry.mesh import Floats, Mesh
from ..reports import report
from . import glb, usdz
from .glb import normal_jpeg, occlusion_jpeg, png_bytes
from .lods import levels_of_detail
from .printing import printable, threemf
from .relief import Dense, Relief, bake_relief
from .texture import Picture, vertex_colours

ROUGHNESS = 0.9


@dataclass(frozen=True)
class FileOptions:
    """height: of the object, in metres; height_mm: in files for printing, in millimetres; flat_base: press the lowest part of
    what is printed flat; compress: smaller files that fewer programs read; like: place a coarser mesh as this one, whose size
    differs a little; finish: roughness and metal (``Asset.finish``), in GLB, OBJ and USDZ files."""

    height: float = 1.0
    height_mm: float = 100.0
    flat_base: bool = False
    compress: bool = False
    like: Mesh | None = None
    finish: Picture | None = None


def placement(mesh: Mesh, height: float = 1.0, longest: float = 3.0, like: Mesh | None = None) -> tuple[Floats, float]:
    """Where a mesh stands: the point (3,) that is put at the origin, and the scale. The mesh then stands on y = 0, centred in x
    and z, ``height`` metres tall; a flat object is made no longer than ``longest`` heights. With ``like`` the mesh is moved
    and scaled as that one is."""
    measured = (like or mesh).vertices
    low, high = measured.min(0), measured.max(0)
    size = np.maximum(high - low, 1e-9)
    foot = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return foot, float(height * min(1 / size[1], longest / size.max()))


def place(mesh: Mesh, height: float = 1.0, longest: float = 3.0, like: Mesh | None = None) -> Mesh:
    """The mesh at its ``placement``."""
    foot, scale = placement(mesh, height, longest, like)
    return replace(mesh, vertices=(mesh.vertices - foot) * scale)


def _body(mesh: Mesh, **visual: Any) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False, **visual)


def _glb(
    path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any], options: FileOptions, relief: Relief
) -> dict[Path, bytes]:
    name = details["prompt"] or path.stem
    placed = place(mesh, options.height, like=options.like)
    return {path: glb.write(placed, texture, details, name, ROUGHNESS, options.compress, relief, options.finish)}


def plain_stem(path: Path) -> str:
    """The name of an OBJ's material and texture files. Names inside the files may hold no blanks; where one is changed, a
    piece of its hash keeps 'chair 1.obj' and 'chair_1.obj' apart."""
    plain = re.sub(r"[^\w.-]+", "_", path.stem)
    if plain == path.stem and path.suffix == ".obj":
        return plain
    return f"{plain}-{hashlib.sha256(path.name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _obj(
    path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any], options: FileOptions, relief: Relief
) -> dict[Path, bytes]:
    stem = plain_stem(path)
    image = Image.open(io.BytesIO(png_bytes(texture)))
    white, black = [255, 255, 255, 255], [0, 0, 0, 255]
    material = SimpleMaterial(name=stem, image=image, diffuse=white, ambient=black, specular=black, glossiness=1)
    body = _body(place(mesh, options.height, like=options.like), visual=TextureVisuals(uv=mesh.uv, material=material))
    header = " ".join(details["prompt"].split()) or "dreamfusion"
    text, others = export_obj(
        body, include_normals=True, return_texture=True, mtl_name=f"{stem}.mtl", header=header, write_texture=False
    )
    files = {path.parent / k: bytes(v) for k, v in others.items()}
    pictures, lines = material_maps(stem, relief, options.finish)
    files |= {path.parent / name: png_bytes(picture) for name, picture in pictures.items()}
    files[path.parent / f"{stem}.mtl"] += "".join(f"{line}\n" for line in ("", *lines)).encode()
    return {**files, path: text.replace("\nf ", "\ns 1\nf ", 1).encode()}  # s 1: smooth


def material_maps(stem: str, relief: Relief, finish: Picture | None) -> tuple[dict[str, Picture], list[str]]:
    """The pictures beside an OBJ other than its colours, by their names, and the lines that its material says of them.

    Roughness is ``Pr`` and metal ``Pm``, as in the extension of MTL for physically based rendering that Blender reads. Readers
    multiply ``map_Pr`` and ``map_Pm`` by these, or take the maps alone, so they are 1 beside a map.
    """
    pictures: dict[str, Picture] = {}
    lines = [f"Pr {ROUGHNESS}", "Pm 0"]
    if finish is not None:
        roughness, metal = f"{stem}-roughness.png", f"{stem}-metal.png"
        pictures |= {roughness: finish[..., 1], metal: finish[..., 2]}
        lines = ["Pr 1", f"map_Pr {roughness}", "Pm 1", f"map_Pm {metal}"]
    if relief.normals is not None:
        pictures[name := f"{stem}-normals.png"] = relief.normals
        lines += [f"map_Bump {name}", f"norm {name}"]  # Blender reads the first as a normal map, others the second
    if relief.occlusion is not None:
        pictures[name := f"{stem}-occlusion.png"] = relief.occlusion
        lines.append(f"# ambient occlusion, for which MTL has no word: {name}")
    return pictures, lines


def _ply(
    path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any], options: FileOptions, relief: Relief
) -> dict[Path, bytes]:
    welded, colours = vertex_colours(place(mesh, options.height, like=options.like), texture)
    return {path: export_ply(_body(welded, vertex_colors=colours), vertex_normal=True)}


def _stl(
    path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any], options: FileOptions, relief: Relief
) -> dict[Path, bytes]:
    return {path: export_stl(_body(_printed(mesh, options)))}


def _threemf(
    path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any], options: FileOptions, relief: Relief
) -> dict[Path, bytes]:
    return {path: threemf(_printed(mesh, options), details["prompt"])}


def _printed(mesh: Mesh, options: FileOptions) -> Mesh:
    return printable(place(mesh, options.height_mm / 1000, like=options.like), options.flat_base)


def _usdz(
    path: Path, mesh: Mesh, texture: Picture, details: dict[str, Any], options: FileOptions, relief: Relief
) -> dict[Path, bytes]:
    placed = place(mesh, options.height, like=options.like)
    maps = {} if options.finish is None else {usdz.FINISH: png_bytes(options.finish)}
    maps |= {} if relief.normals is None else {usdz.NORMALS: normal_jpeg(relief.normals)}
    maps |= {} if relief.occlusion is None else {usdz.OCCLUSION: occlusion_jpeg(relief.occlusion)}
    return {path: usdz.write(placed, png_bytes(texture), details["prompt"], ROUGHNESS, options.compress, maps)}


Writer = Callable[[Path, Mesh, Picture, dict[str, Any], FileOptions, Relief], dict[Path, bytes]]
FORMATS: dict[str, Writer] = {"glb": _glb, "obj": _obj, "ply": _ply, "stl": _stl, "3mf": _threemf, "usdz": _usdz}
PRINTED = ("stl", "3mf")
"""Formats for printing: in millimetres, Z up, without colours."""
COMPRESSED = {"glb": ("DracoPy", "DracoPy"), "usdz": ("pxr", "usd-core")}
"""Formats that ``FileOptions.compress`` makes smaller: the module that does it, and its package."""


def check_compression(kinds: Iterable[str]) -> None:
    """UserError if a package is missing that would compress one of these formats. Formats that nothing compresses pass."""
    for kind in sorted(set(kinds) & set(COMPRESSED)):
        module, package = COMPRESSED[kind]
        if find_spec(module) is None:
            raise UserError(f"--compress needs {package} for {kind} (pip install 'dreamfusion[compress]')")


def check_format(path: Path) -> Writer:
    """The writer for a file's suffix. UserError for an unknown suffix."""
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        said = f"{path.suffix!r}" if kind else "a name without a suffix"
        raise UserError(f"cannot write {path.name}: {said} is no known format{nearest(kind, FORMATS)}")
    return FORMATS[kind]


def write_asset(
    path: Path,
    mesh: Mesh,
    texture: Picture,
    prompt: str,
    metadata: Mapping[str, Any],
    options: FileOptions | None = None,
    relief: Relief | None = None,
) -> list[Path]:
    """Write a mesh with normals and uv in the format of the path's suffix; the files written."""
    report(f"writing {path.name}", 0, 1)
    write = check_format(path)
    files = write(path, mesh, texture, {"prompt": prompt, **metadata}, options or FileOptions(), relief or Relief())
    write_files(files)
    return list(files)


def write_lods(
    path: Path,
    mesh: Mesh,
    texture: Picture,
    count: int,
    prompt: str,
    options: FileOptions | None = None,
    dense: Dense | None = None,
    settings: ExportSettings | None = None,
) -> list[tuple[int, list[Path]]]:
    """Write up to ``count`` coarser versions of a mesh beside it, NAME_lod1, NAME_lod2 …, placed as the asset itself is; the
    triangles of each, and its files. With a dense surface each has maps of it, as the settings say; with a finish among the
    options each has its own.
    """
    options, settings = replace(options or FileOptions(), like=mesh), settings or ExportSettings()
    written = []
    levels = levels_of_detail(mesh, texture, count, settings.unwrap_seconds, options.finish)
    for k, (coarse, picture, finish) in enumerate(levels, 1):
        relief = bake_relief(coarse, dense, len(picture), settings.maps) if dense is not None else None
        own = replace(options, finish=finish)
        files = write_asset(lod_path(path, k), coarse, picture, prompt, {"lod": k}, own, relief)
        written.append((len(coarse.faces), files))
    return written


def lod_path(path: Path, level: int) -> Path:
    """The file of a level of detail, beside that of the asset."""
    return path.with_name(f"{path.stem}_lod{level}{path.suffix}")


def write_collider(path: Path, mesh: Mesh, options: FileOptions | None = None) -> Path:
    """Write the convex hull of a mesh as a GLB of at most ``hull.HULL_FACES`` triangles, placed as the asset itself is."""
    hull = convex_hull(place(mesh, (options or FileOptions()).height))
    write_files({path: glb.write(hull, None, {}, "collider", ROUGHNESS, False)})
    return path
