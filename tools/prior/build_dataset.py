"""Build the prior's data set: ``python tools/prior/build_dataset.py --out data/prior``.

Fetches Debian's ``sweethome3d-furniture`` (or takes ``--catalogue``, its unpacked furniture folder), draws every model
of ``vocabulary.py`` from many cameras and writes one ``<name>.<pass>.npz`` a model and pass: ``pixels`` (V, 5, 64, 64)
uint8 as ``render.py`` describes them and ``cameras`` (V, 3) float32 of azimuth, elevation (degrees) and distance.
Passes add views: a training run that has begun picks up new files at its next start. ``attribution.json`` names the
authors. Done files are skipped, so the build can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from vocabulary import MODELS

DISTANCE = (2.3, 2.7)


def fetch_catalogue(folder: Path) -> Path:
    """Download and unpack the Debian package; the folder that holds the ``.sh3f`` libraries."""
    libraries = folder / "usr/share/sweethome3d/furniture"
    if not libraries.exists():
        with tempfile.TemporaryDirectory() as tmp:
            subprocess.run(["apt-get", "download", "sweethome3d-furniture"], cwd=tmp, check=True)
            (package,) = Path(tmp).glob("*.deb")
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return libraries


def read_catalogue(library: Path) -> dict[int, dict[str, str]]:
    """Entries of one furniture library: number -> {name, category, creator, model, license …}."""
    text = zipfile.ZipFile(library).read("PluginFurnitureCatalog.properties").decode("latin-1")
    entries: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        if m := re.match(r"(\w+)#(\d+)\s*=\s*(.*)", line):
            entries.setdefault(int(m[2]), {})[m[1]] = m[3].strip()
    return entries


def sample_cameras(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) azimuth, elevation in degrees and distance; stratified in azimuth, three in four between -15 and 60."""
    azimuth = (rng.permutation(count) + rng.random(count)) / count * 360 - 180
    elevation = np.where(rng.random(count) < 0.75, rng.uniform(-15, 60, count), rng.uniform(-35, 90, count))
    return np.stack([azimuth, elevation, rng.uniform(*DISTANCE, count)], 1).astype(np.float32)


def draw(job: tuple[str, str, str, int, int]) -> str:
    """Draw one model's views of one pass (runs in a worker process)."""
    catalogue, out, name, pass_no, views = job
    target = Path(out) / f"{name.replace(' ', '_')}.{pass_no}.npz"
    if target.exists():
        return name
    from render import Renderer, load_obj

    global _renderer
    if "_renderer" not in globals():
        _renderer = Renderer(64)
    library, number = MODELS[name].split("#")
    path = Path(catalogue) / f"{library}.sh3f"
    entry = read_catalogue(path)[int(number)]
    with zipfile.ZipFile(path) as archive:
        _renderer.load(load_obj(archive, entry["model"].lstrip("/")))
    rng = np.random.default_rng([list(MODELS).index(name), pass_no])
    cameras = sample_cameras(views, rng)
    pixels = np.stack([_renderer.draw(*camera) for camera in cameras.tolist()])
    temporary = target.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(temporary, pixels=pixels, cameras=cameras)
    temporary.rename(target)
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--catalogue", type=Path, help="folder of the .sh3f files (default: fetched with apt-get)")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--views", type=int, default=128, help="views per model and pass")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    catalogue = args.catalogue or fetch_catalogue(args.out / "debian")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    entries = {
        name: read_catalogue(catalogue / f"{key.split('#')[0]}.sh3f")[int(key.split("#")[1])]
        for name, key in MODELS.items()
    }
    credit = {
        name: {"model": MODELS[name], "title": e.get("name"), "creator": e.get("creator"), "licence": e.get("license")}
        for name, e in entries.items()
    }
    (args.out / "attribution.json").write_text(json.dumps(credit, indent=1, ensure_ascii=False))
    jobs = [(str(catalogue), str(args.out), name, k, args.views) for k in range(args.passes) for name in MODELS]
    # Unlike multiprocessing's own pool, this one says so when a process dies instead of waiting for it for ever.
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for k, name in enumerate(pool.map(draw, jobs)):
            print(f"{k + 1}/{len(jobs)} {name}", flush=True)


if __name__ == "__main__":
    main()
