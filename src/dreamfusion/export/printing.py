"""Files for printing: millimetres, Z up, the front towards -Y. STL holds no unit; slicers take millimetres and Z up.

3MF after the "3D Manufacturing Format, Core Specification" 1.3, chapters 2 (packages) and 4 (meshes).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from xml.sax.saxutils import escape

import numpy as np

from ..geometry.mesh import Mesh

PRESSED = 0.02
"""Share of the height that a flat base presses flat."""
_TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)
_MODEL = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<model unit="millimeter" xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">'
    '<metadata name="Title">{title}</metadata><metadata name="Application">dreamfusion</metadata>'
    '<resources><object id="1" type="model"><mesh><vertices>{vertices}</vertices>'
    "<triangles>{triangles}</triangles></mesh></object></resources>"
    '<build><item objectid="1"/></build></model>'
)


def printable(mesh: Mesh, flat_base: bool = False) -> Mesh:
    """A mesh in metres, Y up, front towards +Z, as it is printed: in millimetres, Z up, front towards -Y, on z = 0.

    ``flat_base`` presses the lowest ``PRESSED`` of the height flat, so that the thing stands on more than a point. The mesh
    stays as closed as it was.
    """
    x, y, z = mesh.vertices.T * 1000
    vertices = np.stack([x, -z, y], -1)
    if flat_base:
        base = vertices[:, 2].min() + PRESSED * np.ptp(vertices[:, 2])
        vertices[:, 2] = np.maximum(vertices[:, 2], base)
    vertices[:, 2] -= vertices[:, 2].min()
    geometry = Mesh(vertices, mesh.faces).geometry()  # seams of the texture closed
    return replace(
        mesh, vertices=np.asarray(geometry.vertices), faces=np.asarray(geometry.faces), normals=None, uv=None
    )


def threemf(mesh: Mesh, prompt: str) -> bytes:
    """The 3MF file of a mesh in millimetres, Z up."""
    vertices = "".join(f'<vertex x="{x:.6g}" y="{y:.6g}" z="{z:.6g}"/>' for x, y, z in mesh.vertices.tolist())
    triangles = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in mesh.faces.tolist())
    title = escape("".join(c for c in prompt if c.isprintable() or c == " "))
    model = _MODEL.format(title=title, vertices=vertices, triangles=triangles)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (
            ("[Content_Types].xml", _TYPES),
            ("_rels/.rels", _RELATIONS),
            ("3D/3dmodel.model", model),
        ):
            entry = zipfile.ZipInfo(name)  # with a fixed date: the same asset is the same file
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.encode())
    return buffer.getvalue()
