"""Runs that are killed at random moments and resumed: ``python benchmarks/kills.py --trials 100 [--of run|batch|studio]``.

Each trial runs ``dreamfusion generate`` in a process of its own (forked from one that has torch and the bundled prior
loaded) and does one of these to it at a random moment: SIGKILL, SIGTERM, SIGHUP, SIGINT, the reader of its output goes
away, the disk is full. Half of the resumed runs are killed once more. With ``--of batch`` or ``--of studio`` each trial kills
the worker of a local batch or of a running studio by SIGKILL (``worker_kills.py``). A trial is exact if the run, resumed until it is
done, has the same tensors, the same asset and the same steps in its log as a run that was left alone. The result is
``results/kills.json``, with the workers' figures beside those of single runs; the exit code is 1 unless all are exact. Not for
Windows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from machine import provenance

RESULT = Path(__file__).parent / "results" / "kills.json"
SETTINGS = {
    "steps": 24, "views_per_step": 1, "threads": 1, "scene.levels": "8,16", "scene.samples": 24,
    "run.checkpoint_seconds": 0.1, "run.preview_seconds": 1, "export.resolution": 32, "export.texture_size": 64,
    "export.faces": 500, "export.turntable_frames": 4, "export.turntable_size": 32,
}  # fmt: skip
"""A run of seconds: a few steps of a small field, asked of the bundled prior."""
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "SIGINT": signal.SIGINT}
KINDS = (*SIGNALS, "closed streams", "full disk")
MOST = 20
"""Most processes of a trial."""


def options() -> list[str]:
    """The settings as words of a command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]


def begin(argv: list[str], said: Path, file_bytes: int = 0) -> tuple[int, int]:
    """Start a command line in a forked process: its id, and a descriptor that reads its standard error (also kept in
    ``said``). ``file_bytes``: no file may become larger, as on a full disk."""
    from dreamfusion import cli

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(write, 1)
        os.dup2(write, 2)
        if file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        code = 70
        try:
            code = cli.main(argv)
        finally:
            os._exit(code)
    os.close(write)
    os.set_blocking(read, False)
    said.touch()
    return child, read


def watch(child: int, read: int, said: Path, seconds: float, then: Any) -> int:
    """Wait until the process ends, and call ``then`` after some seconds of its life; its exit code (negative: killed)."""
    start, done, open_ = time.monotonic(), False, True
    while True:
        if open_:
            try:
                with said.open("ab") as log:
                    log.write(os.read(read, 1 << 16))
            except BlockingIOError:
                pass
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if open_:
                os.close(read)
            return os.waitstatus_to_exitcode(status)
        if not done and time.monotonic() - start >= seconds:
            done = True
            open_ = not then()
        time.sleep(0.002)


def attempt(kind: str, argv: list[str], folder: Path, seconds: float, limit: int) -> int:
    """Run a command line and do to it what ``kind`` says after some seconds; its exit code. '': let it be."""
    said = folder.with_suffix(".txt")
    child, read = begin(argv, said, limit if kind == "full disk" else 0)

    def act() -> bool:
        """Whether the reader went away."""
        if kind in SIGNALS:
            os.kill(child, SIGNALS[kind])
        if kind == "closed streams":
            os.close(read)
        return kind == "closed streams"

    return watch(child, read, said, seconds, act)


def traces(run: Path) -> dict[str, Any]:
    """What must be the same: the tensors (their file is named after their SHA-256), the asset, the steps of the log."""
    tensors = [path.name for path in (run / "checkpoint").glob("*.safetensors")]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {"tensors": tensors, "asset": (run / "asset.glb").read_bytes(), "steps": steps}


def done(run: Path) -> bool:
    """Whether a run has all its files."""
    return all((run / name).exists() for name in ("asset.glb", "preview.png", "turntable.gif", "turntable.mp4"))


def trial(kind: str, rng: random.Random, place: Path, usual: float, largest: int) -> tuple[Path, list[int]]:
    """Kill a run, resume it until it is done; its folder and the exit codes."""
    run, codes = place / "run", []
    for k in range(MOST):
        resumable = (run / "checkpoint" / "checkpoint.json").exists()
        argv = (
            ["generate", "--resume", str(run)]
            if resumable
            else ["generate", "a red chair", *options(), "--out", str(run)]
        )
        harm = kind if k == 0 or (k == 1 and rng.random() < 0.5) else ""
        codes.append(attempt(harm, argv, run, rng.uniform(0, usual), rng.randrange(100, largest)))
        if done(run) and codes[-1] == 0:
            break
    return run, codes


def single_runs(trials: int, rng: random.Random, place: Path, usual: float, expected: dict[str, Any]) -> dict[str, Any]:
    """Trials of ``dreamfusion generate``: how many are exact, and the exit codes by what was done to them. ``place`` has the run
    that was left alone, which took ``usual`` seconds."""
    kinds, codes, failed = Counter(), {kind: Counter() for kind in KINDS}, []  # type: ignore[var-annotated]
    exact: Counter[str] = Counter()
    largest = max(path.stat().st_size for path in (place / "alone").rglob("*") if path.is_file())
    for k in range(trials):
        kind = KINDS[k % len(KINDS)]
        folder = place / f"{k}"
        folder.mkdir()
        run, ended = trial(kind, rng, folder, usual, largest)
        same = done(run) and traces(run) == expected and "Traceback" not in run.with_suffix(".txt").read_text()
        kinds[kind] += 1
        exact[kind] += same
        codes[kind].update(ended[:-1])
        if not same:
            failed.append({"trial": k, "kind": kind, "codes": ended})
        print(f"{k + 1}/{trials} {kind}: exit codes {ended}{'' if same else '  NOT EXACT'}", flush=True)
    return {
        "trials": trials, "exact": sum(exact.values()), "failed": failed,
        "kinds": {kind: {"trials": kinds[kind], "exact": exact[kind], "exit codes": dict(codes[kind])} for kind in KINDS},
    }  # fmt: skip


def page_with(page: dict[str, Any], of: str, found: dict[str, Any]) -> dict[str, Any]:
    """The result with new figures of single runs, or of the workers of a batch or a studio; the others stay."""
    workers = page.get("workers", {})
    if of == "run":
        return {"what": "kills", **found} | ({"workers": workers} if workers else {})
    return {"what": "kills", **page, "workers": workers | {of: found}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=("run", "batch", "studio"), default="run", help="what is killed [%(default)s]")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    from worker_kills import batch_workers, studio_workers

    from dreamfusion import cli, generation, load_prior

    prior = load_prior("bundled", "cpu")
    generation.load_prior = lambda *_, **__: prior  # type: ignore[assignment]
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        words = ["generate", "a red chair", *options(), "--out"]
        assert cli.main([*words, f"{folder}/warm"]) == 0  # here, so that all others find modules and kernels in memory
        start = time.monotonic()
        code = attempt("", [*words, f"{folder}/alone"], place / "alone", 0, 0)
        usual = time.monotonic() - start
        assert code == 0, (place / "alone.txt").read_text()
        expected = traces(place / "alone")

        def exact(run: Path) -> bool:
            return done(run) and traces(run) == expected

        if args.of == "run":
            found = single_runs(args.trials, rng, place, usual, expected)
        else:
            (place / args.of).mkdir()
            kill = {"batch": batch_workers, "studio": studio_workers}[args.of]
            found = kill(args.trials, rng, place / args.of, SETTINGS, exact)
    found = {**provenance(), "seed": args.seed, "steps": SETTINGS["steps"], **found}
    page = json.loads(args.result.read_text()) if args.result.exists() else {}
    args.result.write_text(json.dumps(page_with(page, args.of, found), indent=1) + "\n")
    print(f"{found['exact']} of {args.trials} exact; {args.result}")
    return int(found["exact"] != args.trials)


if __name__ == "__main__":
    raise SystemExit(main())
