"""What normal maps and ambient occlusion bring and cost: ``python benchmarks/maps.py RUN [--faces 50000,20000,5000,2000]``.

Exports a finished run with several numbers of triangles. The result, ``results/maps.json``, has for each: by how many degrees the
normals are off those of the surface before decimation, and by how much (of 255) a clay picture from one side is, without and with the
map that is read back from the GLB; the bytes of GLB files; and the seconds of baking on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from machine import provenance

from dreamfusion.asset import Asset
from dreamfusion.errors import UserError
from dreamfusion.export.relief import Dense, Relief, bake_relief
from dreamfusion.export.tangents import bases, tangents
from dreamfusion.export.texture import sample_texture
from dreamfusion.files import write_atomic
from dreamfusion.geometry.distance import surface_points
from dreamfusion.geometry.mesh import Mesh
from dreamfusion.kernels.raster_fused import FUSED
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.scene.mesh_camera import clip_positions
from dreamfusion.view.cameras import orbit_cameras

PLACES, SIDE = 50_000, 640
LIGHT = np.array([0.50, 0.60, 0.62]) / np.linalg.norm([0.50, 0.60, 0.62])
AMBIENT = 0.35


def normals_at(mesh: Mesh, face: np.ndarray, weights: np.ndarray, normal_map: np.ndarray | None) -> np.ndarray:
    """Unit normals (N, 3) at places of a mesh: its own, or those of its normal map."""

    def at(values: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nkc->nc", weights, values[mesh.faces[face]])

    assert mesh.normals is not None
    found = at(mesh.normals)
    if normal_map is not None:
        assert mesh.uv is not None
        local = sample_texture(normal_map, at(mesh.uv)) * 2 - 1
        found = np.einsum("nij,nj->ni", bases(found, at(tangents(mesh))), local)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def clay(mesh: Mesh, normal_map: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A clay picture (S, S) in [0, 1] from one side, and where the mesh is (S, S)."""
    clip = clip_positions(torch.from_numpy(mesh.vertices.astype(np.float32)), orbit_cameras([30.0], 15.0, 2.2))
    face, weights = (found[0].numpy() for found in FUSED.rasterise(clip, torch.from_numpy(mesh.faces), SIDE))
    seen = face >= 0
    picture = np.ones(face.shape)
    normal = normals_at(mesh, face[seen], weights[seen], normal_map)
    picture[seen] = AMBIENT + (1 - AMBIENT) * np.maximum(normal @ LIGHT, 0)
    return picture, seen


def measure(scene: Any, config: Any, faces: int, folder: Path) -> dict[str, float]:
    """The figures of one number of triangles."""
    settings = config.export.model_copy(update={"faces": faces, "maps": "both"})
    asset = Asset.from_scene(scene, settings, config.prompt)
    assert asset.dense is not None
    begin = process_time()
    dense = Dense.of(asset.dense.mesh)
    auto = bake_relief(asset.mesh, dense, settings.texture_size, "auto")
    seconds = process_time() - begin
    sizes = {}
    for name, relief in (("none", Relief()), ("auto", auto), ("both", asset.relief)):
        asset.relief = relief
        (path,) = asset.save(folder / f"{name}.glb")
        sizes[name] = path.stat().st_size
    kept = Asset.load(folder / "both.glb").relief.normals
    mesh = asset.mesh
    face, weights = surface_points(mesh, PLACES)
    own, mapped = (normals_at(mesh, face, weights, m) for m in (None, kept))
    points = np.einsum("nk,nkc->nc", weights, mesh.vertices[mesh.faces[face]])
    true, _ = dense.met(points, own)
    truth, there = clay(dense.mesh)
    figures: dict[str, float] = {"faces": len(mesh.faces), "dense_faces": len(dense.mesh.faces)}
    for name, normals, normal_map in (("own", own, None), ("map", mapped, kept)):
        figures[f"degrees_{name}"] = round(
            float(np.degrees(np.arccos(np.clip((true * normals).sum(1), -1, 1))).mean()), 2
        )
        picture, seen = clay(mesh, normal_map)
        figures[f"shading_{name}"] = round(float(np.abs(picture - truth)[seen & there].mean() * 255), 2)
    return (
        figures
        | {f"bytes_{k}": v for k, v in sizes.items()}
        | {"seconds": round(seconds, 2), "auto_normals": auto.normals is not None}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--faces", default="50000,20000,5000,2000", help="numbers of triangles, separated by commas")
    parser.add_argument("--result", type=Path, default=Path(__file__).parent / "results" / "maps.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        scene, config = load_scene(Run.open(args.run))
        with tempfile.TemporaryDirectory() as folder:
            rows = [measure(scene, config, int(count), Path(folder)) for count in args.faces.split(",")]
    except (UserError, ValueError) as error:
        sys.exit(f"maps: error: {error}")
    page = {"what": "maps", "prompt": config.prompt, "texture": config.export.texture_size, "rows": rows} | provenance()
    write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
