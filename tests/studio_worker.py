"""A worker that draws nothing: ``python -m tests.studio_worker MADE SECONDS``. It copies the finished run MADE, piece by piece.

It speaks as ``batch.worker`` does, and stops as that does: SIGTERM leaves a checkpoint. "crash" in a prompt ends the process,
"wrong" is a mistake. It answers to a look with the azimuth among its figures.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

MADE, SECONDS, STEPS = Path(sys.argv[1]), float(sys.argv[2]), 5
WAITS, LOOKED = "looks" in sys.argv, threading.Event()
"""With the word "looks" a new run waits after its second step until somebody has turned it and let it go."""


WATCHED = threading.Event()
"""Somebody watches: each step says what the prior sees, too."""


def send(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def make(ask: dict[str, Any]) -> None:
    folder = Path(ask["folder"])
    page = yaml.safe_load((MADE / "run.yaml").read_text())
    page["config"] |= {"prompt": ask["prompt"], "preset": ask["preset"], "seed": int(ask["settings"].get("seed", 0))}

    def stop(*_: object) -> None:
        shutil.copytree(MADE / "checkpoint", folder / "checkpoint", dirs_exist_ok=True)
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)
    send(warning="a word of warning")
    folder.mkdir(exist_ok=True)
    if not ask["resume"]:
        (folder / "run.yaml").write_text(yaml.safe_dump(page))
    for step in range(1, STEPS + 1):
        time.sleep(SECONDS)
        if "crash" in ask["prompt"]:
            os._exit(9)
        if "wrong" in ask["prompt"]:
            return send(error="it cannot be", kind="user")
        if step == 3 and WAITS and not ask["resume"]:
            LOOKED.wait(100)
        picture = base64.b64encode((MADE / "preview.png").read_bytes()).decode()
        metrics = {"residual_norm": 1 / step, "t": 0.5, "opacity": 0.1}
        seen = {"prior": picture, "prior_t": 0.42} if WATCHED.is_set() else {}
        send(step=step, steps=STEPS, seconds=step * SECONDS, metrics=metrics, picture=picture, **seen)
    send(doing="surface", share=0.5)
    for name in ("asset.glb", "preview.png", "metrics.jsonl", "cost.json"):
        shutil.copy(MADE / name, folder / name)
    shutil.copytree(MADE / "checkpoint", folder / "checkpoint", dirs_exist_ok=True)
    send(error=None)


def read(jobs: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "watch" in message:
            WATCHED.set()
        elif "look" in message:
            if not message["look"]:
                LOOKED.set()
            send(step=2, steps=STEPS, seconds=1.0, metrics={"azimuth": message["look"][0] if message["look"] else 0.5})
        else:
            jobs.put(message)
    jobs.put(None)


if __name__ == "__main__":
    asked: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=read, args=(asked,), daemon=True).start()
    while (message := asked.get()) is not None:
        make(message)
