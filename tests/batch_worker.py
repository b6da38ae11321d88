"""A worker of a batch with a prior that knows one picture: ``python -m tests.batch_worker [SECONDS] [KILL_AT MARK]``.

It waits before each answer. At question KILL_AT it kills itself, once: MARK is the file that says that it did.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from dreamfusion import generation
from dreamfusion.batch.worker import main
from dreamfusion.export import turntable
from tests.fakes import GrayBallPrior

seconds = float(sys.argv[1]) if sys.argv[1:] else 0.0
kill_at, mark = (int(sys.argv[2]), Path(sys.argv[3])) if sys.argv[2:] else (0, Path())
asked = 0


def on_ask() -> None:
    global asked
    asked += 1
    time.sleep(seconds)
    if asked == kill_at and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    prior = GrayBallPrior(on_ask)
    generation.load_prior = lambda *_, **__: prior  # type: ignore[assignment]
    drawn = turntable.preview_sheet
    turntable.preview_sheet = lambda scene, size, views: drawn(scene, min(size, 8), 1)  # as in conftest
    main()
