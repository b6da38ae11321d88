"""Draw models off-screen into the pictures the prior learns from.

A view is stored as six bytes a pixel: the albedo, the coverage, the shading factor ``ambient + diffuse * max(0, n . l)`` and
the depth; all but the coverage are already multiplied by it. Depth is along the optical axis, 0 at the front of the unit sphere
and 1 at its back. Painting, clay and background are then a few multiplications at training time (see ``paint.py``), so one
rendered view serves every look; the depth says where on the object a pattern goes.

Axes are the project's: right-handed, +Y up, front at +Z, azimuth grows towards +X, the object inside the unit sphere.
"""

from __future__ import annotations

import io
import math
import posixpath
import zipfile
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dreamfusion.priors.paint import AMBIENT, LIGHT_ABOVE_DEG

FOV_DEG = 47.0
RADIUS = 0.95  # of the bounding sphere after normalisation
OVERSAMPLING = 2

_VERTEX = """
#version 330
uniform mat4 camera_to_clip; uniform mat4 world_to_camera;
in vec3 position; in vec3 normal; in vec2 uv; in vec3 colour;
out vec3 n; out vec3 p; out vec2 t; out vec3 k;
void main() {
    vec4 q = world_to_camera * vec4(position, 1.0);
    p = q.xyz; n = mat3(world_to_camera) * normal; t = uv; k = colour;
    gl_Position = camera_to_clip * q;
}
"""
_FRAGMENT = """
#version 330
uniform vec3 diffuse; uniform float has_map; uniform sampler2D map; uniform vec3 light; uniform float ambient;
uniform float front;
in vec3 n; in vec3 p; in vec2 t; in vec3 k;
layout(location = 0) out vec4 albedo; layout(location = 1) out vec4 shade;
void main() {
    vec4 c = vec4(diffuse * k, 1.0);
    if (has_map > 0.5) { vec4 m = texture(map, t); if (m.a < 0.4) discard; c.rgb *= m.rgb; }
    vec3 m = normalize(n);
    if (dot(m, p) > 0.0) m = -m;                    // many catalogue meshes are open: light both sides
    float s = ambient + (1.0 - ambient) * max(0.0, dot(m, light));
    albedo = vec4(c.rgb, 1.0); shade = vec4(s, (-p.z - front) / 2.0, 0.0, 1.0);
}
"""


@dataclass
class Part:
    """Triangles that share a material: ``vertices`` is (3F, 8) float32 of position, normal, uv.

    What is seen is ``diffuse`` times the image and the ``colours`` (3F, 3), where there are such.
    """

    vertices: np.ndarray
    diffuse: tuple[float, float, float]
    image: Image.Image | None
    colours: np.ndarray | None = None


def _materials(archive: zipfile.ZipFile, path: str) -> dict[str, dict]:
    """Read a Wavefront MTL file: name -> {kd, d, map}."""
    out: dict[str, dict] = {}
    current: dict = {}
    try:
        text = archive.read(path).decode("latin-1")
    except KeyError:
        return out
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        key, rest = words[0].lower(), words[1:]
        if key == "newmtl":
            current = out.setdefault(" ".join(rest), {"kd": (0.8, 0.8, 0.8), "d": 1.0, "map": None})
        elif key == "kd" and len(rest) >= 3:
            current["kd"] = tuple(float(x) for x in rest[:3])
        elif key == "d" and rest:
            current["d"] = float(rest[-1])
        elif key == "map_kd" and rest:
            current["map"] = posixpath.join(posixpath.dirname(path), rest[-1].replace("\\", "/"))
    return out


def load_obj(archive: zipfile.ZipFile, path: str) -> list[Part]:
    """Read an OBJ out of a furniture library, grouped by material and normalised into the unit sphere.

    Almost clear materials (d < 0.25) are dropped: behind glass the object is what the name says.
    """
    v, vt, vn = [], [], []
    faces: dict[str, list] = {}
    materials: dict[str, dict] = {}
    use = ""
    for line in archive.read(path).decode("latin-1").splitlines():
        words = line.split()
        if not words:
            continue
        key = words[0]
        if key == "v":
            v.append([float(x) for x in words[1:4]])
        elif key == "vt":
            vt.append([float(x) for x in words[1:3]])
        elif key == "vn":
            vn.append([float(x) for x in words[1:4]])
        elif key == "usemtl":
            use = " ".join(words[1:])
        elif key == "mtllib":
            materials |= _materials(archive, posixpath.join(posixpath.dirname(path), " ".join(words[1:])))
        elif key == "f":
            corners = []
            for word in words[1:]:
                ids = [*word.split("/"), "", ""][:3]
                corners.append(
                    tuple(
                        (int(i) - 1 if int(i) > 0 else int(i) + n) if i else -1
                        for i, n in zip(ids, (len(v), len(vt), len(vn)), strict=True)
                    )
                )
            bucket = faces.setdefault(use, [])
            for k in range(1, len(corners) - 1):
                bucket.append((corners[0], corners[k], corners[k + 1]))
    points, uvs, normals = (
        np.array(v, np.float32),
        np.array(vt or [[0, 0]], np.float32),
        np.array(vn or [[0, 0, 0]], np.float32),
    )
    parts = []
    for name, triangles in faces.items():
        material = materials.get(name, {"kd": (0.8, 0.8, 0.8), "d": 1.0, "map": None})
        if material["d"] < 0.25:
            continue
        index = np.array(triangles, np.int64)  # (F, 3 corners, 3 kinds)
        xyz = points[index[:, :, 0]]
        uv = np.where(index[:, :, 1:2] >= 0, uvs[index[:, :, 1]], 0.0)
        flat = np.cross(xyz[:, 1] - xyz[:, 0], xyz[:, 2] - xyz[:, 0])[:, None].repeat(3, 1)
        given = normals[index[:, :, 2]]
        missing = (index[:, :, 2:3] < 0) | (np.abs(given).sum(-1, keepdims=True) < 1e-6)
        normal = np.where(missing, flat, given)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
        image = None
        if material["map"]:
            try:
                image = Image.open(io.BytesIO(archive.read(posixpath.normpath(material["map"])))).convert("RGBA")
                image.thumbnail((512, 512))
            except (KeyError, OSError):
                image = None
        diffuse = material["kd"] if image is None else (1.0, 1.0, 1.0)
        parts.append(Part(np.concatenate([xyz, normal, uv], -1).reshape(-1, 8).astype(np.float32), diffuse, image))
    return normalised(parts)


def normalised(parts: list[Part]) -> list[Part]:
    """Put parts in place into the unit sphere: their box is centred, the farthest point is ``RADIUS`` away."""
    xyz = np.concatenate([p.vertices[:, :3] for p in parts])
    centre = (xyz.min(0) + xyz.max(0)) / 2
    scale = RADIUS / np.linalg.norm(xyz - centre, axis=1).max()
    for part in parts:
        part.vertices[:, :3] = (part.vertices[:, :3] - centre) * scale
    return parts


def look_at(azimuth_deg: float, elevation_deg: float, distance: float) -> np.ndarray:
    """World-to-camera matrix (4, 4) of a camera on the sphere that looks at the origin; the camera looks along -Z."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    back = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    right = np.array([math.cos(a), 0.0, -math.sin(a)])
    up = np.cross(back, right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, up, back])
    matrix[:3, 3] = [0.0, 0.0, -distance]
    return matrix


class Renderer:
    """An off-screen OpenGL context that draws one object from many cameras."""

    def __init__(self, size: int = 64):
        import moderngl  # here, so that models can be read without it

        self.size = size
        big = size * OVERSAMPLING
        self.ctx = moderngl.create_context(standalone=True, backend="egl")
        self.ctx.enable(moderngl.DEPTH_TEST)
        self.program = self.ctx.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self.drawn = self.ctx.framebuffer(
            [self.ctx.renderbuffer((big, big), 4, samples=4) for _ in range(2)],
            self.ctx.depth_renderbuffer((big, big), samples=4),
        )
        self.read = self.ctx.framebuffer([self.ctx.renderbuffer((big, big), 4) for _ in range(2)])
        near, far, f = 0.1, 10.0, 1.0 / math.tan(math.radians(FOV_DEG) / 2)
        self.projection = np.array(
            [
                [f, 0, 0, 0],
                [0, f, 0, 0],
                [0, 0, (far + near) / (near - far), 2 * far * near / (near - far)],
                [0, 0, -1, 0],
            ]
        )
        lift = math.radians(LIGHT_ABOVE_DEG)
        self.program["light"].value = (0.0, math.sin(lift), math.cos(lift))
        self.program["ambient"].value = AMBIENT
        self.objects: list = []

    def load(self, parts: list[Part]) -> None:
        """Put an object's parts on the device in place of the one before."""
        for thing in [x for item in self.objects for x in item[3:]] + [item[0] for item in self.objects]:
            if thing is not None:
                thing.release()
        self.objects = []
        for part in parts:
            colours = np.ones((len(part.vertices), 3), np.float32) if part.colours is None else part.colours
            buffer = self.ctx.buffer(np.concatenate([part.vertices, colours], 1).astype(np.float32).tobytes())
            array = self.ctx.vertex_array(self.program, [(buffer, "3f 3f 2f 3f", "position", "normal", "uv", "colour")])
            texture = None
            if part.image is not None:
                image = part.image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
                texture = self.ctx.texture(image.size, 4, image.tobytes())
                texture.build_mipmaps()
            self.objects.append((array, part.diffuse, part.image is not None, buffer, texture))

    def draw(self, azimuth_deg: float, elevation_deg: float, distance: float) -> np.ndarray:
        """One view as (6, size, size) uint8: albedo x coverage (3), coverage, shading x coverage, depth x coverage."""
        self.drawn.use()
        self.drawn.clear(0.0, 0.0, 0.0, 0.0)
        self.program["camera_to_clip"].write(self.projection.T.astype("f4").tobytes())
        self.program["world_to_camera"].write(look_at(azimuth_deg, elevation_deg, distance).T.astype("f4").tobytes())
        self.program["front"].value = distance - 1.0
        for array, diffuse, has_map, _, texture in self.objects:
            self.program["diffuse"].value = tuple(diffuse)
            self.program["has_map"].value = float(has_map)
            if texture is not None:
                texture.use(0)
            array.render()
        self.ctx.copy_framebuffer(self.read, self.drawn)
        big, n = self.size * OVERSAMPLING, self.size
        layers = []
        for k in range(2):
            raw = np.frombuffer(self.read.read(components=4, attachment=k), np.uint8).reshape(big, big, 4)[::-1]
            box = raw.reshape(n, OVERSAMPLING, n, OVERSAMPLING, 4).astype(np.float32).mean((1, 3))
            layers.append(box)
        out = np.concatenate([layers[0], layers[1][..., :2]], -1)
        return np.round(out).astype(np.uint8).transpose(2, 0, 1)
