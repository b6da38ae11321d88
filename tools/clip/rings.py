"""Measure the Janus score on real objects: ``python tools/clip/rings.py --data data/judge``.

Each object has one front, so every Janus is an error of the score. ``draw.py --rings`` has drawn it from the twelve sides that the
score looks from. It is shown in its own colours and in a random look. Two-faced things are made from the same pictures: the
front replaces the five pictures of the back. Writes ``benchmarks/results/janus.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "prior"))

from captions import usual
from looks import Look, draw_look
from models import read_names
from pictures import Views, lit
from table import Vocabulary

from dreamfusion.evaluation.facing import azimuths, shapes_meant
from dreamfusion.evaluation.janus import Janus, judge_ring, ring_belief

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "janus.json"
TURNED_BACK = [4, 5, 6, 7, 8]
"""Views of a ring, from 120 to 240 degrees, that show the front once more where a two-faced thing is made up."""


def ring_pictures(rings: Views, shape: int, look: Look) -> Tensor:
    """A ring of one shape, (12, 4, 64, 64) in [0, 1]: in front of mid-gray, and the coverage."""
    rows = np.sort(np.concatenate([rings.rows[shape], rings.held_out[shape]]))
    looks = torch.tensor(look.numbers).expand(len(rows), 3)
    half, ones = torch.full((len(rows),), 0.5), torch.ones(len(rows), 3)
    drawn = lit(rings, np.full(len(rows), shape), rows, looks, half, ones)
    return torch.cat([drawn[:, :3] + (1 - drawn[:, 3:]) * 0.5, drawn[:, 3:]], 1)


def two_faced(told: Tensor) -> Janus:
    """The score of a ring whose back shows its front once more."""
    told = told.clone()
    told[TURNED_BACK] = told[[(k + len(told) // 2) % len(told) for k in TURNED_BACK]]
    return judge_ring(ring_belief(told))


def figures(told: list[tuple[str, Tensor]]) -> dict[str, Any]:
    """The score's errors on rings (name, azimuths)."""
    judged = [(name, judge_ring(ring_belief(one))) for name, one in told]
    found = [two_faced(one) for _, one in told]
    turn = torch.stack([one.argmax(1) for _, one in told]) * 30 - torch.arange(12) * 30
    return {
        "rings": len(told),
        "within_45": round(float((((turn + 180) % 360 - 180).abs() <= 45).float().mean()), 4),
        "false_janus": round(sum(j.janus for _, j in judged) / len(judged), 4),
        "found_janus": round(sum(j.janus for j in found) / len(found), 4),
        "no_front": round(sum(j.fronts == 0 for _, j in judged) / len(judged), 4),
        "false_janus_names": sorted({name for name, j in judged if j.janus}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the judge's pictures, with rings")
    parser.add_argument("--most", type=int, default=10_000, help="measure on so many objects, evenly chosen")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vocabulary, names = Vocabulary.of(args.data), read_names()
    rings, rng = Views(args.data / "rings", vocabulary), np.random.default_rng(4)
    known, others = [], []
    for shape in rings.shapes[:: max(1, len(rings.shapes) // args.most)]:
        name = vocabulary.order[vocabulary.own[shape]]
        for look in (Look(), draw_look("", rng, hold_out=False)):
            seen, prompt = ring_pictures(rings, shape, look), usual(names[name], look)
            known.append((name, azimuths(seen[:, :3], seen[:, 3], prompt)))
            if {shape} < set(shapes_meant(prompt)):
                others.append((name, azimuths(seen[:, :3], seen[:, 3], prompt, without=(shape,))))
    page = {"what": "janus", "own": figures(known), "others": figures(others)}
    args.result.write_text(json.dumps(page, indent=1) + "\n")
    for which in ("own", "others"):
        print(which, {k: v for k, v in page[which].items() if k != "false_janus_names"})


if __name__ == "__main__":
    main()
