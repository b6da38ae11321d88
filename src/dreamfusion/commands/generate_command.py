"""``dreamfusion generate``: a 3D asset of a prompt."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..output import Output
from ..settings.options import add_settings, given_settings
from .made_lines import projected, summary
from .option_values import run_folder

if TYPE_CHECKING:
    from ..run import Run


def options(parser: argparse.ArgumentParser) -> None:
    """A prompt, where to begin and where to write, and every setting."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to make, such as 'a red armchair'")
    parser.add_argument("--preset", metavar="NAME", help="preset to start from, or a .yaml file of settings [balanced]")
    parser.add_argument("--out", metavar="FOLDER", help="the run's folder [runs/<prompt>-<seed>]")
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        help="resume this run, with its own settings; --steps N adds steps, and other settings hold from here on",
    )
    from ..settings.presets import load_preset

    parser.usage = "dreamfusion generate PROMPT [options]"
    parser.epilog = "The defaults are those of the preset 'balanced'; other presets change some of them."
    add_settings(parser, load_preset())


def act(given: argparse.Namespace) -> int:
    """Make the asset of a new run, or go on with a stopped one."""
    from ..mid_run import check_names
    from ..run import Run
    from ..settings.presets import resolve

    settings = given_settings(given)
    # Mistakes are found before torch is loaded, which takes seconds.
    if given.resume:
        extra = [*(["a prompt"] if given.prompt else []), *(n for n in ("preset", "out") if getattr(given, n))]
        if extra:
            raise UserError(f"--resume takes settings that may change, and more --steps; leave out {', '.join(extra)}")
        check_names(settings)
        run = Run.open(given.resume)
        with run.locked():
            run.load_checkpoint(resumable=True)
            return record(given.output, run, resume=run.path, **settings)
    config = resolve(given.preset or "balanced", settings, given.prompt or "")
    with Run.claim(run_folder(given.out) if given.out else None, config) as run:
        return record(given.output, run, out=run.path, config=config)


def record(output: Output, run: Run, **where: Any) -> int:
    """Make a run's asset until a signal stops it; ``where``: what ``generate`` is told about the run."""
    from .. import generation
    from ..display import Display
    from ..interrupts import stopped_by_signals

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
