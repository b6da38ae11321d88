"""Pictures of the exported mesh by rasterisation: what a viewer of the files shows. It is fast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..geometry.mesh import Mesh
from ..kernels.caching import njit
from ..scene.shading import CLAY
from ..view.view import View
from .raster import rasterise
from .silhouettes import project
from .texture import Picture

SUPERSAMPLING = 2

Float32s = NDArray[np.float32]


@njit(nogil=True)
def _shade(
    face: NDArray[np.int32], weights: Float32s, faces: NDArray[np.int64], normals: Float32s, uv: Float32s,
    texture: Picture, light: Float32s, ambient: float, lit: bool, textured: bool, clay: float,
) -> Float32s:  # fmt: skip
    """Colour and coverage (H, W, 4) of rasterised faces: base * (ambient + (1 - ambient) max(0, n . l)) where lit;
    the texture is read bilinearly between texel centres."""
    height, width = face.shape
    rows, columns = texture.shape[:2]
    out = np.zeros((height, width, 4), np.float32)
    base = np.full(3, clay, np.float32)
    for r in range(height):
        for c in range(width):
            f = face[r, c]
            if f < 0:
                continue
            n0 = n1 = n2 = u = v = 0.0
            for k in range(3):
                w, i = weights[r, c, k], faces[f, k]
                n0 += w * normals[i, 0]
                n1 += w * normals[i, 1]
                n2 += w * normals[i, 2]
                u += w * uv[i, 0]
                v += w * uv[i, 1]
            if textured:
                x = min(max(u * columns - 0.5, 0.0), columns - 1.0)
                y = min(max((1 - v) * rows - 0.5, 0.0), rows - 1.0)
                x0, y0 = int(x), int(y)
                x1, y1 = min(x0 + 1, columns - 1), min(y0 + 1, rows - 1)
                fx, fy = x - x0, y - y0
                for k in range(3):
                    upper = texture[y0, x0, k] * (1 - fx) + texture[y0, x1, k] * fx
                    lower = texture[y1, x0, k] * (1 - fx) + texture[y1, x1, k] * fx
                    base[k] = (upper * (1 - fy) + lower * fy) / 255
            factor = 1.0
            if lit:
                length = max(np.sqrt(n0 * n0 + n1 * n1 + n2 * n2), 1e-9)
                cosine = (n0 * light[0] + n1 * light[1] + n2 * light[2]) / length
                factor = ambient + (1 - ambient) * max(cosine, 0.0)
            for k in range(3):
                out[r, c, k] = base[k] * factor
            out[r, c, 3] = 1
    return out


def draw_mesh(mesh: Mesh, texture: Picture, view: View) -> Picture:
    """A picture (size, size, 3) uint8 of a textured mesh in world units, shaded as ``render_view`` shades a field; ``view``
    is one look with a plain background. Edges are smoothed by ``SUPERSAMPLING``."""
    assert mesh.normals is not None and mesh.uv is not None and view.plain_background is not None
    size = view.size
    fine = size * SUPERSAMPLING
    screen, nearness = project(mesh.vertices, view.cameras, fine)
    face, weights = rasterise(
        screen[mesh.faces].astype(np.float32), nearness[mesh.faces].astype(np.float32), fine, fine, 0.0
    )
    rgba = _shade(
        face, weights, mesh.faces, mesh.normals.astype(np.float32), mesh.uv.astype(np.float32), texture,
        view.lights[0].float().numpy(), view.ambient, view.shading != "albedo", view.shading != "textureless", CLAY,
    )  # fmt: skip
    rgba = rgba.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 4).mean((1, 3))
    colour = rgba[..., :3] + (1 - rgba[..., 3:]) * view.plain_background[0].cpu().numpy()
    return np.round(np.clip(colour, 0, 1) * 255).astype(np.uint8)
