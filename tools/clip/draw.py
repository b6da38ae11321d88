"""Draw the CLIPs' own views: ``python tools/clip/draw.py --out data/judge --models data/models --catalogue FOLDER``.

The same shapes as the prior's, but never the same pictures: every view has a lens, a distance and a key light of its own, drawn
from other ranges and another seed than the prior's (``tools/prior/build_dataset.py``). Judge and guide have a set each
(``--seed``). One ``<shape>.<pass>.npz`` a shape and pass: ``pixels`` (V, 6, 64, 64) uint8 as ``tools/prior/render.py``
describes them, but with the bare ``max(0, n . l)`` in place of the shading (the ambient share is drawn in training), and
``cameras`` (V, 4) float32 of azimuth, elevation, field of view (degrees) and distance. ``instances.json`` says which shapes show a
name. Every sixth view is held out of training. Done files are skipped, so the command can be stopped and started again.

``--rings`` draws the twelve views of the Janus score of one shape a name into ``<out>/rings``: nothing trains on them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "prior"))

from build_dataset import Job, draw_all, load, prepare_wide, save_views, sweep
from dataset import SHAPES_A_NAME, shapes_of, shown_by
from glb import ModelError
from models import Model, Name, TableError, read_names, stem_of

SEED = 20_231
HELD_OUT_EVERY = 6
RING = 12
LAMP = (0.0, 0.5, 3**0.5 / 2)
"""Of rings: 30 degrees above the camera."""


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
    return np.array([[360 / RING * k, 15, 47, 2.5] for k in range(RING)], np.float32)


def draw(job: Job) -> str:
    """Draw one shape's views of one pass, or its ring where there are 0 (runs in a worker process)."""
    target = Path(job.target)
    if target.exists():
        return target.name
    from render import Renderer  # needs moderngl, which tests do without

    global _renderer
    if "_renderer" not in globals():
        _renderer = Renderer(64)
        _renderer.program["ambient"].value = 0.0
    try:
        _renderer.load(load(job))
    except ModelError as error:
        raise ModelError(f"{Path(job.folder) / job.file}: {error}") from None
    rng = np.random.default_rng(list(job.seed))
    cameras = sample_cameras(job.views, rng) if job.views else ring_cameras()
    pixels = []
    for azimuth, elevation, fov, distance in cameras.tolist():
        _renderer.projection = projection(fov)
        _renderer.program["light"].value = sample_light(rng) if job.views else LAMP
        pixels.append(_renderer.draw(azimuth, elevation, distance))
    save_views(target, np.stack(pixels), cameras)
    return target.name


def chosen(drawn: list[Model], shown: dict[str, list[str]], names: dict[str, Name], rings: bool) -> list[Model]:
    """The models to draw: all that show a name, or one a name that has a front."""
    stems = set(shapes_of(shown))
    models = {stem: model for model in drawn if (stem := stem_of(model.file)) in stems}
    if rings:
        firsts = [next((s for s in shown[n] if names[models[s].name].front), "") for n in shown if names[n].front]
        return [models[stem] for stem in dict.fromkeys(filter(None, firsts))]
    return list(models.values())


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """What is to be drawn."""
    drawn = prepare_wide(args.models, args.out)
    models = chosen(drawn, shown_by(args.out, SHAPES_A_NAME), read_names(), args.rings)
    passes, views, out = (1, 0, args.out / "rings") if args.rings else (args.passes, args.views, args.out)
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)
    return [
        Job(
            str(args.models if model.is_glb else args.catalogue),
            model.file,
            model.turn_deg,
            str(out / f"{stem_of(model.file)}.{k}.npz"),
            (SEED + args.seed, zlib.crc32(model.file.encode()), k),
            views,
        )
        for k in range(passes)
        for model in models
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder of the GLBs of models.tsv")
    parser.add_argument("--catalogue", type=Path, required=True, help="folder of the .sh3f files (data/wide/debian/…)")
    parser.add_argument("--views", type=int, default=24, help="views per shape and pass")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--rings", action="store_true", help="draw the rings of the Janus score")
    parser.add_argument("--seed", type=int, default=0, help="another number gives other views")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("LP_NUM_THREADS", "1")
    try:
        draw_all(jobs_of(args), args.workers, draw)
    except (ModelError, TableError) as error:
        print(f"draw: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("draw: stopped; what is drawn is kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
