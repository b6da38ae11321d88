"""Score distillation against back-propagating the same loss through the prior: ``python benchmarks/sds_cost.py``.

Both ways answer with a gradient for the same pictures from the same noise. SDS takes w(t) (e_hat - e) as it is;
'reconstruction' differentiates the loss w(t) / 2 |e_hat - e|^2 through the network. Each way runs in a process of its
own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from machine import machine

WAYS = ("sds", "reconstruction")


def measure(way: str, views: int, repeats: int) -> dict[str, float]:
    """Median seconds of one direction and the memory it added, in MB."""
    import torch

    from dreamfusion.distillation.rules import make_rule
    from dreamfusion.loading import load_prior
    from dreamfusion.priors.question import Question
    from dreamfusion.settings.building import build
    from dreamfusion.view.cameras import orbit_cameras
    from dreamfusion.view.view import orbit_view

    prior = load_prior("bundled")
    settings = {"distillation.kind": way, "distillation.guidance_scale": 10.0, "distillation.threshold": 0}
    rule = make_rule(build(settings).distillation, prior)
    view = orbit_view(orbit_cameras([17.0] * views, 17.0), 64)
    question = Question(prior.embed(["a red armchair"] * views), view)
    g = torch.Generator().manual_seed(0)
    picture, noise = torch.rand(views, 3, 64, 64, generator=g), torch.randn(views, 3, 64, 64, generator=g)
    t = torch.full((views,), 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        answer = rule.direction(picture, question, t, noise)
        assert bool(torch.isfinite(answer.gradient).all())
        seconds.append(time.perf_counter() - begin)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"milliseconds": 1e3 * sorted(seconds)[repeats // 2], "megabytes": (after - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.views, args.repeats)))
        return
    rows = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--views", str(args.views), "--repeats", str(args.repeats)]
        rows[way] = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    print(machine())
    print(f"{args.views} views of 64 x 64      time        added memory")
    for way, row in rows.items():
        print(f"{way:<18} {row['milliseconds']:9.1f} ms {row['megabytes']:9.0f} MB")
    s, b = (rows[way] for way in WAYS)
    time_ratio, memory_ratio = (b[k] / max(s[k], 1) for k in ("milliseconds", "megabytes"))
    print(f"back-propagation costs {time_ratio:.1f} x the time, {memory_ratio:.1f} x the memory")


if __name__ == "__main__":
    main()
