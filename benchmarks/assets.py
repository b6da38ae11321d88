"""The exported asset in figures: ``python benchmarks/assets.py --out runs/assets [--preset fast] [--prompts FILE]``.

Makes a run for each of a few prompts that are hard to export (spokes, chains, wires), exports it with the defaults and measures
the mesh, its texture, its files and its film. Finished runs are kept: the same command goes on. The result is
``results/assets.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jobs import Job, folder_of, run
from machine import provenance
from numpy.typing import NDArray

from dreamfusion.asset import Asset
from dreamfusion.errors import UserError
from dreamfusion.export.film import write_film
from dreamfusion.export.formats import FileOptions, check_compression
from dreamfusion.export.packing import charts_of
from dreamfusion.export.texture import cover, sample_texture
from dreamfusion.export.turntable import field_frames, mesh_frames, orbit_azimuths
from dreamfusion.files import write_atomic
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.flips import smallest_angles
from dreamfusion.geometry.mesh import Mesh
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.scene.scene import Scene
from dreamfusion.scene.silhouettes import Silhouettes
from dreamfusion.suites import load_suite
from dreamfusion.torch_state import threads
from dreamfusion.view.cameras import orbit_cameras

PROMPTS = (
    "a green bicycle",
    "a yellow chandelier",
    "a spiral staircase",
    "a swing",
    "sunglasses",
    "a red armchair",
)
RESULT = Path(__file__).parent / "results" / "assets.json"
SLIVER_DEG = 10.0
"""A triangle with a smaller angle is a sliver."""
SLOPING = 0.3
"""Upward component of the normal from which a face is a top, or below minus which it is an underside."""
FEW = 5_000
"""A number of triangles for games, beside the default."""
FRAMES, FEW_FRAMES, SIZE = 120, 4, 512
LUMA = (0.2126, 0.7152, 0.0722)


def sliver_share(mesh: Mesh) -> float:
    """The share of triangles with an angle below ``SLIVER_DEG``."""
    return float((smallest_angles(mesh.vertices, mesh.faces) < SLIVER_DEG).mean())


def albedo_of_faces(asset: Asset) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each triangle: the albedo's luminance, the upward component of the normal, and the area."""
    mesh = asset.mesh
    assert mesh.uv is not None and mesh.normals is not None
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    luminance = sample_texture(asset.texture, mesh.uv[mesh.faces].mean(1)) @ LUMA
    up = mesh.normals[mesh.faces].mean(1)[:, 1]
    return luminance.astype(np.float64), up, area


def albedo_slope(asset: Asset) -> float:
    """The correlation, over the surface, of the albedo's luminance with the upward component of the normal: 0 where the albedo knows
    nothing of the light, below 0 where undersides are too bright. In a thing of one plain colour, tiny differences make it large."""
    luminance, up, area = albedo_of_faces(asset)
    spread = np.cov(np.stack([luminance, up]), aweights=area)
    return float(spread[0, 1] / np.sqrt(max(spread[0, 0] * spread[1, 1], 1e-12)))


def undersides(asset: Asset) -> float | None:
    """How bright the albedo of undersides is, as a multiple of that of tops. None where it has only one of them."""
    luminance, up, area = albedo_of_faces(asset)
    below, above = up < -SLOPING, up > SLOPING
    if not (below.any() and above.any()):
        return None
    return float(np.average(luminance[below], weights=area[below]) / np.average(luminance[above], weights=area[above]))


def film_seconds(scene: Scene, asset: Asset) -> dict[str, float]:
    """Seconds of a film of the mesh, encoded, and of one of the field, frames alone, from a few of them."""
    cameras = orbit_cameras(orbit_azimuths(FRAMES))
    few = cameras[:: FRAMES // FEW_FRAMES]
    next(mesh_frames(asset.mesh, asset.texture, few, 64))  # compiled
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_film(Path(folder), mesh_frames(asset.mesh, asset.texture, cameras, SIZE), FRAMES)
    mesh = time.perf_counter() - begin
    next(field_frames(scene, few, SIZE))
    begin = time.perf_counter()
    for _ in field_frames(scene, few, SIZE):
        pass
    field = (time.perf_counter() - begin) / len(few) * FRAMES
    return {"mesh": round(mesh, 2), "field": round(field, 2), "ratio": round(field / mesh, 1)}


def file_sizes(asset: Asset) -> dict[str, int]:
    """Bytes of the asset's files; compressed ones only where their packages are there."""
    kinds = {"glb": FileOptions(), "usdz": FileOptions(), "glb compressed": FileOptions(compress=True)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in kinds.items():
            kind = name.split()[0]
            try:
                if options.compress:
                    check_compression([kind])
            except UserError:
                continue
            found[name] = sum(p.stat().st_size for p in asset.save(Path(folder) / f"asset.{kind}", options))
    return found


def measured(folder: Path) -> dict[str, Any]:
    """The figures of a finished run."""
    recorded = Run.open(folder)
    scene, _ = load_scene(recorded)
    settings = ExportSettings()
    begin = time.perf_counter()
    asset = Asset.from_scene(scene, settings, recorded.config.prompt)
    seconds = time.perf_counter() - begin
    few = Asset.from_scene(scene, replace_faces(settings, FEW))
    report = asset.geometry_report()
    shown = Silhouettes.to_check(scene)
    figures: dict[str, Any] = {"export_seconds": round(seconds, 1)}
    for name, made in (("default", asset), ("few", few)):
        body = Mesh(np.asarray(made.mesh.geometry().vertices), np.asarray(made.mesh.geometry().faces))
        figures[name] = {
            "triangles": len(body.faces),
            "slivers": round(sliver_share(body), 4),
            "silhouettes": shown.agreement(body).rounded(),
            "texels_used": round(float((cover(made.mesh, settings.texture_size)[0] >= 0).mean()), 3),
            "charts": charts_of(made.mesh)[0],
        }
    return figures | {
        "pieces": report["components"],
        "watertight": report["watertight"],
        "bytes": file_sizes(asset),
        "film_seconds": film_seconds(scene, asset),
        "albedo_slope": round(albedo_slope(asset), 3),
        "undersides": None if (bright := undersides(asset)) is None else round(bright, 3),
    }


def replace_faces(settings: ExportSettings, faces: int) -> ExportSettings:
    """The same settings with another number of triangles."""
    return settings.model_copy(update={"faces": faces})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--prompts", help="a suite or a file of prompts [a few that are hard to export]")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, a core each")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    try:
        prompts = load_suite(args.prompts) if args.prompts else list(PROMPTS)
        jobs = [Job(folder_of(args.out, p), p, args.preset) for p in prompts]
        failed = run(jobs, args.workers)
        page: dict[str, Any] = {"what": "assets", "preset": args.preset} | provenance() | {"prompts": {}}
        with threads(0) as count:
            page["threads"] = count
            for job in (job for job in jobs if job not in failed):
                page["prompts"][job.prompt] = found = measured(job.folder)
                print(f"{job.prompt}: {json.dumps(found)}", flush=True)
        write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())
    except UserError as error:
        sys.exit(f"assets: error: {error}")


if __name__ == "__main__":
    main()
