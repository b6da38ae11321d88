"""GLB files: one node, one mesh, one material, in one binary (glTF 2.0).

Compressed files use KHR_draco_mesh_compression (DracoPy), EXT_texture_webp (Pillow) and, for tangents, KHR_mesh_quantization.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UserError
from ..geometry.mesh import Mesh
from .relief import Relief
from .tangents import tangents
from .texture import Picture

METADATA = "dreamfusion"
"""Key of an asset's prompt and metadata in a GLB's ``extras``: of the asset, scene, node and mesh."""
VERTICES, INDICES = 34962, 34963  # targets of buffer views
CLAMP, LINEAR, MIPMAPS = 33071, 9729, 9987
DRACO, WEBP, QUANTIZED = "KHR_draco_mesh_compression", "EXT_texture_webp", "KHR_mesh_quantization"
POSITION_BITS, UV_BITS, NORMAL_BITS = 14, 12, 10
WEBP_QUALITY = 90
NORMAL_QUALITY, OCCLUSION_QUALITY = 95, 90
"""Of JPEG: a third of a PNG's bytes, and shading is off by half a step in 255 on average."""


def png_bytes(picture: Picture) -> bytes:
    """A picture (H, W, 3) as a PNG file."""
    return _image_bytes(picture, "PNG")


def normal_jpeg(picture: Picture) -> bytes:
    """A normal map (S, S, 3) as a JPEG file, with all three channels at full resolution."""
    return _image_bytes(picture, "JPEG", quality=NORMAL_QUALITY, subsampling=0)


def occlusion_jpeg(gray: Picture) -> bytes:
    """Ambient occlusion (S, S) as a gray JPEG file: its red is its gray."""
    return _image_bytes(gray, "JPEG", quality=OCCLUSION_QUALITY)


def _image_bytes(picture: Picture, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=kind, **options)
    return buffer.getvalue()


class Binary:
    """The binary chunk of a GLB, and the buffer views and accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, **more: Any) -> int:
        """Append bytes at a multiple of four; the view's number."""
        self.data += bytes(-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data += data
        return len(self.views) - 1

    def accessor(self, values: NDArray[Any], kind: str, target: int, stored: bool = True, bounds: bool = False) -> int:
        """An accessor of rows (N,) or (N, C) of float32, uint16, uint32 or int8, with its data unless it is stored elsewhere. int8
        stands for fractions, -127 to 127 for -1 to 1."""
        component = {"f4": 5126, "u2": 5123, "u4": 5125, "i1": 5120}[values.dtype.str[1:]]
        entry: dict[str, Any] = {"componentType": component, "count": len(values), "type": kind}
        if component == 5120:
            entry["normalized"] = True
        if stored:
            entry["bufferView"] = self.view(values.tobytes(), target=target)
        if bounds:
            entry |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1


def write(
    mesh: Mesh,
    texture: Picture | None,
    details: dict[str, Any],
    name: str,
    roughness: float,
    compress: bool,
    relief: Relief | None = None,
    finish: Picture | None = None,
) -> bytes:
    """The GLB file of a mesh; without a texture it has no material, and without a finish (roughness in green, metal in blue) it
    is matte. Indices have two bytes where that is enough. UserError if it is to be compressed and DracoPy is missing.

    A normal map brings tangents: a program that had to make them could make others than those of the map. In compressed files they
    are bytes beside what Draco packs, for DracoPy would keep all of their 16 bytes.
    """
    binary, extensions = Binary(), []
    attributes: dict[str, NDArray[Any]] = {"POSITION": mesh.vertices.astype("<f4")}
    if mesh.normals is not None:
        attributes["NORMAL"] = unit(mesh.normals)
    if mesh.uv is not None:
        attributes["TEXCOORD_0"] = (mesh.uv * [1, -1] + [0, 1]).astype("<f4")
    bumpy = relief is not None and relief.normals is not None
    if bumpy and not compress:
        attributes["TANGENT"] = tangents(mesh).astype("<f4")
    faces = mesh.faces
    primitive: dict[str, Any] = {"mode": 4}
    if compress:
        packed, attributes, faces, ids = draco(attributes, faces)
        primitive["extensions"] = {DRACO: {"bufferView": binary.view(packed), "attributes": ids}}
        extensions.append(DRACO)
    primitive["attributes"] = {
        key: binary.accessor(rows, f"VEC{rows.shape[1]}", VERTICES, not compress, bounds=key == "POSITION")
        for key, rows in attributes.items()
    }
    if bumpy and compress:
        primitive["attributes"]["TANGENT"] = binary.accessor(byte_tangents(attributes, faces), "VEC4", VERTICES)
        extensions.append(QUANTIZED)
    small = len(attributes["POSITION"]) < 2**16  # 65535 itself would restart a strip
    indices = faces.ravel().astype("<u2" if small else "<u4")
    primitive["indices"] = binary.accessor(indices, "SCALAR", INDICES, not compress)
    extras = {"extras": {METADATA: details}}
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "dreamfusion", **extras},
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0], **extras}],
        "nodes": [{"name": name, "mesh": 0, **extras}],
        "meshes": [{"name": name, "primitives": [primitive], **extras}],
    }
    if texture is not None:
        primitive["material"] = 0
        tree |= textured(binary, texture, name, roughness, compress, relief or Relief(), finish)
        if compress:
            extensions.append(WEBP)
    if extensions:
        tree |= {"extensionsUsed": extensions, "extensionsRequired": extensions}
    binary.data += bytes(-len(binary.data) % 4)
    tree |= {"bufferViews": binary.views, "accessors": binary.accessors, "buffers": [{"byteLength": len(binary.data)}]}
    return container(tree, bytes(binary.data))


def textured(
    binary: Binary,
    texture: Picture,
    name: str,
    roughness: float,
    compress: bool,
    relief: Relief,
    finish: Picture | None,
) -> dict[str, Any]:
    """The material of a base-colour texture, a finish and maps of detail, and what it needs."""
    images: list[dict[str, Any]] = []
    textures: list[dict[str, Any]] = []

    def add(what: str, kind: str, data: bytes) -> dict[str, int]:
        """A texture of an image file; what a material says of it."""
        source: dict[str, Any] = {"source": len(images)}
        images.append({"name": f"{name} {what}", "mimeType": kind, "bufferView": binary.view(data)})
        source = {"extensions": {WEBP: source}} if kind == "image/webp" else source
        textures.append({"name": f"{name} {what}", "sampler": 0, **source})
        return {"index": len(textures) - 1}

    def picture(what: str, of: Picture) -> dict[str, int]:
        if compress:
            return add(what, "image/webp", _image_bytes(of, "WEBP", quality=WEBP_QUALITY, method=4))
        return add(what, "image/png", png_bytes(of))

    surface: dict[str, Any] = {"baseColorTexture": picture("base colour", texture)}
    surface |= {"metallicFactor": 0.0, "roughnessFactor": roughness}
    if finish is not None:
        glossy = picture("roughness and metal", finish)
        surface |= {"metallicRoughnessTexture": glossy, "metallicFactor": 1.0, "roughnessFactor": 1.0}
    material: dict[str, Any] = {"name": f"{name} material", "pbrMetallicRoughness": surface}
    if relief.normals is not None:
        material["normalTexture"] = add("normals", "image/jpeg", normal_jpeg(relief.normals))
    if relief.occlusion is not None:
        material["occlusionTexture"] = add("occlusion", "image/jpeg", occlusion_jpeg(relief.occlusion))
    return {
        "materials": [material],
        "textures": textures,
        "images": images,
        "samplers": [{"magFilter": LINEAR, "minFilter": MIPMAPS, "wrapS": CLAMP, "wrapT": CLAMP}],
    }


def unit(normals: NDArray[Any]) -> NDArray[Any]:
    """Normals (V, 3) of unit length in single precision."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0]).astype("<f4")


def byte_tangents(attributes: dict[str, NDArray[Any]], faces: NDArray[np.int64]) -> NDArray[np.int8]:
    """Tangents (V, 4) in steps of 1 / 127, of faces and of their vertices' attributes as a GLB has them."""
    uv = attributes["TEXCOORD_0"] * [1, -1] + [0, 1]
    mesh = Mesh(attributes["POSITION"].astype(np.float64), faces, attributes["NORMAL"].astype(np.float64), uv)
    return np.round(tangents(mesh) * 127).astype(np.int8)


def container(tree: dict[str, Any], binary: bytes) -> bytes:
    """A GLB of a JSON tree and a binary (glTF 2.0, section 4.4)."""
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def draco(
    attributes: dict[str, NDArray[Any]], faces: NDArray[np.int64]
) -> tuple[bytes, dict[str, NDArray[Any]], NDArray[np.int64], dict[str, int]]:
    """Attributes and faces in Draco's format; what a decoder makes of them; and the attributes' numbers in the file."""
    try:
        import DracoPy
    except ImportError:
        raise UserError("--compress needs DracoPy (pip install 'dreamfusion[compress]')") from None
    doubles = {key: rows.astype(np.float64) for key, rows in attributes.items()}
    packed = DracoPy.encode(
        attributes["POSITION"],
        faces.astype(np.uint32),
        quantization_bits=POSITION_BITS,
        compression_level=7,
        tex_coord=doubles.get("TEXCOORD_0"),
        normals=doubles.get("NORMAL"),
        tex_coord_quantization_bits=UV_BITS,
        normal_quantization_bits=NORMAL_BITS,
    )
    made = DracoPy.decode(packed)
    decoded = {"POSITION": made.points, "NORMAL": made.normals, "TEXCOORD_0": made.tex_coord}
    names = {0: "POSITION", 1: "NORMAL", 3: "TEXCOORD_0"}  # Draco's GeometryAttribute::Type
    ids = {names[entry["attribute_type"]]: int(entry["unique_id"]) for entry in made.attributes}
    kept = {key: np.asarray(decoded[key], "<f4") for key in attributes}
    return bytes(packed), kept, np.asarray(made.faces, np.int64), {key: ids[key] for key in attributes}
