"""What a run makes: a mesh with a texture. It can be saved, loaded and judged."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from .errors import UserError
from .export.formats import FileOptions, write_asset
from .export.glb import DRACO, METADATA
from .export.relief import Dense, Relief, bake_relief
from .export.texture import Picture, bake, unwrap_within
from .geometry.export_settings import ExportSettings
from .geometry.mesh import Mesh
from .paths import readable, user_path
from .scene.fitted import shown_surface
from .scene.scene import Scene
from .scene.silhouettes import Agreement, Silhouettes
from .torch_state import own_torch

SILHOUETTES = "silhouettes"
"""Key of the silhouettes' agreement among a file's details."""
POOR = 0.9
"""Below this IoU of the silhouettes the user is told."""
FAITHFUL = 0.95
"""From this IoU of the silhouettes on, the mesh stands for the scene in a run's film."""


@dataclass
class Asset:
    """A textured mesh: Y up, front towards +Z.

    mesh: with normals and texture coordinates; texture: (S, S, 3) uint8; prompt: the words it was made from;
    metadata: anything that JSON can hold (seed, preset, versions …), kept in GLB files;
    notes: export settings that could not be met, by name, with what was done instead (not kept in files);
    agreement: of the mesh's silhouettes with the scene's, from eight sides; None without
    ``fit`` and where there was nothing to compare;
    relief: a normal map and ambient occlusion, kept in GLB, OBJ and USDZ files; dense: the surface that they show, before it was
    decimated (not kept in files; None without maps).
    finish: (S, S, 3) uint8, roughness in green and metal in blue, as glTF has them; kept in GLB, OBJ and USDZ files; None for a
    matte surface.
    """

    mesh: Mesh
    texture: Picture
    prompt: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict, compare=False)
    agreement: Agreement | None = field(default=None, compare=False)
    relief: Relief = field(default_factory=Relief, compare=False)
    dense: Dense | None = field(default=None, compare=False, repr=False)
    finish: Picture | None = field(default=None, compare=False)

    @classmethod
    @own_torch()
    def from_scene(
        cls,
        scene: Scene,
        settings: ExportSettings | None = None,
        prompt: str = "",
        metadata: dict[str, Any] | None = None,
    ) -> Asset:
        """Extract the surface of a scene within the unit sphere and bake its albedo. UserError if it is empty."""
        settings = settings or ExportSettings()
        drawn = isinstance(scene, Scene)  # tests and users may bring something that is drawn otherwise
        surface = shown_surface(scene, settings) if drawn else scene.surface(settings)
        agreement, notes = None, dict(surface.notes)
        if drawn and settings.fit and (shown := Silhouettes.to_check(scene)).enough:
            agreement = shown.agreement(surface.mesh)
            notes |= poor_note(agreement)
        mesh, in_time = unwrap_within(surface.mesh, settings.texture_size, settings.unwrap_seconds)
        if not in_time:
            notes["unwrap_seconds"] = projected_note(settings)
        texture = bake(mesh, surface.colour, settings.texture_size)
        relief, dense = Relief(), None
        if settings.maps != "none":
            dense = Dense.of(surface.dense or surface.mesh, occluded=settings.maps != "normal")
            relief = bake_relief(mesh, dense, settings.texture_size, settings.maps)
        finish = bake(mesh, in_green_and_blue(surface.finish), settings.texture_size) if surface.finish else None
        return cls(mesh, texture, prompt, dict(metadata or {}), notes, agreement, relief, dense, finish)

    @property
    def faithful(self) -> bool:
        """Whether the mesh, drawn as a matte surface, is known to show what its scene shows (``FAITHFUL``)."""
        return self.finish is None and self.agreement is not None and self.agreement.iou >= FAITHFUL

    def save(self, path: str | Path, options: FileOptions | None = None) -> list[Path]:
        """Write the asset; the suffix is the format (.glb, .obj, .ply, .stl, .3mf, .usdz). Returns the files written.

        In files the object stands on the ground and is 1 m tall, or 100 mm in those for printing, unless ``options`` say
        otherwise. UserError if a library that compression needs is missing.
        """
        details = self.metadata | ({SILHOUETTES: asdict(self.agreement)} if self.agreement else {})
        options = replace(options or FileOptions(), finish=self.finish)
        return write_asset(user_path(path), self.mesh, self.texture, self.prompt, details, options, self.relief)

    @classmethod
    def load(cls, path: str | Path) -> Asset:
        """Read a GLB that ``save`` has written. UserError if the file is missing, compressed or something else."""
        path = user_path(path)
        with readable(path):
            data = path.read_bytes()
        try:
            tree = _glb_tree(data)
            details = tree["asset"]["extras"][METADATA]
            check_plain(path, tree)
            scene = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False)
            (body,) = scene.geometry.values()
            material = body.visual.material
            image = np.asarray(material.baseColorTexture.convert("RGB"), np.uint8)
            relief = Relief(
                None if (map := material.normalTexture) is None else np.asarray(map.convert("RGB"), np.uint8),
                None if (map := material.occlusionTexture) is None else np.asarray(map.convert("L"), np.uint8),
            )
            finish = (
                None if (map := material.metallicRoughnessTexture) is None else np.asarray(map.convert("RGB"), np.uint8)
            )
            mesh = Mesh(
                np.asarray(body.vertices, np.float64),
                np.asarray(body.faces, np.int64),
                np.asarray(body.vertex_normals, np.float64),
                np.asarray(body.visual.uv, np.float64),
            )
            prompt = details.pop("prompt")
            agreement = Agreement(**details.pop(SILHOUETTES)) if SILHOUETTES in details else None
        except (LookupError, ValueError, AttributeError, TypeError, OSError, struct.error) as error:
            raise UserError(f"{path} is not a GLB file that dreamfusion wrote") from error
        return cls(mesh, image, prompt, details, agreement=agreement, relief=relief, finish=finish)

    def geometry_report(self) -> dict[str, Any]:
        """Is the shape sound? In world units (of the scene, or of the file it was loaded from).

        watertight; components; triangles; vertices (seams not counted twice); euler = V - E + F; genus, the number of
        handles (None unless watertight) = components - euler / 2; volume; area; bounds [[x, y, z] low, high];
        silhouettes: {iou, missing, extra, pieces} against the scene's (``Agreement``), None if they are not known.
        """
        body = self.mesh.geometry()
        components = int(body.body_count)
        watertight = bool(body.is_watertight and body.is_winding_consistent)
        return {
            "watertight": watertight,
            "components": components,
            "triangles": len(body.faces),
            "vertices": len(body.vertices),
            "euler": int(body.euler_number),
            "genus": components - int(body.euler_number) // 2 if watertight else None,
            "volume": float(body.volume),
            "area": float(body.area),
            "bounds": np.asarray(body.bounds).tolist(),
            SILHOUETTES: self.agreement.rounded() if self.agreement else None,
        }


def in_green_and_blue(finish: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Roughness and metal (N, 2) as colours (N, 3), as glTF has them; red is free."""

    def colour(points: Tensor, normals: Tensor) -> Tensor:
        return torch.nn.functional.pad(finish(points, normals), (1, 0), value=1.0)

    return colour


def poor_note(agreement: Agreement) -> dict[str, str]:
    """A note for a mesh that does not show what its scene shows."""
    if agreement.iou >= POOR:
        return {}
    return {
        SILHOUETTES: f"the mesh does not show all that the scene shows: its silhouettes agree to {agreement.iou:.2f} "
        f"(intersection over union; {agreement.missing:.0%} is missing, {agreement.extra:.0%} is too much); try more "
        "--resolution, a lower --level, or more steps"
    }


def projected_note(settings: ExportSettings) -> str:
    """The note about a mesh that could not be unwrapped in time."""
    why = "" if settings.unwrap_seconds == 0 else "unwrapping took longer, or failed; "
    return f"export.unwrap_seconds = {settings.unwrap_seconds:g}: {why}the texture is projected from six sides"


def check_plain(path: Path, tree: Any) -> None:
    """UserError for a GLB whose mesh is compressed, from its JSON."""
    if DRACO in tree.get("extensionsRequired", ()):
        raise UserError(f"{path} is compressed and cannot be loaded; export the run again without --compress")


def _glb_tree(data: bytes) -> Any:
    """The JSON chunk of a GLB file (glTF 2.0, section 4.4)."""
    magic, _, _, length, kind = struct.unpack_from("<4sIII4s", data)
    if magic != b"glTF" or kind != b"JSON":
        raise ValueError("not a GLB file")
    return json.loads(data[20 : 20 + length])
