"""What the commands do: read the options, call the library, print. torch is imported only to compute."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError, nearest
from .files import write_atomic
from .output import Output
from .paths import check_file, check_folder, kind_of, user_path
from .settings.options import given_settings

if TYPE_CHECKING:
    from .asset import Asset
    from .run import Run

KINDS: dict[str, Any] = {
    "color": "lambertian",
    "albedo": "albedo",
    "normal": "normal",
    "depth": "depth",
    "textureless": "textureless",
    "opacity": "opacity",
}
"""What ``render --kind`` takes, and the renderer's words for it."""
MODEL_FILES = ("glb", "gltf", "obj", "ply", "stl", "3mf", "usdz", "usd", "usda", "usdc", "fbx", "dae")
"""A name that ends so is meant as a file, whether or not the format is known."""


def generate(given: argparse.Namespace) -> int:
    from .more_steps import is_steps
    from .run import Run
    from .settings.presets import resolve

    settings = given_settings(given)
    # Mistakes are found before torch is loaded, which takes seconds.
    if given.resume:
        more = {name: value for name, value in settings.items() if is_steps(name)}
        extra = [*(["a prompt"] if given.prompt else []), *(name for name in settings if name not in more)]
        extra += [name for name in ("preset", "out") if getattr(given, name)]
        if extra:
            raise UserError(
                f"--resume uses the run's own settings, and takes more --steps; leave out {', '.join(extra)}"
            )
        run = Run.open(given.resume)
        with run.locked():
            run.load_checkpoint(resumable=True)
            return record(given.output, run, resume=run.path, **more)
    config = resolve(given.preset or "balanced", settings, given.prompt or "")
    with Run.claim(run_folder(given.out) if given.out else None, config) as run:
        return record(given.output, run, out=run.path, config=config)


def record(output: Output, run: Run, **where: Any) -> int:
    """Make a run's asset until a signal stops it; ``where``: what ``generate`` is told about the run."""
    from . import generation
    from .display import Display
    from .interrupts import stopped_by_signals

    folder = run.path
    shown = run.config.prompt or Path(run.config.prior.image).name
    title = f"{shown!r}, preset {run.config.preset}, seed {run.config.seed}, in {folder}"
    begin = time.monotonic()
    with stopped_by_signals() as stop:
        try:
            with Display(title) as display:
                asset = generation.generate(callbacks=[display], stop=stop.event, **where)
        except generation.Stopped as stopped:
            print(f"dreamfusion: {stopped} (signal {stop.signal})", file=sys.stderr)
            return 128 + stop.signal
    summary(output, folder, asset.geometry_report() | projected(asset), time.monotonic() - begin)
    return 0


def summary(output: Output, folder: Path, report: dict[str, Any], seconds: float) -> None:
    """What was made."""
    from .display import clock, memory_mb
    from .run import CONFIG, LOG

    peak = memory_mb()[1]
    output.say(f"{clock(seconds)} min, peak memory {peak:.0f} MB, {shape_line(report)}")
    output.note(folder=str(folder), seconds=round(seconds, 1), peak_memory_mb=round(peak), geometry=report)
    for name in ("asset.glb", "splats.ply", "splats.glb", "turntable.mp4", "turntable.gif", "preview.png", CONFIG, LOG):
        if (folder / name).is_file():
            output.file(folder / name)


def shape_line(report: dict[str, Any]) -> str:
    """What a geometry report says, in a line."""
    count, shown = report["components"], report["silhouettes"]
    said = f"{report['triangles']} triangles, {count} piece{'s' if count != 1 else ''}, "
    said += "watertight" if report["watertight"] else "not watertight"
    if shown:
        said += f", silhouettes {shown['iou']:.2f} IoU, {shown['missing']:.1%} missing"
    return said + (", texture projected from six sides" if report.get("projected") else "")


def projected(asset: Asset) -> dict[str, Any]:
    """What a summary adds about an asset that could not be unwrapped in time."""
    return {"projected": True} if "unwrap_seconds" in asset.notes else {}


def export(given: argparse.Namespace) -> int:
    from .run import Run
    from .settings.names import changed, stage_configs

    run = Run.open(given.run)
    own = ("faces", "texture_size", "resolution", "level", "maps", "unwrap_seconds")
    options = {f"export.{name}": getattr(given, name) for name in own}
    options["export.fit"] = "no" if given.level else None  # a level that is asked for is meant
    config = changed(run.config, {k: v for k, v in options.items() if v is not None})
    from .asset import Asset
    from .export.formats import (
        COMPRESSED,
        FORMATS,
        PRINTED,
        FileOptions,
        check_compression,
        check_format,
        lod_path,
        write_collider,
        write_lods,
    )
    from .export.lods import triangles_of
    from .export.splat_files import SUFFIXES, write_splats
    from .generation import say, unmet
    from .recorded import load_scene
    from .scene.particles import shown_of
    from .scene.splat_scene import SplatScene
    from .torch_state import threads

    out = user_path(given.out) if given.out else run.path
    formats = names(given.format, FORMATS, "format") if given.format else ["glb"]
    paths = [out / f"asset.{kind}" for kind in formats]
    if names_file(out, MODEL_FILES):
        check_format(out)
        if given.format and formats != [out.suffix[1:].lower()]:
            raise UserError(
                f"--out {out} is one file, and --format {given.format} asks for something else; give a folder"
            )
        paths = [out]
    kinds = {path.suffix[1:].lower() for path in paths}
    printed, placed = kinds & set(PRINTED), kinds - set(PRINTED)
    for name, has_effect, why in (
        ("texture_size", placed, f"on {' and '.join(sorted(kinds))}, which holds no colours"),
        ("maps", placed - {"ply"}, f"on {' and '.join(sorted(kinds))}, which has no texture"),
        ("unwrap_seconds", placed, f"on {' and '.join(sorted(kinds))}, which has no texture"),
        ("height", placed or given.collider or given.splats, "on stl and 3mf, which take --height-mm"),
        ("height_mm", printed, "except on stl and 3mf; others take --height, in metres"),
        ("flat_base", printed, "except on stl and 3mf"),
        ("lods", placed, "on stl and 3mf"),
        ("compress", kinds & set(COMPRESSED), f"except on {' and '.join(COMPRESSED)}"),
    ):
        if getattr(given, name) and not has_effect:
            raise UserError(f"--{name.replace('_', '-')} has no effect {why}; leave it out, or add a --format")
    if given.compress:
        check_compression(kinds)  # now, and not after minutes
    file_options = FileOptions(
        height=number("--height", given.height or "1", 1e-3, 1e3),
        height_mm=number("--height-mm", given.height_mm or "100", 1, 1e4),
        flat_base=given.flat_base,
        compress=given.compress,
    )
    last = stage_configs(config)[-1].scene.kind
    if given.splats and last != "splats":
        raise UserError(f"--splats: the scene of {run.path} is a {last}, which has no splats; leave it out")
    cloud = paths[0].with_name(f"{paths[0].stem}-splats")
    for suffix in SUFFIXES if given.splats else ():
        check_file(cloud.with_suffix(suffix))
    lods = whole("--lods", given.lods, 1, 5) if given.lods else 0
    if lods > (most := len(triangles_of(config.export.faces, lods))):
        raise UserError(f"--lods {lods} is too many: {config.export.faces} triangles are enough for {most}")
    hull = paths[0].with_name(f"{paths[0].stem}-collider.glb")
    if given.collider:
        check_file(hull)
    coarser = [path for path in paths if path.suffix[1:].lower() not in PRINTED]
    for path in [*paths, *(lod_path(path, k + 1) for path in coarser for k in range(lods))]:
        check_file(path)
    with threads(config.threads):
        scene, _ = load_scene(run)
        asset = Asset.from_scene(scene, config.export, config.prompt, {"preset": config.preset, "seed": config.seed})
    for name in ("level", "resolution"):
        if getattr(given, name) and name in asset.notes:
            raise UserError(asset.notes[name].replace(f"export.{name} =", f"--{name}"))
    say([asset.notes["faces"]] if given.faces and "faces" in asset.notes else unmet(asset, config.export))
    for target in paths:
        for path in asset.save(target, file_options):
            given.output.file(path)
    for target in coarser if lods else ():
        made = write_lods(
            target, asset.mesh, asset.texture, lods, config.prompt, file_options, asset.dense, config.export
        )
        for triangles, files in made:
            given.output.say(f"{triangles} triangles:")
            for path in files:
                given.output.file(path)
    if given.collider:
        given.output.file(write_collider(hull, asset.mesh, file_options))
    if given.splats and isinstance(splats := shown_of(scene), SplatScene):
        details = {"prompt": config.prompt, **asset.metadata}
        for path in write_splats(cloud, splats.data(), asset.mesh, details, file_options.height):
            given.output.file(path)
    report = asset.geometry_report()
    given.output.say(shape_line(report | projected(asset)))
    given.output.note(geometry=report)
    return 0


def render(given: argparse.Namespace) -> int:
    from .run import Run

    run = Run.open(given.run)
    azimuths = azimuths_deg(given.views)
    size = whole("--size", given.size, 16, 4096)
    frames = whole("--frames", given.frames, 1, 2000)
    elevation = number("--elevation", given.elevation, -90, 90)
    radius = number("--radius", given.radius, 1, 100)
    from .export.film import write_film
    from .export.formats import png_bytes
    from .export.pictures import render_view
    from .export.turntable import orbit_azimuths, to_uint8
    from .recorded import load_scene
    from .torch_state import threads
    from .view.cameras import orbit_cameras
    from .view.view import orbit_view

    kinds = names(given.kind, KINDS, "kind")
    unused = ("views", "8", "without") if given.turntable else ("frames", "120", "with")
    if getattr(given, unused[0]) != unused[1]:
        raise UserError(f"--{unused[0]} has an effect only {unused[2]} --turntable; leave one of them out or add it")
    out = user_path(given.out) if given.out else run.path if given.turntable else run.path / "views"
    one = names_file(out, ("png", "mp4", "gif"))
    if one and (given.turntable or out.suffix.lower() != ".png" or len(kinds) * len(azimuths) > 1):
        raise UserError(
            f"--out {out} is one file; name a folder, or ask for one still (--views 0, --kind color) and a .png"
        )
    check_file(out) if one else check_folder(out)
    with threads(run.config.threads):
        scene, _ = load_scene(run)

        def draw(kind: str, azimuth: float) -> Any:
            view = orbit_view(orbit_cameras([azimuth], elevation, radius), size)
            return to_uint8(render_view(scene, view, KINDS[kind]))[0]

        for kind in kinds:
            if given.turntable:
                folder = out / (kind if kind != "color" else "")
                films = write_film(folder, (draw(kind, a) for a in orbit_azimuths(frames)), frames)
                for path in films:
                    given.output.file(path)
                continue
            for azimuth in azimuths:
                path = out if one else out / f"{kind}-{azimuth:g}.png"
                write_atomic(path, png_bytes(draw(kind, azimuth)))
                given.output.file(path)
    return 0


def evaluate(given: argparse.Namespace) -> int:
    from .run import CONFIG

    views, seed = whole("--views", given.views, 1, 64), whole("--seed", given.seed, 0, 2**31)
    out, page = user_path(given.out), user_path(given.html) if given.html else None
    if out.suffix.lower() != ".json":
        raise UserError(f"--out {out}: the figures are JSON; its name must end in .json")
    for run in given.runs:
        if kind_of(user_path(run)) == "nothing":
            raise UserError(f"there is no run at {run}: no such folder (a run's folder holds {CONFIG})")
    for path in (out, *([page] if page else [])):
        check_file(path)
    import json

    from .evaluation import evaluate_full
    from .evaluation.summary import table

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    options = {"views": views, "seed": seed, "ceiling": given.ceiling, "progress": progress}
    found, html = evaluate_full(given.runs, given.clip, given.prompts, **options)
    given.output.say(table(found))
    given.output.note(**found)
    write_atomic(out, json.dumps(found, indent=1, allow_nan=False).encode())
    given.output.file(out)
    if page:
        write_atomic(page, html.encode())
        given.output.file(page)
    return 0


def compare(given: argparse.Namespace) -> int:
    out = user_path(given.out) if given.out else None
    if out:
        check_file(out)
    if Path(given.first).is_file() and Path(given.second).is_file() and (given.prompts or given.clip != "bundled"):
        raise UserError(
            "--clip and --prompts judge folders of runs; these two files are judged already, leave them out"
        )
    import json

    from .evaluation import compare, evaluate, read
    from .evaluation.comparison import table

    places = [user_path(given.first), user_path(given.second)]
    for place in places:
        if kind_of(place) == "nothing":
            raise UserError(f"there is no run and no evaluation at {place}: no such file or folder")
    earlier = {place: read(place) for place in places if kind_of(place) == "file"}

    def judged(place: Path) -> dict[str, Any]:
        if place in earlier:
            return earlier[place]
        return evaluate([place], given.clip, given.prompts, progress=lambda line: print(line, file=sys.stderr))

    found = compare(*map(judged, places))
    given.output.say(table(found))
    given.output.note(**found)
    if out:
        write_atomic(out, json.dumps(found, indent=1, allow_nan=False).encode())
        given.output.file(out)
    return 0


def prior_sample(given: argparse.Namespace) -> int:
    from .prompts import check_prompt, slug

    prompt = check_prompt(given.prompt) if given.prompt or not given.image else ""
    views = whole("--views", given.views, 1, 64)
    guidance = number("--guidance-scale", given.guidance_scale, 0, 1000)
    seed = whole("--seed", given.seed, 0, 2**63 - 1)
    out = user_path(given.out or f"{slug(prompt or Path(given.image).stem)}-prior.png")
    if sum([given.jointly, given.words_only, bool(given.image)]) > 1:
        raise UserError("--jointly, --words-only and --image are different questions; leave all but one out")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the contact sheet is a picture; its name must end in .png")
    check_file(out)
    import numpy as np

    from .export.formats import png_bytes
    from .export.turntable import to_uint8
    from .generation import say
    from .loading import load_prior
    from .priors.prior import Prior
    from .priors.prior_settings import Asks
    from .prompt_checks import prompt_notes, unread_notes
    from .samples import sample_around
    from .settings.names import build

    if given.jointly and views == 1:
        raise UserError("--jointly relates views to each other; give --views 2 or more")
    prior = load_prior(given.prior, instance=seed)
    if given.image:
        from .reference import read_reference

        given.output.say(prior.describe(read_reference(given.image), prompt))
    else:
        say([*prompt_notes(prior, prompt), *unread_notes(prior, build({"prompt": prompt}))])
    if not isinstance(prior, Prior):
        raise UserError(f"the prior {given.prior!r} scores pictures and cannot be sampled")
    asks: Asks = "views" if given.jointly else "words" if given.words_only else "image" if given.image else "camera"
    drawn = sample_around(prior, prompt, views, guidance, seed, asks=asks, image=given.image or "")
    larger = to_uint8(drawn).repeat(3, 1).repeat(3, 2)  # 3 x 3 for a pixel: 64 is small on a screen
    write_atomic(out, png_bytes(np.concatenate(list(larger), 1)))
    given.output.file(out)
    return 0


def prior_info(given: argparse.Namespace) -> int:
    from .loading import load_prior
    from .prior_report import describe_prior

    own = given.prior == "bundled" or given.prior.endswith(".safetensors")
    if given.names is not None:
        return _prior_names(given, own)
    said = load_prior(given.prior).info() if own else describe_prior(given.prior)
    given.output.note(**said)
    for key, value in said.items():
        if isinstance(value, list | tuple):
            value = f"{len(value)}: {', '.join(map(str, value))}"
        given.output.say(f"{key}: {value}")
    return 0


def _prior_names(given: argparse.Namespace, own: bool) -> int:
    """The names whose meaning is nearest to the words of ``--names``, or all of them where it has no words."""
    from .loading import load_prior
    from .priors.bundled_prior import BundledPrior

    prior = load_prior(given.prior) if own else None
    if not isinstance(prior, BundledPrior):
        raise UserError(f"the prior {given.prior} has no list of names: its text encoder reads any words")
    words = " ".join(given.names).strip()
    found = prior.search(words) if words else [(name, 1.0) for name in prior.vocabulary]
    given.output.note(names=[{"name": name, "similarity": round(value, 3)} for name, value in found])
    for name, value in found:
        known = prior.entry(name)
        shapes = f"{known['shapes']} shape{'s' if known['shapes'] > 1 else ''}"
        given.output.say(f"{name:28} {known['category']}, {shapes}" + (f", similarity {value:.2f}" if words else ""))
    return 0


def presets(given: argparse.Namespace) -> int:
    from .settings.names import STAGES, as_text, build, flatten
    from .settings.presets import load_preset, preset_names, preset_text

    output: Output = given.output
    if given.name is None and given.full:
        raise UserError("--full shows every setting of one preset; name it, such as 'dreamfusion presets fast --full'")
    if given.name is None:
        said = {name: preset_text(name).splitlines()[0].lstrip("# ") for name in preset_names()}
        output.note(presets=said)
        for name, first in said.items():
            output.say(f"{name:16} {first}")
        return 0
    config = build(load_preset(given.name))
    shown = flatten(config.model_dump(exclude={"prompt", STAGES}))
    for k, page in enumerate(config.stages, 1):
        shown |= {f"{STAGES}.{k}.{name}": value for name, value in page.items()} or {f"{STAGES}.{k}": "as above"}
    output.note(preset=given.name, settings=shown)
    if given.full:
        for setting, value in shown.items():
            output.say(f"{setting}: {as_text(value)}")
    else:
        output.say(preset_text(given.name), end="")
    return 0


def doctor(given: argparse.Namespace) -> int:
    from .doctor import examine

    findings = examine(given.prior)
    given.output.note(findings=[asdict(finding) for finding in findings])
    for finding in findings:
        given.output.say(str(finding))
    return 1 if any(f.missing for f in findings) else 0


def run_folder(text: str) -> Path:
    """The folder that ``generate --out`` names; UserError for a name that looks like an asset's file."""
    path = user_path(text)
    if names_file(path, MODEL_FILES):
        raise UserError(f"--out {path}: a run is a folder, which holds asset.glb; 'dreamfusion export' writes one file")
    return path


def names_file(path: Path, suffixes: Iterable[str]) -> bool:
    """Whether a path that is not a folder ends in one of the suffixes ('glb')."""
    return path.suffix.lower().lstrip(".") in tuple(suffixes) and not path.is_dir()


def names(text: str, choices: Any, what: str) -> list[str]:
    """'a,b' as a list, each one of the choices; UserError with the nearest otherwise."""
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    for part in found or [text]:
        if part not in choices:
            raise UserError(f"unknown {what} {part!r}{nearest(part, choices)}")
    return list(dict.fromkeys(found))


def number(option: str, text: str, low: float, high: float, kind: Callable[[str], float] = float) -> float:
    """A number within a range; UserError otherwise."""
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        words = "a whole number" if kind is int else "a number"
        raise UserError(f"{option} = {text!r} is not allowed: it must be {words}, {low} to {high}")
    return value


def whole(option: str, text: str, low: int, high: int) -> int:
    """The same for whole numbers."""
    return int(number(option, text, low, high, int))


def azimuths_deg(text: str) -> list[float]:
    """'4' is four azimuths all around; '0,90' (or '45,') are azimuths in degrees."""
    if "," not in text:
        count = whole("--views", text, 1, 360)
        return [360 * k / count for k in range(count)]
    return [number("each of --views", part, -360, 360) for part in text.split(",") if part.strip()]
