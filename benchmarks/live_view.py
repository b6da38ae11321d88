"""Frames a second of the studio's live view: ``python benchmarks/live_view.py [--preset fast] [--seconds 10]``.

Runs a studio in this process, without a page, and turns the run in progress 25 times a second, as a mouse does. Then the run is
stopped, and the same scene is drawn as fast as possible. What a frame costs is in CPU milliseconds, so that other work on the
machine does not count. Less than a minute on two idle cores; the result is kept in ``results/live_view.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

from machine import provenance

KEPT = Path(__file__).parent / "results" / "live_view.json"
SIDE, MOVES, FIRST = 128, 25, 40
"""Side of a frame while somebody turns the object; moves of the mouse a second; the step after which it is turned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--prompt", default="a red armchair")
    parser.add_argument("--threads", type=int, default=0, help="of the run [one a core]")
    parser.add_argument("--seconds", type=float, default=10.0, help="of turning")
    parser.add_argument("--out", type=Path, default=KEPT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        turned, run = turn(Path(place), args.prompt, args.preset, args.threads, args.seconds)
        figures = {"running": turned, "stopped": draw(run, args.seconds / 2)}
    page = {"preset": args.preset, "prompt": args.prompt, "side": SIDE, **figures, **provenance()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


def turn(root: Path, prompt: str, preset: str, threads: int, seconds: float) -> tuple[dict[str, float], Path]:
    """Make a run, turn it for so long, and stop it: what was seen of it meanwhile, and its folder."""
    from starlette.testclient import TestClient

    from dreamfusion.studio.desk import Desk
    from dreamfusion.studio.web import make_app

    desk = Desk(root, threads)
    client = TestClient(make_app(desk), base_url="http://127.0.0.1:8765")  # type: ignore[arg-type]
    id = desk.submit(prompt, preset, {"run.checkpoint_seconds": 1e9})
    desk.start()

    def said() -> dict[str, Any]:
        found = desk.run(id)
        assert found is not None and found["state"] not in ("failed", "done"), found
        return found

    while not said()["step"] >= FIRST:
        time.sleep(0.1)
    steps = -said()["step"], -desk.picture(id, "picture")[0]
    begin, azimuth = time.monotonic(), 0.0
    while (spent := time.monotonic() - begin) < seconds:
        desk.look(id, (azimuth % 360, 15.0))
        azimuth += 4
        time.sleep(1 / MOVES)
    done, frames = said()["step"] + steps[0], desk.picture(id, "picture")[0] + steps[1]
    cpu = cpu_ms(lambda: client.get(f"/runs/{id}/live.jpg"), 1.0)
    desk.stop(id)
    desk.close()
    return {"frames_per_second": frames / spent, "steps_per_second": done / spent, "http_cpu_ms": cpu}, root / id


def draw(folder: Path, seconds: float) -> dict[str, float]:
    """What a frame of a stopped run's scene costs, and how many a second there are."""
    from dreamfusion.batch.live_pictures import jpeg, picture_of
    from dreamfusion.recorded import load_scene
    from dreamfusion.run import Run

    scene, _ = load_scene(Run.open(folder))
    pixels = decoded(picture_of(scene, 0.0, 15.0, SIDE))  # compiled by now
    begin, frames, cpu = time.monotonic(), 0, time.process_time()
    while (spent := time.monotonic() - begin) < seconds:
        picture_of(scene, 4.0 * frames, 15.0, SIDE)
        frames += 1
    cost = 1e3 * (time.process_time() - cpu) / frames
    return {"frames_per_second": frames / spent, "frame_cpu_ms": cost, "jpeg_cpu_ms": cpu_ms(lambda: jpeg(pixels), 0.5)}


def decoded(picture: str) -> Any:
    """The pixels of a picture as it is sent: a JPEG in base64."""
    import io

    import numpy as np
    from PIL import Image

    return np.array(Image.open(io.BytesIO(b64decode(picture))))


def cpu_ms(work: Any, seconds: float) -> float:
    """CPU time of one call, in milliseconds, over so many seconds of them."""
    work()
    begin, cpu, calls = time.monotonic(), time.process_time(), 0
    while time.monotonic() - begin < seconds:
        work()
        calls += 1
    return 1e3 * (time.process_time() - cpu) / calls


if __name__ == "__main__":
    main()
