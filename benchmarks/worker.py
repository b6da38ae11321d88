"""A process that makes one asset after another as ``batch.run`` asks it to: torch and the prior are loaded once.

A line of JSON on standard input is a job (``batch.Job.ask``), a line on standard output its answer: {"error": null or one
line}. SIGTERM during a run writes its checkpoint and ends the process.
"""

from __future__ import annotations

import json
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from dreamfusion.device import pick_device
from dreamfusion.errors import UserError
from dreamfusion.generation import Stopped, generate
from dreamfusion.interrupts import stopped_by_signals
from dreamfusion.loading import load_prior
from dreamfusion.run import Run
from dreamfusion.settings.presets import resolve

prior = cache(load_prior)


def make(ask: dict[str, Any]) -> str | None:
    """Make an asset or go on with it: None, or what went wrong in one line; a traceback is left beside the run's folder."""
    folder = Path(ask["folder"])
    try:
        if ask["resume"]:
            config = Run.open(folder).config
            where: dict[str, Any] = {"resume": folder}
        else:
            config = resolve(ask["preset"], ask["settings"], ask["prompt"])
            where = {"out": folder, "config": config}
        own = prior(config.prior.id, pick_device(config.device), config.prior.precision)
        with stopped_by_signals() as stop:
            try:
                generate(prior=own, stop=stop.event, **where)
            except Stopped:
                raise SystemExit(128 + stop.signal) from None
    except UserError as error:
        return str(error)
    except Exception as error:
        folder.with_name(f"{folder.name}.log").write_text(traceback.format_exc())
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps({"error": make(json.loads(line))}), flush=True)
