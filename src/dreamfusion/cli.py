"""The command line: reads words, calls the library, prints. torch is imported only by the commands that compute."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__
from .errors import UserError, nearest
from .options import Parser, add_settings, given_settings

ABOUT = "From a sentence to a textured 3D asset, by score distillation of a 2D diffusion model."
KINDS = {
    "color": "lambertian",
    "albedo": "albedo",
    "normal": "normal",
    "depth": "depth",
    "textureless": "textureless",
}
"""What ``render --kind`` takes, and the renderer's words for it."""


def generate(given: argparse.Namespace) -> int:
    from .presets import resolve
    from .run import Run, default_path

    settings = given_settings(given)
    # Mistakes are found before torch is loaded, which takes seconds.
    if given.resume:
        extra = [*(["a prompt"] if given.prompt else []), *settings]
        extra += [name for name in ("preset", "out") if getattr(given, name)]
        if extra:
            raise UserError(f"--resume goes on with the run's own settings; leave out {', '.join(extra)}")
        run = Run.open(given.resume)
        run.load_checkpoint()
        config = run.config
        where: dict[str, Any] = {"resume": Path(given.resume)}
    else:
        config = resolve(given.preset or "balanced", settings, given.prompt or "")
        out = Path(given.out) if given.out else default_path(config.prompt, config.seed)
        Run.create(out, config)
        where = {"out": out, "config": config}
    from . import loop
    from .display import Display

    folder = next(path for path in where.values() if isinstance(path, Path))
    print(f"{config.prompt!r}, preset {config.preset}, seed {config.seed}, in {folder}", file=sys.stderr)
    begin = time.monotonic()
    try:
        with Display() as display:
            asset = loop.generate(callbacks=[display], **where)
    except loop.Interrupted as stop:
        print(f"dreamfusion: {stop}", file=sys.stderr)
        return 128 + stop.signal
    summary(folder, asset.geometry_report(), time.monotonic() - begin)
    return 0


def summary(folder: Path, report: dict[str, Any], seconds: float) -> None:
    """What was made, on standard output."""
    from .display import clock, memory_mb
    from .run import CONFIG, LOG

    tight = "watertight" if report["watertight"] else "not watertight"
    print(f"{clock(seconds)} min, peak memory {memory_mb()[1]:.0f} MB, {report['triangles']} triangles, {tight}")
    for name in ("asset.glb", "turntable.mp4", "turntable.gif", "preview.png", CONFIG, LOG):
        if (folder / name).is_file():
            print_file(folder / name)


def print_file(path: Path) -> None:
    print(f"  {path}  ({path.stat().st_size / 1e6:.2f} MB)")


def export(given: argparse.Namespace) -> int:
    from .run import Run
    from .settings import changed

    run = Run.open(given.run)
    options = {f"export.{name}": getattr(given, name) for name in ("faces", "texture_size", "resolution", "level")}
    config = changed(run.config, {k: v for k, v in options.items() if v is not None})
    from .asset import Asset
    from .export.files import FORMATS
    from .loop import load_scene

    formats = names(given.format, FORMATS, "format")
    scene, _ = load_scene(run)
    asset = Asset.from_scene(scene, config.export, config.prompt, {"preset": config.preset, "seed": config.seed})
    folder = Path(given.out) if given.out else run.path
    for kind in formats:
        for path in asset.save(folder / f"asset.{kind}"):
            print_file(path)
    return 0


def render(given: argparse.Namespace) -> int:
    from .run import Run

    run = Run.open(given.run)
    azimuths = azimuths_deg(given.views)
    size = whole("--size", given.size, 16, 4096)
    frames = whole("--frames", given.frames, 1, 2000)
    elevation = number("--elevation", given.elevation, -90, 90)
    radius = number("--radius", given.radius, 1, 100)
    from .export.files import png_bytes
    from .export.turntable import orbit_azimuths, to_uint8, write_film
    from .export.views import render_views
    from .files import write_atomic
    from .loop import load_scene
    from .view.cameras import orbit_cameras

    kinds = names(given.kind, KINDS, "kind")
    scene, _ = load_scene(run)

    def draw(kind: str, azimuth: float) -> Any:
        return to_uint8(render_views(scene, orbit_cameras([azimuth], elevation, radius), size, KINDS[kind]))[0]  # type: ignore[arg-type]

    for kind in kinds:
        if given.turntable:
            folder = Path(given.out or run.path) / (kind if kind != "color" else "")
            films = write_film(folder, (draw(kind, a) for a in orbit_azimuths(frames)), frames)
            for path in films:
                print_file(path)
            continue
        for azimuth in azimuths:
            path = Path(given.out or run.path / "views") / f"{kind}-{azimuth:g}.png"
            write_atomic(path, png_bytes(draw(kind, azimuth)))
            print_file(path)
    return 0


def prior_sample(given: argparse.Namespace) -> int:
    from .prompts import check_prompt, slug

    prompt = check_prompt(given.prompt)
    views = whole("--views", given.views, 1, 64)
    guidance = number("--guidance-scale", given.guidance_scale, 0, 1000)
    seed = whole("--seed", given.seed, 0, 2**63 - 1)
    out = Path(given.out or f"{slug(prompt)}-prior.png")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the contact sheet is a picture; its name must end in .png")
    import numpy as np

    from .export.files import png_bytes
    from .export.turntable import to_uint8
    from .files import write_atomic
    from .loop import warn_unknown_words
    from .priors import load_prior

    prior = load_prior(given.prior)
    warn_unknown_words(prior, prompt)
    drawn = prior.sample_views(prompt, views=views, guidance_scale=guidance, seed=seed, camera=not given.words_only)
    larger = to_uint8(drawn).repeat(3, 1).repeat(3, 2)  # 3 x 3 for a pixel: 64 is small on a screen
    write_atomic(out, png_bytes(np.concatenate(list(larger), 1)))
    print_file(out)
    return 0


def prior_info(given: argparse.Namespace) -> int:
    from .priors import load_prior

    for key, value in load_prior(given.prior).info().items():
        if isinstance(value, list | tuple):
            value = f"{len(value)}: {', '.join(map(str, value))}"
        print(f"{key}: {value}")
    return 0


def presets(given: argparse.Namespace) -> int:
    from .presets import load_preset, preset_names, preset_text
    from .settings import as_text, build, flatten

    if given.name is None:
        for name in preset_names():
            print(f"{name:12} {preset_text(name).splitlines()[0].lstrip('# ')}")
    elif given.full:
        for setting, value in flatten(build(load_preset(given.name)).model_dump()).items():
            if setting != "prompt":
                print(f"{setting}: {as_text(value)}")
    else:
        print(preset_text(given.name), end="")
    return 0


def doctor(given: argparse.Namespace) -> int:
    from .doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    return 1 if any(f.missing for f in findings) else 0


@dataclass(frozen=True)
class Command:
    """A word of the command line: what it does, its options, the function that does it."""

    help: str
    options: Callable[[Parser], None]
    act: Callable[[argparse.Namespace], int]


def _generate_options(parser: Parser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to make, such as 'a red armchair'")
    parser.add_argument("--preset", metavar="NAME", help="page of settings to start from, or a .yaml file [balanced]")
    parser.add_argument("--out", metavar="FOLDER", help="the run's folder [runs/<prompt>-<seed>]")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with this run, exactly where its checkpoint is")
    from .presets import load_preset

    parser.usage = "dreamfusion generate PROMPT [options]"
    parser.epilog = "The defaults are those of the preset 'balanced'; other presets change some of them."
    add_settings(parser, load_preset())


def _export_options(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--format", default="glb", metavar="A,B,…", help="of glb, obj, ply, stl, usdz [%(default)s]")
    parser.add_argument("--out", metavar="FOLDER", help="where to write [the run's folder]")
    parser.add_argument("--faces", metavar="N", help="most triangles, 100 to 2000000 [the run's]")
    parser.add_argument("--texture-size", metavar="N", help="texels a side, 64 to 8192 [the run's]")
    parser.add_argument("--resolution", metavar="N", help="samples a side for the surface, 16 to 512 [the run's]")
    parser.add_argument("--level", metavar="X", help="density of the surface, above 0 [the run's]")


def _render_options(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--views", default="8", metavar="N|A,B,…", help="how many, or azimuths in degrees [%(default)s]"
    )
    parser.add_argument("--size", default="512", metavar="N", help="pixels a side, 16 to 4096 [%(default)s]")
    kinds = "of color, albedo, normal, depth, textureless [%(default)s]"
    parser.add_argument("--kind", default="color", metavar="A,B,…", help=kinds)
    parser.add_argument("--elevation", default="15", metavar="X", help="camera's elevation, -90 to 90 [%(default)s]")
    parser.add_argument("--radius", default="2.5", metavar="X", help="camera's distance, 1 to 100 [%(default)s]")
    parser.add_argument("--turntable", action="store_true", help="a film (.mp4, .gif) in place of stills")
    parser.add_argument("--frames", default="120", metavar="N", help="the film's frames, 1 to 2000 [%(default)s]")
    parser.add_argument("--out", metavar="FOLDER", help="where to write [RUN/views; films in RUN]")


def _sample_options(parser: Parser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to draw")
    parser.add_argument("--views", default="4", metavar="N", help="azimuths all round, 1 to 64 [%(default)s]")
    parser.add_argument("--guidance-scale", default="3", metavar="X", help="0 to 1000 [%(default)s]")
    parser.add_argument("--seed", default="0", metavar="N", help="0 or more [%(default)s]")
    parser.add_argument("--words-only", action="store_true", help="do not tell the prior the camera")
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to ask [%(default)s]")
    parser.add_argument("--out", metavar="FILE", help="the contact sheet, a .png file [<prompt>-prior.png]")


def _info_options(parser: Parser) -> None:
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to describe [%(default)s]")


def _presets_options(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this one")
    parser.add_argument("--full", action="store_true", help="show every setting, the defaults too")


COMMANDS = {
    "generate": Command("make a 3D asset of a prompt", _generate_options, generate),
    "export": Command("write a run's asset in other formats or sizes", _export_options, export),
    "render": Command("draw a run's scene: stills, turntable, normals, depth", _render_options, render),
    "prior sample": Command("draw a prompt with the 2D prior alone", _sample_options, prior_sample),
    "prior info": Command("what the prior is and knows", _info_options, prior_info),
    "presets": Command("list the presets, or show one", _presets_options, presets),
    "doctor": Command("what this machine has, and what is missing for what", lambda parser: None, doctor),
}


def parser_of(command: str) -> Parser:
    """The parser of one of ``COMMANDS``."""
    parser = Parser(prog=f"dreamfusion {command}", description=COMMANDS[command].help)
    COMMANDS[command].options(parser)
    return parser


def usage() -> str:
    """The help of the program as a whole."""
    lines = [f"  {name:14} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: dreamfusion COMMAND …", "", ABOUT, "", *lines, "", "'dreamfusion COMMAND --help' lists its options."]
    )


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The command and its options. UserError for what is neither; SystemExit for --help."""
    words = list(argv)
    count = 2 if words[0] == "prior" else 1
    name = " ".join(words[:count])
    if name not in COMMANDS:
        if name == "prior" or (count == 2 and words[1] in ("-h", "--help")):
            raise UserError("prior what? try 'dreamfusion prior sample PROMPT' or 'dreamfusion prior info'")
        what = "option" if name.startswith("-") else "command"
        raise UserError(f"unknown {what} {name!r}{nearest(name, COMMANDS)}")
    return name, parser_of(name).parse(words[count:])


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
    """'4' is four azimuths all round; '0,90' (or '45,') are azimuths in degrees."""
    if "," not in text:
        count = whole("--views", text, 1, 360)
        return [360 * k / count for k in range(count)]
    return [number("each of --views", part, -360, 360) for part in text.split(",") if part.strip()]


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning in one line, without the place in the source."""
    if not issubclass(category, DeprecationWarning):
        print(f"dreamfusion: warning: {' '.join(str(message).split())}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. 0 done, 1 not all well (doctor), 2 the user's mistake, 130 / 143 stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv == ["--version"]:
        print(f"dreamfusion {__version__}")
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            name, given = parse(argv)
            return COMMANDS[name].act(given)
        except UserError as error:
            print(f"dreamfusion: error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except SystemExit as stop:  # --help
            return int(stop.code or 0)
        except KeyboardInterrupt:
            print("dreamfusion: stopped", file=sys.stderr)
            return 128 + signal.SIGINT
        except BrokenPipeError:  # … | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE


def run() -> None:
    """The console script."""
    sys.exit(main())
