"""``dreamfusion export``: a run's asset as files, in other formats or sizes."""

from __future__ import annotations

import argparse
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..output import Output
from ..paths import check_file, user_path
from .made_lines import projected, shape_line
from .option_values import MODEL_FILES, names, names_file, number, whole

if TYPE_CHECKING:
    from ..asset import Asset
    from ..export.formats import FileOptions
    from ..run import Run
    from ..scene.scene import Scene
    from ..settings.config import Config


def options(parser: argparse.ArgumentParser) -> None:
    """A run, the formats and sizes of its asset, and what to write beside it."""
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--format", metavar="A,B,…", help="formats: glb, obj, ply, stl, 3mf, usdz [that of --out's name, else glb]"
    )
    parser.add_argument("--out", metavar="FOLDER|FILE", help="a folder, or one file such as x.glb [the run's folder]")
    parser.add_argument("--faces", metavar="N", help="most triangles, 100 to 2000000 [the run's]")
    parser.add_argument("--texture-size", metavar="N", help="texels per side, 64 to 8192 [the run's]")
    parser.add_argument("--resolution", metavar="N", help="samples per side for the surface, 16 to 512 [the run's]")
    parser.add_argument("--level", metavar="X", help="density of the surface, above 0 [chosen]")
    maps = "maps beside the base colour, in glb, obj and usdz: auto, none, normal, occlusion, both [the run's]"
    parser.add_argument("--maps", metavar="NAME", help=maps)
    seconds = "project the texture from six sides if unwrapping takes longer; 0 at once [the run's]"
    parser.add_argument("--unwrap-seconds", metavar="X", help=seconds)
    parser.add_argument("--height", metavar="X", help="height in metres, not in stl and 3mf [1]")
    parser.add_argument("--height-mm", metavar="X", help="height in millimetres, in stl and 3mf [100]")
    parser.add_argument("--flat-base", action="store_true", help="press the lowest 2 %% flat, in stl and 3mf")
    parser.add_argument("--compress", action="store_true", help="smaller glb (Draco, WebP) and usdz (binary USD) files")
    parser.add_argument(
        "--lods", metavar="N", help="also write 1 to 5 coarser files, NAME_lod1 …, each with a fourth of the triangles"
    )
    parser.add_argument("--collider", action="store_true", help="also write a convex hull, NAME-collider.glb")
    splats = "also write the splats themselves, NAME-splats.ply and .glb (scene.kind=splats)"
    parser.add_argument("--splats", action="store_true", help=splats)


def act(given: argparse.Namespace) -> int:
    """Make a run's asset anew from its scene, and write it."""
    from ..run import Run

    run = Run.open(given.run)
    config = with_options(run.config, given)
    files = checked_files(given, run, config)
    scene, asset = made(run, config)
    check_asset(given, asset, config)
    write(given.output, files, scene, asset, config)
    report = asset.geometry_report()
    given.output.say(shape_line(report | projected(asset)))
    given.output.note(geometry=report)
    return 0


@dataclass(frozen=True)
class Files:
    """What an export writes: the asset's files, those that get ``lods`` coarser ones too, the collider, the splats (a name
    without a suffix), and how they are written."""

    assets: list[Path]
    with_lods: list[Path]
    lods: int
    collider: Path | None
    splats: Path | None
    options: FileOptions


def with_options(config: Config, given: argparse.Namespace) -> Config:
    """The run's settings, with those that the command line changes. UserError for values that are not allowed."""
    from ..settings.building import changed

    own = ("faces", "texture_size", "resolution", "level", "maps", "unwrap_seconds")
    values = {f"export.{name}": getattr(given, name) for name in own}
    values["export.fit"] = "no" if given.level else None  # a level that is asked for is meant
    return changed(config, {k: v for k, v in values.items() if v is not None})


def checked_files(given: argparse.Namespace, run: Run, config: Config) -> Files:
    """The files to write. UserError where the options do not fit each other or the run, or a file cannot be written."""
    from ..export.formats import PRINTED, lod_path

    assets = asset_paths(given, run.path)
    formats = {format_of(path) for path in assets}
    check_effects(given, formats)
    options = file_options(given, formats)
    splats = splats_stem(given, assets[0], run, config)
    lods = lod_count(given, config.export.faces)
    collider = assets[0].with_name(f"{assets[0].stem}-collider.glb") if given.collider else None
    if collider:
        check_file(collider)
    with_lods = [path for path in assets if format_of(path) not in PRINTED] if lods else []
    for path in [*assets, *(lod_path(path, k + 1) for path in with_lods for k in range(lods))]:
        check_file(path)
    return Files(assets, with_lods, lods, collider, splats, options)


def asset_paths(given: argparse.Namespace, folder: Path) -> list[Path]:
    """The asset's file in each format, in the run's folder or where ``--out`` says; its one file where that names a file."""
    from ..export.formats import FORMATS, check_format

    out = user_path(given.out) if given.out else folder
    formats = names(given.format, FORMATS, "format") if given.format else ["glb"]
    if not names_file(out, MODEL_FILES):
        return [out / f"asset.{kind}" for kind in formats]
    check_format(out)
    if given.format and formats != [format_of(out)]:
        raise UserError(f"--out {out} is one file, and --format {given.format} asks for something else; give a folder")
    return [out]


def format_of(path: Path) -> str:
    """'glb' for a/b.GLB."""
    return path.suffix[1:].lower()


def check_effects(given: argparse.Namespace, formats: Set[str]) -> None:
    """UserError for an option that has no effect on any of the formats."""
    from ..export.formats import COMPRESSED, PRINTED

    printed, placed = formats & set(PRINTED), formats - set(PRINTED)
    for name, has_effect, why in (
        ("texture_size", placed, f"on {' and '.join(sorted(formats))}, which holds no colours"),
        ("maps", placed - {"ply"}, f"on {' and '.join(sorted(formats))}, which has no texture"),
        ("unwrap_seconds", placed, f"on {' and '.join(sorted(formats))}, which has no texture"),
        ("height", placed or given.collider or given.splats, "on stl and 3mf, which take --height-mm"),
        ("height_mm", printed, "except on stl and 3mf; others take --height, in metres"),
        ("flat_base", printed, "except on stl and 3mf"),
        ("lods", placed, "on stl and 3mf"),
        ("compress", formats & set(COMPRESSED), f"except on {' and '.join(COMPRESSED)}"),
    ):
        if getattr(given, name) and not has_effect:
            raise UserError(f"--{name.replace('_', '-')} has no effect {why}; leave it out, or add a --format")


def file_options(given: argparse.Namespace, formats: Set[str]) -> FileOptions:
    """How the files are written. UserError for sizes out of range, and where a package that compresses is missing."""
    from ..export.formats import FileOptions, check_compression

    if given.compress:
        check_compression(formats)  # now, and not after minutes
    return FileOptions(
        height=number("--height", given.height or "1", 1e-3, 1e3),
        height_mm=number("--height-mm", given.height_mm or "100", 1, 1e4),
        flat_base=given.flat_base,
        compress=given.compress,
    )


def splats_stem(given: argparse.Namespace, asset: Path, run: Run, config: Config) -> Path | None:
    """The name of the files of ``--splats`` without a suffix. UserError if the scene has no splats, or they cannot be written."""
    if not given.splats:
        return None
    from ..export.splat_files import SUFFIXES
    from ..settings.building import stage_configs

    last = stage_configs(config)[-1].scene.kind
    if last != "splats":
        raise UserError(f"--splats: the scene of {run.path} is a {last}, which has no splats; leave it out")
    stem = asset.with_name(f"{asset.stem}-splats")
    for suffix in SUFFIXES:
        check_file(stem.with_suffix(suffix))
    return stem


def lod_count(given: argparse.Namespace, faces: int) -> int:
    """How many coarser versions are written. UserError for more than an asset of so many triangles has."""
    from ..export.lods import triangles_of

    lods = whole("--lods", given.lods, 1, 5) if given.lods else 0
    if lods > (most := len(triangles_of(faces, lods))):
        raise UserError(f"--lods {lods} is too many: {faces} triangles are enough for {most}")
    return lods


def made(run: Run, config: Config) -> tuple[Scene, Asset]:
    """The run's scene, and the asset that is made of it."""
    from ..asset import Asset
    from ..recorded import load_scene
    from ..torch_state import threads

    with threads(config.threads):
        scene, _ = load_scene(run)
        details = {"preset": config.preset, "seed": config.seed}
        return scene, Asset.from_scene(scene, config.export, config.prompt, details)


def check_asset(given: argparse.Namespace, asset: Asset, config: Config) -> None:
    """UserError where the scene has no such surface as the options ask for; lines about what else could not be had."""
    from ..generation import say, unmet

    for name in ("level", "resolution"):
        if getattr(given, name) and name in asset.notes:
            raise UserError(asset.notes[name].replace(f"export.{name} =", f"--{name}"))
    say([asset.notes["faces"]] if given.faces and "faces" in asset.notes else unmet(asset, config.export))


def write(output: Output, files: Files, scene: Scene, asset: Asset, config: Config) -> None:
    """Write all files, and name each."""
    from ..export.formats import write_collider, write_lods
    from ..export.splat_files import write_splats
    from ..scene.particles import shown_of
    from ..scene.splat_scene import SplatScene

    for target in files.assets:
        for path in asset.save(target, files.options):
            output.file(path)
    like_asset = replace(files.options, finish=asset.finish)
    for target in files.with_lods:
        coarser = write_lods(
            target, asset.mesh, asset.texture, files.lods, config.prompt, like_asset, asset.dense, config.export
        )
        for triangles, written in coarser:
            output.say(f"{triangles} triangles:")
            for path in written:
                output.file(path)
    if files.collider:
        output.file(write_collider(files.collider, asset.mesh, files.options))
    if files.splats and isinstance(splats := shown_of(scene), SplatScene):
        details = {"prompt": config.prompt, **asset.metadata}
        for path in write_splats(files.splats, splats.data(), asset.mesh, details, files.options.height):
            output.file(path)
