"""Read binary glTF models (GLB) into the renderer's parts: ``load_glb(path.read_bytes())``.

Supported is what a static model has: a scene of nodes with meshes of triangles, normals, one set of texture coordinates, vertex
colours, base colours, base colour textures, emission and transparency. Skins stay in their rest pose. Compressed
geometry is refused.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from render import Part, normalised

_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TRIANGLES, _JSON, _BINARY = 4, 0x4E4F534A, 0x004E4942
CLEAR = 0.25
"""What is less opaque than this is not drawn: behind glass the object is what its name says."""
TEXTURE_SIZE = 512


class ModelError(ValueError):
    """A model that cannot be read; the message is one line and says why."""


def srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Linear light to display values, both in [0, 1], any shape (IEC 61966-2-1)."""
    x = np.clip(linear, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055).astype(np.float32)


def chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk of a GLB file."""
    if data[:4] != b"glTF" or len(data) < 20 or struct.unpack("<I", data[4:8])[0] != 2:
        raise ModelError("not a GLB file of version 2")
    found: dict[int, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        length, kind = struct.unpack("<II", data[at : at + 8])
        if at + 8 + length > len(data):
            raise ModelError("cut off: a chunk is longer than the file")
        found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length
    try:
        return json.loads(found[_JSON]), found.get(_BINARY, b"")
    except (KeyError, ValueError) as error:
        raise ModelError("its JSON chunk does not parse") from error


def rotation(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """The matrix (3, 3) of a unit quaternion."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def local_matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    """A node's matrix (4, 4), from its matrix or from translation, rotation and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    out = np.eye(4)
    out[:3, :3] = rotation(*node.get("rotation", (0, 0, 0, 1))) * np.array(node.get("scale", (1, 1, 1)))
    out[:3, 3] = node.get("translation", (0, 0, 0))
    return out


class _File:
    """Access to a GLB's arrays, images and materials by number."""

    def __init__(self, data: bytes):
        self.json, self.binary = chunks(data)

    def view(self, number: int) -> tuple[bytes, int]:
        """Bytes of a buffer view and its stride (0 where packed)."""
        view = self.json["bufferViews"][number]
        start = view.get("byteOffset", 0)
        return self.binary[start : start + view["byteLength"]], view.get("byteStride", 0)

    def array(self, number: int) -> NDArray[np.generic]:
        """An accessor (N, width); whole numbers that are normalised come as floats in [0, 1] or [-1, 1]."""
        a = self.json["accessors"][number]
        kind, width = np.dtype(_TYPES[a["componentType"]]), _WIDTHS[a["type"]]
        if "bufferView" not in a or "sparse" in a:
            raise ModelError("compressed or sparse arrays are not supported")
        raw, stride = self.view(a["bufferView"])
        start, stride = a.get("byteOffset", 0), stride or kind.itemsize * width
        if start + stride * (a["count"] - 1) + kind.itemsize * width > len(raw):
            raise ModelError("an array is longer than its data")
        out = np.ndarray((a["count"], width), kind, raw, start, (stride, kind.itemsize)).copy()
        if a.get("normalized") and kind.kind in "iu":
            out = np.maximum(out / np.float32(np.iinfo(kind).max), -1.0).astype(np.float32)
        return out

    def image(self, texture: int, transparent: bool) -> Image.Image | None:
        """A texture as RGBA, at most ``TEXTURE_SIZE``; alpha counts only where the material is not opaque."""
        source = self.json["images"][self.json["textures"][texture]["source"]]
        if "bufferView" not in source:
            raise ModelError("textures outside the file are not supported")
        image = Image.open(io.BytesIO(self.view(source["bufferView"])[0]))
        image = image.convert("RGBA" if transparent else "RGB").convert("RGBA")
        image.thumbnail((TEXTURE_SIZE, TEXTURE_SIZE))
        return image

    def part(self, primitive: dict[str, Any], matrix: NDArray[np.float64]) -> Part | None:
        """One primitive's triangles in the world; None where there is nothing to see."""
        if primitive.get("mode", _TRIANGLES) != _TRIANGLES:
            return None
        material = self.json.get("materials", [{}])[primitive.get("material", 0)] if "material" in primitive else {}
        surface = material.get("pbrMetallicRoughness", {})
        factor = surface.get("baseColorFactor", (1.0, 1.0, 1.0, 1.0))
        transparent = material.get("alphaMode", "OPAQUE") != "OPAQUE"
        if transparent and factor[3] < CLEAR:
            return None
        arrays = primitive["attributes"]
        points = self.array(arrays["POSITION"]) @ matrix[:3, :3].T + matrix[:3, 3]
        index = (
            self.array(primitive["indices"])[:, 0].astype(np.int64)
            if "indices" in primitive
            else np.arange(len(points))
        )
        index = index[: len(index) // 3 * 3]
        if not len(index):
            return None
        if index.max() >= len(points):
            raise ModelError("a triangle names a point that is not there")
        xyz = points[index].reshape(-1, 3, 3)
        normal = np.cross(xyz[:, 1] - xyz[:, 0], xyz[:, 2] - xyz[:, 0])[:, None].repeat(3, 1).reshape(-1, 3)
        if "NORMAL" in arrays:
            given = self.array(arrays["NORMAL"])[index] @ np.linalg.pinv(matrix[:3, :3])
            normal = np.where(np.abs(given).sum(1, keepdims=True) < 1e-6, normal, given)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
        uv = np.zeros((len(index), 2))
        image, texture = None, surface.get("baseColorTexture")
        if texture is not None:
            image = self.image(texture["index"], transparent)
            uv = self.array(arrays[f"TEXCOORD_{texture.get('texCoord', 0)}"])[index] * (1, -1) + (0, 1)
        colours = None
        if "COLOR_0" in arrays:
            colours = srgb(self.array(arrays["COLOR_0"])[index][:, :3].astype(np.float32))
        linear = np.array(factor[:3], np.float32) + np.array(material.get("emissiveFactor", (0, 0, 0)), np.float32)
        vertices = np.concatenate([xyz.reshape(-1, 3), normal, uv], 1).astype(np.float32)
        return Part(vertices, tuple(srgb(linear).tolist()), image, colours)

    def parts(self) -> list[Part]:
        """Every primitive of the scene."""
        nodes = self.json.get("nodes", [])
        scenes = self.json.get("scenes") or [{"nodes": list(range(len(nodes)))}]
        waiting = [(n, np.eye(4)) for n in scenes[self.json.get("scene", 0)].get("nodes", [])]
        out: list[Part] = []
        while waiting:
            number, above = waiting.pop(0)
            matrix = above @ local_matrix(nodes[number])
            waiting += [(n, matrix) for n in nodes[number].get("children", [])]
            if "mesh" in nodes[number]:
                drawn = [self.part(p, matrix) for p in self.json["meshes"][nodes[number]["mesh"]]["primitives"]]
                out += [p for p in drawn if p is not None]
        return out


def turned(parts: list[Part], degrees: float) -> list[Part]:
    """Turn parts in place about +Y, so that what faced azimuth ``-degrees`` faces +Z; +X goes to -Z at 90."""
    a = np.radians(degrees)
    matrix = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]], np.float32)
    for part in parts:
        part.vertices[:, :3] = part.vertices[:, :3] @ matrix.T
        part.vertices[:, 3:6] = part.vertices[:, 3:6] @ matrix.T
    return parts


def load_glb(data: bytes, turn_deg: float = 0.0) -> list[Part]:
    """Read a GLB file, turn it by ``turn_deg`` about +Y and normalise it into the unit sphere, as ``load_obj`` does."""
    try:
        parts = _File(data).parts()
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise error if isinstance(error, ModelError) else ModelError(f"does not parse ({error!r})") from error
    if not parts:
        raise ModelError("has no triangles")
    if not all(np.isfinite(p.vertices).all() for p in parts):
        raise ModelError("has points that are not numbers")
    return normalised(turned(parts, turn_deg))
