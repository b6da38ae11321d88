"""Unwrapping that ends in time: xatlas cannot be interrupted, so a large mesh is unwrapped in a process that can be ended."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..reports import report
from . import xatlas_process

LARGE = 10_000
"""Meshes with this many triangles get a process. It takes half a second to start, and a smaller mesh is unwrapped in seconds."""
POLL = 0.1
"""Seconds between two looks at the process. The work can be stopped at each of them."""


def generate_within(seconds: float, **given: Any) -> dict[str, Any] | None:
    """``xatlas_process.generate`` of what is given. None without any seconds; and for a mesh of ``LARGE`` or more triangles also
    where it took longer than so many, or failed. A smaller one is unwrapped here: nothing ends it, and its errors are raised."""
    if not seconds:
        return None
    if len(given["faces"]) < LARGE or not sys.executable:
        report("unwrapping", 0, 1)
        return xatlas_process.generate(**given)
    with tempfile.TemporaryDirectory(prefix="unwrap-") as folder:
        into, out = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(into, **given)
        command = [sys.executable, "-P", xatlas_process.__file__, str(into), str(out)]
        quiet, end = subprocess.DEVNULL, time.monotonic() + seconds
        # In a session of its own, a Ctrl-C reaches this process alone, which stops in its own way.
        child = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            while True:
                report("unwrapping", 0, 1)
                try:
                    child.wait(max(min(POLL, end - time.monotonic()), 0))
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() >= end:
                        return None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if child.returncode or not out.exists():
            return None
        with np.load(out) as made:
            return dict(made)
