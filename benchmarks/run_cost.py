"""What a run costs: ``python benchmarks/run_cost.py [--preset balanced] [--prompt "a red armchair"]``.

Runs ``dreamfusion generate`` in a process of its own, any further settings with it (``--guidance-scale 1``), and
prints wall time, peak memory and where a step goes (medians over the second half of the run, from its own
``metrics.jsonl``).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

PARTS = ("prior", "render", "backward", "update")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--prompt", default="a red armchair")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args, settings = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable,
            "-m",
            "dreamfusion",
            "generate",
            args.prompt,
            "--preset",
            args.preset,
            "--threads",
            args.threads,
            "--out",
            str(out),
            *settings,
        ]
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - begin
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    steady = rows[len(rows) // 2 :]
    step = statistics.median(r["seconds"] for r in steady)
    split = {p: statistics.median(r[f"seconds_{p}"] for r in steady) for p in PARTS}
    figures = {
        "machine": machine(), "preset": args.preset, "prompt": args.prompt, "settings": settings, "steps": len(rows),
        "optimisation_seconds": sum(r["seconds"] for r in rows), "command_seconds": wall, "peak_memory_gb": peak,
        "step_milliseconds": 1e3 * step, "split_milliseconds": {p: 1e3 * s for p, s in split.items()},
        "share_without_prior": 1 - split["prior"] / sum(split.values()),
    }  # fmt: skip
    print(f"machine              {figures['machine']}")
    print(f"preset               {args.preset}, {len(rows)} steps, {args.prompt!r} {' '.join(settings)}")
    print(f"optimisation         {figures['optimisation_seconds']:8.1f} s")
    print(f"whole command        {wall:8.1f} s")
    print(f"peak memory          {peak:8.2f} GB")
    print(f"a step               {1e3 * step:8.1f} ms")
    for part in PARTS:
        print(f"  {part:<18} {1e3 * split[part]:8.1f} ms  {split[part] / sum(split.values()):5.0%}")
    print(f"all but the prior    {figures['share_without_prior']:8.0%}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
