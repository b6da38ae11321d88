"""Meshes from files that users bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
import trimesh.repair

from ..errors import UserError
from ..paths import readable, user_path
from .mesh import Mesh, with_normals

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
LARGEST = 1 << 30
"""Bytes of a file that is read at all."""
MOST = 1_000_000
"""Triangles that are taken."""
FILLS = 0.85
"""Radius, in world units, of the ball about the origin into which a mesh is put."""


def read_mesh(path: str | Path) -> Mesh:
    """The mesh of a file: all its parts as one, vertices in the same place made one, faces wound alike, the middle of its
    box at the origin, and its farthest vertex at ``FILLS``. Holes stay. UserError, in one line, if that is not possible."""
    path = user_path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        blend = "Blender's own files cannot be read; export the mesh from Blender as glTF" if suffix == ".blend" else ""
        raise UserError(f"{path}: {blend or 'a mesh is a file of type ' + ', '.join(s[1:] for s in SUFFIXES)}")
    with readable(path), path.open("rb") as file:
        size = file.seek(0, 2)
    if size > LARGEST:
        raise UserError(f"{path} holds {size / 2**20:.0f} MiB; a mesh of at most {MOST:,} triangles is enough")
    try:
        body: Any = trimesh.load(path, force="mesh", skip_materials=True)
        vertices, faces = np.asarray(body.vertices, np.float64), np.asarray(body.faces, np.int64)
    except Exception as error:  # trimesh has no error of its own: a damaged file may raise anything
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} cannot be read as a mesh ({why})") from None
    if len(faces) == 0 or faces.shape[1:] != (3,):
        raise UserError(f"{path} holds no faces; a point cloud or lines alone are not a mesh")
    if len(faces) > MOST:
        raise UserError(f"{path} has {len(faces):,} triangles; decimate it to at most {MOST:,} first")
    if not np.isfinite(vertices).all() or faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(f"{path} is damaged: it has vertices that are not numbers, or faces without vertices")
    return normalised(vertices, faces, str(path))


def normalised(vertices: np.ndarray, faces: np.ndarray, name: str) -> Mesh:
    """A mesh of these triangles as ``read_mesh`` says. UserError, naming it, if it has no extent."""
    body = trimesh.Trimesh(vertices, faces, process=False)
    body.merge_vertices(merge_tex=True, merge_norm=True)
    body.update_faces(body.nondegenerate_faces())
    body.remove_unreferenced_vertices()
    if len(body.faces) == 0:
        raise UserError(f"{name} has no face with an area")
    trimesh.repair.fix_normals(body, multibody=True)
    points = np.asarray(body.vertices, np.float64)
    points = points - (points.min(0) + points.max(0)) / 2
    points *= FILLS / np.linalg.norm(points, axis=1).max()
    return with_normals(Mesh(points, np.asarray(body.faces, np.int64)))
