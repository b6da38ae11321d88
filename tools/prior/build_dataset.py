"""Build the prior's data set: ``python tools/prior/build_dataset.py --out data/prior``.

Fetches Debian's ``sweethome3d-furniture`` (or takes ``--catalogue``, its unpacked furniture folder), draws every model
of ``vocabulary.py`` from many cameras and writes one ``<name>.<pass>.npz`` a model and pass: ``pixels`` (V, 6, 64, 64)
uint8 as ``render.py`` describes them and ``cameras`` (V, 3) float32 of azimuth, elevation (degrees) and distance.
Passes add views: a training run that has begun picks up new files at its next start. ``attribution.json`` names the
authors. Done files are skipped, so the build can be stopped and started again.

``--models DIR`` draws the wide vocabulary of ``names.tsv`` too: the models of ``models.tsv``, whose GLB files are in DIR, and
more of the catalogue's: what ``Data`` takes of it, at most four shapes a name. ``instances.json`` says which files show which name.

``--names 'chair, teapot'``, or a file with a name a line, draws only what shows these names of ``names.tsv``: a small set, from which a
small prior is trained in minutes. It needs only their GLB files. Without ``--models`` it takes what the catalogue has of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from difflib import get_close_matches
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from dataset import shapes_of, shown_by
from glb import ModelError, chunks, load_glb, turned
from models import NAME_OF, NAMES_TABLE, Model, TableError, check_folder, instances, read_models, read_names, stem_of
from render import Part, Renderer, load_obj
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


@dataclass(frozen=True)
class Job:
    """One model to draw in one pass: ``file`` as ``models.tsv`` has it, from ``folder`` (of .sh3f files or of GLBs)."""

    folder: str
    file: str
    turn_deg: float
    target: str
    seed: tuple[int, ...]
    views: int


def load(job: Job) -> list[Part]:
    """A job's parts, turned and normalised."""
    if job.file.endswith(".glb"):
        return load_glb((Path(job.folder) / job.file).read_bytes(), job.turn_deg)
    library, number = job.file.split("#")
    path = Path(job.folder) / f"{library}.sh3f"
    entry = read_catalogue(path)[int(number)]
    with zipfile.ZipFile(path) as archive:
        return turned(load_obj(archive, entry["model"].lstrip("/")), job.turn_deg)


def draw(job: Job) -> str:
    """Draw one model's views of one pass (runs in a worker process); its file appears whole or not at all."""
    target = Path(job.target)
    if target.exists():
        return target.name
    global _renderer
    if "_renderer" not in globals():
        _renderer = Renderer(64)
    try:
        _renderer.load(load(job))
    except ModelError as error:
        raise ModelError(f"{Path(job.folder) / job.file}: {error}") from None
    cameras = sample_cameras(job.views, np.random.default_rng(list(job.seed)))
    pixels = np.stack([_renderer.draw(*camera) for camera in cameras.tolist()])
    save_views(target, pixels, cameras)
    return target.name


def save_views(target: Path, pixels: np.ndarray, cameras: np.ndarray) -> None:
    """Write one model's views of one pass whole or not at all."""
    # The dot keeps a file that is being written from being read.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, pixels=pixels, cameras=cameras)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a build that was killed left half-written."""
    for path in folder.glob(".*.tmp"):
        try:
            os.kill(int(path.suffixes[-2][1:]), 0)
        except (ValueError, ProcessLookupError):
            path.unlink(missing_ok=True)
        except PermissionError:
            continue


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    temporary.rename(path)


def narrow_jobs(catalogue: Path, out: Path, views: int, pass_no: int) -> list[Job]:
    """The jobs of ``vocabulary.py`` in one pass."""
    return [
        Job(str(catalogue), key, 0.0, str(out / f"{stem_of(key)}.{pass_no}.npz"), (number, pass_no), views)
        for number, key in enumerate(MODELS.values())
    ]


def wide_jobs(
    models: Path | None, catalogue: Path, out: Path, views: int, pass_no: int, drawn: list[Model]
) -> list[Job]:
    """The jobs of ``models.tsv`` in one pass, without those of ``vocabulary.py``."""
    return [
        Job(
            str(models if model.is_glb else catalogue),
            model.file,
            model.turn_deg,
            str(out / f"{stem_of(model.file)}.{pass_no}.npz"),
            (zlib.crc32(model.file.encode()), pass_no),
            views,
        )
        for model in drawn
        if model.file not in NAME_OF
    ]


def asked_names(asked: str, known: Sequence[str]) -> list[str]:
    """The names of ``--names``: of a file, a line each, or separated by commas. TableError for one that is not known."""
    path = Path(asked)
    text = path.read_text(encoding="utf-8").replace("\n", ",") if path.is_file() else asked
    names = list(dict.fromkeys(name for word in text.split(",") if (name := word.strip())))
    if not names:
        raise TableError(f"--names {asked!r} has no names")
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
            raise TableError(f"--names: {name!r} is not in {NAMES_TABLE.name}{hint}")
    return names


def prepare_wide(folder: Path | None, out: Path, asked: str | None = None) -> list[Model]:
    """Check the tables and the folder of GLBs (None: the catalogue alone), write ``instances.json``; the models to draw, of all names or
    of those that are ``asked`` for."""
    models, names = read_models(), read_names()
    wanted = list(names) if asked is None else asked_names(asked, list(names))
    every = instances(models, names)
    shown = {name: [m for m in every[name] if folder or not m.is_glb] for name in wanted}
    if empty := [name for name, found in shown.items() if not found]:
        raise TableError(f"no model of the catalogue shows {empty[0]!r}; --models has those of other sources")
    chosen = {model.file for found in shown.values() for model in found}
    drawn = [model for model in models if model.file in chosen]
    if folder:
        check_folder(folder, models, models if asked is None else drawn)
    for model in drawn:
        if folder and model.is_glb:
            try:
                chunks((folder / model.file).read_bytes())
            except ModelError as error:
                raise ModelError(f"{folder / model.file}: {error}") from None
    write_json(out / "instances.json", {name: [stem_of(m.file) for m in found] for name, found in shown.items()})
    return drawn


def credits_of(catalogue: Path) -> dict[str, dict[str, str | None]]:
    """Authors and licences of the models of ``vocabulary.py``, as the catalogue has them."""
    out = {}
    for name, key in MODELS.items():
        library, number = key.split("#")
        e = read_catalogue(catalogue / f"{library}.sh3f")[int(number)]
        out[name] = {"model": key, "title": e.get("name"), "creator": e.get("creator"), "licence": e.get("license")}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--catalogue", type=Path, help="folder of the .sh3f files (default: fetched with apt-get)")
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of the GLB files that models.tsv names")
    parser.add_argument("--names", help="draw only these names: separated by commas, or a file with a name a line")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--views", type=int, default=128, help="views per model and pass")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    try:
        build(args)
    except (ModelError, TableError) as error:
        print(f"build_dataset: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("build_dataset: stopped; what is drawn is kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)


def build(args: argparse.Namespace) -> None:
    """Draw what is not drawn yet."""
    args.out.mkdir(parents=True, exist_ok=True)
    sweep(args.out)
    wide = args.models or args.names
    drawn = prepare_wide(args.models, args.out, args.names) if wide else []
    catalogue = args.catalogue or fetch_catalogue(args.out / "debian")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    write_json(args.out / "attribution.json", credits_of(catalogue))
    jobs = []
    for k in range(args.passes):
        jobs += narrow_jobs(catalogue, args.out, args.views, k)
        jobs += wide_jobs(args.models, catalogue, args.out, args.views, k, drawn)
    if wide:
        taken = set(shapes_of(shown_by(args.out)))
        jobs = [job for job in jobs if stem_of(job.file) in taken]
    draw_all(jobs, args.workers)


def draw_all(jobs: list[Job], workers: int, work: Callable[[Job], str] = draw) -> None:
    """Draw what is not drawn yet. Where a driver crashes its process, a new one goes on; twice at one model ends it."""
    left, tries = [job for job in jobs if not Path(job.target).exists()], 0
    while left:
        # Unlike multiprocessing's own pool, this one says so when a process dies instead of waiting for it for ever.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            try:
                for k, name in enumerate(pool.map(work, left), len(jobs) - len(left) + 1):
                    print(f"{k}/{len(jobs)} {name}", flush=True)
            except BrokenProcessPool:
                pool.shutdown(wait=False)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        before, left = left, [job for job in left if not Path(job.target).exists()]
        tries = tries + 1 if len(left) == len(before) else 0
        if tries == 2:
            raise ModelError(f"{left[0].file}: the process that draws it dies")


if __name__ == "__main__":
    main()
