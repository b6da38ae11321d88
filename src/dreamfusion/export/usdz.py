"""USDZ without the USD libraries: a text layer and textures in an uncompressed zip.

After openusd.org, "USDZ File Format Specification" and "UsdPreviewSurface Specification".
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..geometry.mesh import Mesh

_LAYER = """#usda 1.0
(
    defaultPrim = "Asset"
    doc = {doc}
    metersPerUnit = 1
    upAxis = "Y"
)

def Xform "Asset" (
    kind = "component"
)
{{
    def Mesh "Mesh" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {{
        rel material:binding = </Asset/Material>
        uniform token subdivisionScheme = "none"
        uniform token orientation = "rightHanded"
        float3[] extent = {extent}
        int[] faceVertexCounts = {counts}
        int[] faceVertexIndices = {indices}
        point3f[] points = {points}
        normal3f[] normals = {normals} (
            interpolation = "vertex"
        )
        texCoord2f[] primvars:st = {st} (
            interpolation = "vertex"
        )
    }}

    def Material "Material"
    {{
        token outputs:surface.connect = </Asset/Material/Surface.outputs:surface>

        def Shader "Surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </Asset/Material/Texture.outputs:rgb>
{inputs}
            token outputs:surface
        }}
{shaders}
        def Shader "Coordinates"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "st"
            float2 outputs:result
        }}
    }}
}}
"""

_SHADER = """
        def Shader "{name}"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{file}@
            float2 inputs:st.connect = </Asset/Material/Coordinates.outputs:result>{scale}
            token inputs:sourceColorSpace = "{space}"
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            {output}
        }}
"""
_SIGNED = """
            float4 inputs:scale = (2, 2, 2, 1)
            float4 inputs:bias = (-1, -1, -1, 0)"""
FINISH, NORMALS, OCCLUSION = "finish.png", "normals.jpg", "occlusion.jpg"
"""Files of maps: roughness in green and metal in blue; a normal map; ambient occlusion."""
_TEXTURE = {"name": "Texture", "file": "texture.png", "scale": "", "space": "sRGB", "output": "float3 outputs:rgb"}
_MAPS = (
    {"name": "Roughness", "file": FINISH, "scale": "", "space": "raw", "output": "float outputs:g"},
    {"name": "Metallic", "file": FINISH, "scale": "", "space": "raw", "output": "float outputs:b"},
    {"name": "Normals", "file": NORMALS, "scale": _SIGNED, "space": "raw", "output": "float3 outputs:rgb"},
    {"name": "Occlusion", "file": OCCLUSION, "scale": "", "space": "raw", "output": "float outputs:r"},
)
"""Each input of the surface has a shader of its own, though two share a file."""
_INPUTS = {
    "Roughness": "float inputs:roughness.connect = </Asset/Material/Roughness.outputs:g>",
    "Metallic": "float inputs:metallic.connect = </Asset/Material/Metallic.outputs:b>",
    "Normals": "normal3f inputs:normal.connect = </Asset/Material/Normals.outputs:rgb>",
    "Occlusion": "float inputs:occlusion.connect = </Asset/Material/Occlusion.outputs:r>",
}


def _tuples(rows: np.ndarray) -> str:
    """``[(x, y), …]``: an array of tuples in USD's text format."""
    row = "(" + ", ".join(["%.6g"] * rows.shape[1]) + ")"
    return "[" + ", ".join(row % tuple(r) for r in rows.tolist()) + "]"


def _integers(values: np.ndarray) -> str:
    return "[" + ", ".join(map(str, values.ravel().tolist())) + "]"


def layer(mesh: Mesh, prompt: str, roughness: float, maps: Collection[str] = ()) -> str:
    """The USD text layer of a mesh with normals and uv; its texture is the file ``texture.png`` beside it, and so are the files of
    its maps: any of ``FINISH``, ``NORMALS`` and ``OCCLUSION``. Without a finish the roughness is the same everywhere, and
    nothing is metal."""
    assert mesh.normals is not None and mesh.uv is not None
    shown = [shader for shader in _MAPS if shader["file"] in maps]
    inputs = [] if FINISH in maps else ["float inputs:metallic = 0", f"float inputs:roughness = {roughness:g}"]
    inputs += [_INPUTS[shader["name"]] for shader in shown]
    return _LAYER.format(
        doc=json.dumps(prompt, ensure_ascii=False),
        extent=_tuples(np.stack([mesh.vertices.min(0), mesh.vertices.max(0)])),
        counts=_integers(np.full(len(mesh.faces), 3)),
        indices=_integers(mesh.faces),
        points=_tuples(mesh.vertices),
        normals=_tuples(mesh.normals),
        st=_tuples(mesh.uv),
        inputs="\n".join(f"            {line}" for line in inputs),
        shaders="".join(_SHADER.format(**shader) for shader in (_TEXTURE, *shown)),
    )


def package(files: dict[str, bytes]) -> bytes:
    """A zip in which every file is stored uncompressed and begins at a multiple of 64 bytes, as USDZ asks for."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            space = -(buffer.tell() + 30 + len(name.encode())) % 64  # 30: the fixed part of a local header
            if 0 < space < 4:  # too small for the padding's own header
                space += 64
            if space:
                entry.extra = struct.pack("<HH", 0x1986, space - 4) + bytes(space - 4)
            archive.writestr(entry, data)
    return buffer.getvalue()


def binary(text: str) -> bytes:
    """A text layer in USD's binary format (.usdc). UserError without usd-core."""
    try:
        from pxr import Sdf
    except ImportError:
        raise UserError("--compress needs usd-core for usdz (pip install 'dreamfusion[compress]')") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "asset.usdc"
        made = Sdf.Layer.CreateAnonymous(".usda")
        made.ImportFromString(text)
        made.Export(str(path))  # a new binary layer that imports text stays empty on disk: saving it does nothing
        return path.read_bytes()


def write(
    mesh: Mesh,
    png: bytes,
    prompt: str,
    roughness: float,
    compress: bool = False,
    maps: Mapping[str, bytes] | None = None,
) -> bytes:
    """The USDZ file of a mesh with a texture, and with ``maps``: picture files by their names, as in ``layer``. ``compress``
    stores the layer in USD's binary format."""
    maps = maps or {}
    text = layer(mesh, prompt, roughness, maps)
    stage = {"asset.usdc": binary(text)} if compress else {"asset.usda": text.encode()}
    return package(stage | {"texture.png": png} | dict(maps))
