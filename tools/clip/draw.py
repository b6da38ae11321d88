"""Draw the judge's own data set: ``python tools/clip/draw.py --out data/clip --catalogue FOLDER``.

The same catalogue models as the prior's, but never the same pictures: every view has a lens, a distance and a key light of
its own, drawn from other ranges and another seed than the prior's views (``tools/prior/build_dataset.py``). One
``<name>.npz`` a model: ``pixels`` (V, 5, 64, 64) uint8 as ``tools/prior/render.py`` describes them, but with the bare
``max(0, n . l)`` in place of the shading (the ambient share is drawn in training), and ``cameras`` (V, 4) float32 of
azimuth, elevation, field of view (degrees) and distance. Every sixth view is held out of training. Done files are skipped.
With ``--more`` another set, of the things that have a front (telling an azimuth takes more views than telling a thing), into
``<out>/more``; with ``--rings`` the twelve views of the Janus score in place of random ones, into ``<out>/rings``: nothing
trains on them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "prior"))

from build_dataset import read_catalogue
from vocabulary import MODELS

from dreamfusion.evaluation.fronts import fronts

SEED = 20_231
HELD_OUT_EVERY = 6


def sample_cameras(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 4) azimuth, elevation, field of view in degrees and distance.

    Azimuths are stratified; the distance is such that the unit sphere takes 0.85 to 1.15 times the frame's height.
    """
    azimuth = (rng.permutation(count) + rng.random(count)) / count * 360 - 180
    elevation = np.where(rng.random(count) < 0.8, rng.uniform(-20, 50, count), rng.uniform(-35, 85, count))
    fov = rng.uniform(28, 62, count)
    filled = rng.uniform(0.85, 1.15, count)
    distance = 1 / (filled * np.sin(np.radians(fov) / 2))
    return np.stack([azimuth, elevation, fov, np.maximum(distance, 1.3)], 1).astype(np.float32)


def sample_light(rng: np.random.Generator) -> tuple[float, float, float]:
    """A unit direction in camera axes (x right, y up, z to the viewer): anywhere in front of the object, mostly above."""
    above, around = math.radians(rng.uniform(-15, 75)), math.radians(rng.uniform(-80, 80))
    return math.sin(around) * math.cos(above), math.sin(above), math.cos(around) * math.cos(above)


def projection(fov_deg: float) -> np.ndarray:
    """OpenGL's projection (4, 4) of a square picture, near 0.1, far 10."""
    near, far, f = 0.1, 10.0, 1 / math.tan(math.radians(fov_deg) / 2)
    depth = [0, 0, (far + near) / (near - far), 2 * far * near / (near - far)]
    return np.array([[f, 0, 0, 0], [0, f, 0, 0], depth, [0, 0, -1, 0]])


def ring_cameras() -> np.ndarray:
    """(12, 4): twelve azimuths, 15 degrees above, the prior's lens and distance."""
    return np.array([[30 * k, 15, 47, 2.5] for k in range(12)], np.float32)


def draw(job: tuple[str, str, str, int]) -> str:
    """Draw one model's views, or its ring where there are 0 (runs in a worker process)."""
    catalogue, out, name, views = job
    target = Path(out) / f"{name.replace(' ', '_')}.npz"
    if target.exists():
        return name
    from render import Renderer, load_obj  # needs moderngl, which tests do without

    global _renderer
    if "_renderer" not in globals():
        _renderer = Renderer(64)
        _renderer.program["ambient"].value = 0.0
    library, number = MODELS[name].split("#")
    path = Path(catalogue) / f"{library}.sh3f"
    with zipfile.ZipFile(path) as archive:
        _renderer.load(load_obj(archive, read_catalogue(path)[int(number)]["model"].lstrip("/")))
    rng = np.random.default_rng([SEED, list(MODELS).index(name), *([1] if target.parent.name == "more" else [])])
    cameras = sample_cameras(views, rng) if views else ring_cameras()
    lamp = (0.0, 0.5, 3**0.5 / 2)  # 30 degrees above the camera
    pixels = []
    for azimuth, elevation, fov, distance in cameras.tolist():
        _renderer.projection = projection(fov)
        _renderer.program["light"].value = sample_light(rng) if views else lamp
        pixels.append(_renderer.draw(azimuth, elevation, distance))
    temporary = target.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(temporary, pixels=np.stack(pixels), cameras=cameras)
    temporary.rename(target)
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--catalogue", type=Path, required=True, help="folder of the .sh3f files (data/prior/debian/…)")
    parser.add_argument("--views", type=int, default=96, help="views per model")
    parser.add_argument("--more", action="store_true", help="draw another set of the things that have a front")
    parser.add_argument("--rings", action="store_true", help="draw the rings of the Janus score")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    out, views = (args.out / "rings", 0) if args.rings else (args.out, args.views)
    names = list(MODELS)
    if args.more:
        out, names = args.out / "more", [name for name in names if name in fronts()]
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("LP_NUM_THREADS", "1")
    jobs = [(str(args.catalogue), str(out), name, views) for name in names]
    # Unlike multiprocessing's own pool, this one says so when a process dies instead of waiting for it for ever.
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for k, name in enumerate(pool.map(draw, jobs)):
            print(f"{k + 1}/{len(jobs)} {name}", flush=True)


if __name__ == "__main__":
    main()
