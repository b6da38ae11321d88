"""The command line: which commands there are, and how they end. ``commands/`` has their options and what they do."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import __version__
from .commands import (
    batch_command,
    compare_command,
    cost_command,
    doctor_command,
    evaluate_command,
    export_command,
    generate_command,
    info_command,
    presets_command,
    render_command,
    sample_command,
    serve_command,
    studio_command,
)
from .display import Waiting
from .errors import UserError, nearest
from .interrupts import Ended, ended_by_signals
from .output import Output
from .reports import reporting
from .settings.options import Parser
from .streams import forgiving_streams

HELP = ("-h", "--help")
ABOUT = "From a sentence to a textured 3D asset, by score distillation of a 2D diffusion model."


@dataclass(frozen=True)
class Command:
    """A word of the command line: its help, its options, the function that does it; they are in ``commands/``."""

    help: str
    options: Callable[[Parser], None]
    act: Callable[[argparse.Namespace], int]


COMMANDS = {
    "generate": Command("make a 3D asset of a prompt", generate_command.options, generate_command.act),
    "batch": Command("make an asset of each line of a file", batch_command.options, batch_command.act),
    "cost": Command("add up time, energy and cost of runs", cost_command.options, cost_command.act),
    "export": Command("write a run's asset in other formats or sizes", export_command.options, export_command.act),
    "render": Command(
        "draw a run's scene: stills, turntable, normals, depth", render_command.options, render_command.act
    ),
    "evaluate": Command("judge runs: R-Precision, Janus, geometry", evaluate_command.options, evaluate_command.act),
    "compare": Command("compare two sets of runs, prompt by prompt", compare_command.options, compare_command.act),
    "prior sample": Command("draw a prompt with the 2D prior alone", sample_command.options, sample_command.act),
    "prior info": Command("what the prior is and what it knows", info_command.options, info_command.act),
    "presets": Command("list the presets, or show one", presets_command.options, presets_command.act),
    "studio": Command(
        "make, watch and keep assets in a web page on this machine", studio_command.options, studio_command.act
    ),
    "serve-prior": Command(
        "answer the questions of many runs with one prior", serve_command.options, serve_command.act
    ),
    "doctor": Command(
        "what this machine has, and which dependencies are missing", doctor_command.options, doctor_command.act
    ),
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
