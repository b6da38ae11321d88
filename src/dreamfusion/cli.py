"""The command line: which commands there are, their options, and how they end."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import __version__, batch_commands, commands
from .display import Waiting
from .errors import UserError, nearest
from .interrupts import Ended, ended_by_signals
from .output import Output
from .reports import reporting
from .settings.options import Parser, add_settings
from .streams import forgiving_streams

HELP = ("-h", "--help")
ABOUT = "From a sentence to a textured 3D asset, by score distillation of a 2D diffusion model."


@dataclass(frozen=True)
class Command:
    """A word of the command line: what it does, its options, the function that does it."""

    help: str
    options: Callable[[Parser], None]
    act: Callable[[argparse.Namespace], int]


def _generate_options(parser: Parser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to make, such as 'a red armchair'")
    parser.add_argument("--preset", metavar="NAME", help="preset to start from, or a .yaml file of settings [balanced]")
    parser.add_argument("--out", metavar="FOLDER", help="the run's folder [runs/<prompt>-<seed>]")
    parser.add_argument(
        "--resume", metavar="FOLDER", help="resume this run, with its own settings; --steps N adds steps"
    )
    from .settings.presets import load_preset

    parser.usage = "dreamfusion generate PROMPT [options]"
    parser.epilog = "The defaults are those of the preset 'balanced'; other presets change some of them."
    add_settings(parser, load_preset())


def _batch_options(parser: Parser) -> None:
    parser.add_argument("prompts", metavar="FILE", help="prompts: a text file (one a line), a .csv or a .yaml")
    parser.add_argument("--out", metavar="FOLDER", help="the folder that holds the runs; needed")
    parser.add_argument("--preset", metavar="NAME", help="preset of the lines that name none [balanced]")
    parser.add_argument("--workers", metavar="N", help="runs at a time [one a core, as far as memory goes; 1 on a GPU]")
    parser.add_argument(
        "--retries", default="2", metavar="N", help="how often a run is tried again whose process ended [%(default)s]"
    )
    ray = "make the runs on a Ray cluster: 'auto' the one of this machine, HOST:PORT of its head, 'local' one just for this"
    parser.add_argument("--ray", metavar="WHERE", help=ray)
    from .settings.presets import load_preset

    parser.usage = "dreamfusion batch FILE --out FOLDER [options]"
    parser.epilog = "Settings on the command line hold for all lines; what a line says itself counts more."
    add_settings(parser, load_preset())


def _cost_options(parser: Parser) -> None:
    parser.add_argument("runs", nargs="*", metavar="FOLDER", help="runs' folders, or folders of them [runs]")
    parser.add_argument("--kwh-price", metavar="X", help="price of a kilowatt-hour [each run's own]")
    parser.add_argument("--hour-price", metavar="X", help="price of an hour of the machine [each run's own]")
    parser.add_argument("--currency", metavar="NAME", help="currency of these prices, such as USD [EUR]")


def _studio_options(parser: Parser) -> None:
    parser.add_argument("--folder", default="runs", metavar="FOLDER", help="the folder of runs [%(default)s]")
    parser.add_argument("--port", default="8765", metavar="N", help="where the page is [%(default)s]")
    host = "address to listen at; any but this machine's own needs the token that is printed [%(default)s]"
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help=host)
    parser.add_argument(
        "--threads", default="0", metavar="N", help="CPU threads of a run; 0 takes all cores [%(default)s]"
    )


def _serve_options(parser: Parser) -> None:
    parser.add_argument("prior", nargs="?", default="bundled", metavar="PRIOR", help="prior to serve [%(default)s]")
    host = "address to listen at; any but this machine's own needs the token that is printed [%(default)s]"
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help=host)
    parser.add_argument("--port", default="8000", metavar="N", help="port to listen at [%(default)s]")
    ray = "the Ray cluster to serve on: 'auto', HOST:PORT of its head, or 'local', one just for this [%(default)s]"
    parser.add_argument("--ray", default="local", metavar="WHERE", help=ray)
    parser.add_argument("--batch", default="8", metavar="N", help="questions answered together at most [%(default)s]")
    parser.add_argument("--wait-ms", default="5", metavar="X", help="time to wait for more of them [%(default)s]")
    rows = "pictures in the questions answered together at most; 0 for any number [%(default)s]"
    parser.add_argument("--rows", default="0", metavar="N", help=rows)
    queue = "questions that wait at most; to those beyond the prior is busy, and they try again [%(default)s]"
    parser.add_argument("--queue", default="256", metavar="N", help=queue)
    parser.add_argument("--timeout", default="100", metavar="X", help="seconds for an answer, 1 to 110 [%(default)s]")
    parser.add_argument("--replicas", default="1", metavar="N", help="copies of the prior [%(default)s]")
    parser.add_argument("--threads", default="1", metavar="N", help="CPU threads of a copy [%(default)s]")
    parser.add_argument("--gpus", default="0", metavar="X", help="GPUs of a copy, such as 1 or 0.5 [%(default)s]")
    parser.add_argument("--device", default="auto", metavar="NAME", help="device of the prior [%(default)s]")
    parser.add_argument("--precision", default="auto", metavar="KIND", help="see prior.precision [%(default)s]")
    parser.add_argument("--memory", default="auto", metavar="KIND", help="see prior.memory [%(default)s]")


def _export_options(parser: Parser) -> None:
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


def _render_options(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--views", default="8", metavar="N|A,B,…", help="number of views, or azimuths in degrees [%(default)s]"
    )
    parser.add_argument("--size", default="512", metavar="N", help="pixels per side, 16 to 4096 [%(default)s]")
    kinds = "what to draw: color, albedo, normal, depth, textureless, opacity [%(default)s]"
    parser.add_argument("--kind", default="color", metavar="A,B,…", help=kinds)
    parser.add_argument(
        "--elevation", default="15", metavar="X", help="the camera's elevation in degrees, -90 to 90 [%(default)s]"
    )
    parser.add_argument("--radius", default="2.5", metavar="X", help="the camera's distance, 1 to 100 [%(default)s]")
    parser.add_argument("--turntable", action="store_true", help="a film (.mp4, .gif) instead of stills")
    parser.add_argument("--frames", default="120", metavar="N", help="the film's frames, 1 to 2000 [%(default)s]")
    out = "a folder, or one still such as x.png [stills in RUN/views, films in RUN]"
    parser.add_argument("--out", metavar="FOLDER|FILE", help=out)


def _judge_options(parser: Parser) -> None:
    parser.add_argument(
        "--clip", default="bundled", metavar="NAME", help="judge: bundled, hf:OWNER/NAME, a path [%(default)s]"
    )
    suite = "suite or file whose prompts are ranked [the bundled suite that has the runs' prompts]"
    parser.add_argument("--prompts", metavar="SUITE|FILE", help=suite)


def _evaluate_options(parser: Parser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs' folders, or folders of them")
    _judge_options(parser)
    parser.add_argument("--views", default="8", metavar="N", help="pictures of each asset, 1 to 64 [%(default)s]")
    parser.add_argument("--seed", default="0", metavar="N", help="seed of the views, 0 or more [%(default)s]")
    parser.add_argument("--ceiling", action="store_true", help="also judge the prior's own samples of the prompts")
    parser.add_argument(
        "--out", default="evaluation.json", metavar="FILE", help="where to write the figures [%(default)s]"
    )
    parser.add_argument("--html", metavar="FILE", help="also write one page with pictures and figures")


def _compare_options(parser: Parser) -> None:
    what = "a folder of runs, or the evaluation.json of one"
    parser.add_argument("first", metavar="RUNS_A", help=what)
    parser.add_argument("second", metavar="RUNS_B", help="the other one: a folder, or an evaluation.json")
    _judge_options(parser)
    parser.add_argument("--out", metavar="FILE", help="also write the comparison as JSON")


def _sample_options(parser: Parser) -> None:
    parser.add_argument("prompt", nargs="?", default="", metavar="PROMPT", help="what to draw")
    parser.add_argument(
        "--views", default="4", metavar="N", help="number of azimuths all around, 1 to 64 [%(default)s]"
    )
    parser.add_argument("--guidance-scale", default="0", metavar="X", help="guidance scale w, 0 to 1000 [%(default)s]")
    parser.add_argument("--seed", default="0", metavar="N", help="seed of the noise, 0 or more [%(default)s]")
    parser.add_argument("--image", metavar="FILE", help="a reference picture: what it shows, from all sides")
    parser.add_argument("--words-only", action="store_true", help="give the prior the words only, and no camera")
    parser.add_argument(
        "--jointly", action="store_true", help="views of one thing, asked about together, with no camera"
    )
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to ask [%(default)s]")
    parser.add_argument("--out", metavar="FILE", help="the contact sheet, a .png file [<prompt>-prior.png]")


def _info_options(parser: Parser) -> None:
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to describe [%(default)s]")
    parser.add_argument(
        "--names", nargs="*", metavar="WORD", help="the names nearest in meaning to these words; without words, all"
    )


def _presets_options(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this preset's page")
    parser.add_argument("--full", action="store_true", help="show every setting, including the defaults")


def _doctor_options(parser: Parser) -> None:
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to examine [%(default)s]")


COMMANDS = {
    "generate": Command("make a 3D asset of a prompt", _generate_options, commands.generate),
    "batch": Command("make an asset of each line of a file", _batch_options, batch_commands.batch),
    "cost": Command("add up time, energy and cost of runs", _cost_options, batch_commands.cost),
    "export": Command("write a run's asset in other formats or sizes", _export_options, commands.export),
    "render": Command("draw a run's scene: stills, turntable, normals, depth", _render_options, commands.render),
    "evaluate": Command("judge runs: R-Precision, Janus, geometry", _evaluate_options, commands.evaluate),
    "compare": Command("compare two sets of runs, prompt by prompt", _compare_options, commands.compare),
    "prior sample": Command("draw a prompt with the 2D prior alone", _sample_options, commands.prior_sample),
    "prior info": Command("what the prior is and what it knows", _info_options, commands.prior_info),
    "presets": Command("list the presets, or show one", _presets_options, commands.presets),
    "studio": Command(
        "make, watch and keep assets in a web page on this machine", _studio_options, batch_commands.studio
    ),
    "serve-prior": Command(
        "answer the questions of many runs with one prior", _serve_options, batch_commands.serve_prior
    ),
    "doctor": Command("what this machine has, and which dependencies are missing", _doctor_options, commands.doctor),
}


def parser_of(command: str) -> Parser:
    """The parser of one of ``COMMANDS``."""
    parser = Parser(prog=f"dreamfusion {command}", description=COMMANDS[command].help)
    COMMANDS[command].options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines for people")
    return parser


def usage() -> str:
    """The help of the program as a whole."""
    lines = [f"  {name:14} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: dreamfusion COMMAND …", "", ABOUT, "", *lines, "", "'dreamfusion COMMAND --help' lists its options."]
    )


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The command and its options. UserError for unknown words; SystemExit for --help."""
    words = list(argv)
    count = 2 if words[0] == "prior" else 1
    name = " ".join(words[:count])
    if name not in COMMANDS:
        if name == "prior":
            raise UserError("prior what? try 'dreamfusion prior sample PROMPT' or 'dreamfusion prior info'")
        what = "option" if name.startswith("-") else "command"
        raise UserError(f"unknown {what} {name!r}{nearest(name, COMMANDS)}")
    return name, parser_of(name).parse(words[count:])


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning in one line, without the place in the source."""
    if not issubclass(category, DeprecationWarning):
        print(f"dreamfusion: warning: {' '.join(str(message).split())}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. 0 done, 1 something is missing (doctor), 2 a user's mistake, 128 + signal
    when stopped.

    Output that cannot be written never stops a command. It is an error of a command that makes nothing else.
    """
    argv, output = list(sys.argv[1:] if argv is None else argv), Output()
    with forgiving_streams() as (out, err):
        code = act(argv, output)
        out.flush()
        if out.lost:
            said = "warning" if code or output.files else "error"
            print(f"dreamfusion: {said}: cannot write to standard output: {out.lost}", file=err)
            code = code if output.files else code or 2
        return code


def act(argv: Sequence[str], output: Output) -> int:
    """Do what a command line says; the exit code."""
    if not argv or argv[0] in HELP or (argv[0] == "prior" and argv[1:2] in (["-h"], ["--help"])):
        print(usage())
        return 0
    if argv == ["--version"]:
        print(f"dreamfusion {__version__}")
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            name, given = parse(argv)
            output.as_json, given.output = given.json, output
            with ended_by_signals(), reporting(Waiting()):
                code = COMMANDS[name].act(given)
            output.end()
            return code
        except (UserError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                raise  # a bug
            said = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
            print(f"dreamfusion: error: {' '.join(said.split())}", file=sys.stderr)
            return 2
        except SystemExit as stop:  # --help
            return int(stop.code or 0)
        except KeyboardInterrupt:
            print("dreamfusion: stopped", file=sys.stderr)
            return 128 + signal.SIGINT
        except Ended as ended:
            print(f"dreamfusion: stopped (signal {ended.signal})", file=sys.stderr)
            return 128 + ended.signal


def run() -> None:
    """The console script."""
    sys.exit(main())
