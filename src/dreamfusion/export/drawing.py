"""Pictures of the exported mesh by rasterisation: what a viewer of the files shows. It is fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..geometry.mesh import Mesh
from ..kernels.caching import njit
from ..kernels.raster_fused import FUSED
from ..scene.mesh_camera import clip_positions
from ..scene.shading import CLAY
from ..torch_state import plain_torch
from ..view.view import View
from .texture import Picture

SUPERSAMPLING = 2
"""Samples across a pixel. The rasteriser's own soft silhouettes need triangles that are larger than a pixel, and at the rim of a fine
mesh they are not."""

Float32s = NDArray[np.float32]


@njit(nogil=True, fastmath=True)
def _shade(
    face: NDArray[np.int64], weights: Float32s, faces: NDArray[np.int64], normals: Float32s, uv: Float32s,
    texture: Picture, light: Float32s, ambient: float, lit: bool, textured: bool, clay: float,
    background: Float32s, fine: int, out: Picture,
) -> None:  # fmt: skip
    """Fill out (H, W, 3) with the mean of fine x fine samples a pixel, of rasterised faces (H fine, W fine): base * (ambient +
    (1 - ambient) max(0, n . l)) where lit, and the background (3,) where there is none. The texture is read bilinearly between
    texel centres."""
    height, width = out.shape[:2]
    rows, columns = texture.shape[:2]
    for row in range(height):
        for column in range(width):
            total0 = total1 = total2 = 0.0
            for sample in range(fine * fine):
                r, c = row * fine + sample // fine, column * fine + sample % fine
                f = face[r, c]
                if f < 0:
                    total0 += background[0]
                    total1 += background[1]
                    total2 += background[2]
                    continue
                i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
                w0, w1, w2 = weights[r, c, 0], weights[r, c, 1], weights[r, c, 2]
                factor = 1.0
                if lit:
                    n0 = w0 * normals[i0, 0] + w1 * normals[i1, 0] + w2 * normals[i2, 0]
                    n1 = w0 * normals[i0, 1] + w1 * normals[i1, 1] + w2 * normals[i2, 1]
                    n2 = w0 * normals[i0, 2] + w1 * normals[i1, 2] + w2 * normals[i2, 2]
                    length = max(np.sqrt(n0 * n0 + n1 * n1 + n2 * n2), 1e-9)
                    cosine = (n0 * light[0] + n1 * light[1] + n2 * light[2]) / length
                    factor = ambient + (1 - ambient) * max(cosine, 0.0)
                if not textured:
                    total0 += clay * factor
                    total1 += clay * factor
                    total2 += clay * factor
                    continue
                u = w0 * uv[i0, 0] + w1 * uv[i1, 0] + w2 * uv[i2, 0]
                v = w0 * uv[i0, 1] + w1 * uv[i1, 1] + w2 * uv[i2, 1]
                x = min(max(u * columns - 0.5, 0.0), columns - 1.0)
                y = min(max((1 - v) * rows - 0.5, 0.0), rows - 1.0)
                x0, y0 = int(x), int(y)
                x1, y1 = min(x0 + 1, columns - 1), min(y0 + 1, rows - 1)
                fx, fy = x - x0, y - y0
                a, b, d, e = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
                factor /= 255
                p, q, s, t = texture[y0, x0], texture[y0, x1], texture[y1, x0], texture[y1, x1]
                total0 += factor * (a * p[0] + b * q[0] + d * s[0] + e * t[0])
                total1 += factor * (a * p[1] + b * q[1] + d * s[1] + e * t[1])
                total2 += factor * (a * p[2] + b * q[2] + d * s[2] + e * t[2])
            scale = 255 / (fine * fine)
            out[row, column, 0] = np.uint8(min(max(total0 * scale, 0.0), 255.0) + 0.5)
            out[row, column, 1] = np.uint8(min(max(total1 * scale, 0.0), 255.0) + 0.5)
            out[row, column, 2] = np.uint8(min(max(total2 * scale, 0.0), 255.0) + 0.5)


@dataclass(frozen=True)
class Drawable:
    """A textured mesh in world units, ready to be drawn from many sides: vertices (V, 3), faces (F, 3), normals (V, 3), uv (V, 2)."""

    vertices: Tensor
    faces: Tensor
    normals: Float32s
    uv: Float32s
    texture: Picture

    @classmethod
    def of(cls, mesh: Mesh, texture: Picture) -> Drawable:
        """A mesh with normals and uv, and its texture (S, S, 3)."""
        assert mesh.normals is not None and mesh.uv is not None
        vertices, faces = torch.from_numpy(mesh.vertices.astype(np.float32)), torch.from_numpy(mesh.faces)
        return cls(vertices, faces, mesh.normals.astype(np.float32), mesh.uv.astype(np.float32), texture)

    @plain_torch()
    @torch.no_grad()
    def draw(self, view: View, fine: int = SUPERSAMPLING) -> Picture:
        """A picture (size, size, 3) uint8, shaded as ``render_view`` shades a field; ``view`` is one look with a plain
        background. Edges are smoothed by fine x fine samples a pixel."""
        assert view.plain_background is not None
        clip = clip_positions(self.vertices, view.cameras)
        face, weights = FUSED.rasterise(clip, self.faces, view.size * fine)
        picture = np.empty((view.size, view.size, 3), np.uint8)
        _shade(
            face[0].numpy(), weights[0].numpy(), self.faces.numpy(), self.normals, self.uv, self.texture,
            view.lights[0].float().numpy(), np.float32(view.ambient), view.shading != "albedo",
            view.shading != "textureless", np.float32(CLAY), view.plain_background[0].float().cpu().numpy(), fine, picture,
        )  # fmt: skip
        return picture
