"""Pack a training run's averaged weights and measure them on what training never saw.

    python tools/clip/card.py --run data/clip-run --judge-data data/clip --guide-data data/prior

Writes ``<role>.safetensors`` (fp16) with its ``.json`` (hash, pictures seen, figures) for the judge and the guide, whichever
are trained, and ``card.md``, into ``src/dreamfusion/clip/weights``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import LOOKS, NAMES, Views, captions, junk, plain_batch, roughened
from safetensors.torch import load_file
from torch import Tensor
from vocabulary import COLOURS

from dreamfusion.clip.bundled_clip import KINDS, WEIGHTS, BundledClip, write
from dreamfusion.clip.clip import Clip
from dreamfusion.clip.towers import Judge
from dreamfusion.evaluation.fronts import fronts
from dreamfusion.evaluation.janus import front_belief, judge_ring, ring_belief
from dreamfusion.evaluation.retrieval import precision, ranks
from dreamfusion.suites import load_suite
from dreamfusion.view.view_words import with_clay

PER_PROMPT = 16
TURNED_BACK = [4, 5, 6, 7, 8]
"""Views of a ring, from 120 to 240 degrees, that show the front once more where a two-faced thing is made up."""


def suite_items() -> tuple[list[str], list[tuple[int, int]]]:
    """The prompts of bundled-153, and each one's (name, look) indices."""
    meaning = {captions(n, look, "")[0]: (i, j) for i, n in enumerate(NAMES) for j, look in enumerate(LOOKS)}
    prompts = load_suite("bundled-153")
    return prompts, [meaning[p] for p in prompts]


class Shots:
    """Held-out pictures of the suite's prompts: ``truth`` (B,) is the prompt's index."""

    def __init__(self, views: Views, items: list[tuple[int, int]]):
        rng = np.random.default_rng(11)
        rows = [rng.permutation(np.arange(*views.span[name]))[:PER_PROMPT] for name, _ in items]
        self.views, self.rows = views, np.concatenate(rows)
        self.truth = torch.from_numpy(np.repeat(np.arange(len(items)), [len(r) for r in rows]))
        self.names, self.looks = (np.array([item[k] for item in items])[self.truth.numpy()] for k in (0, 1))

    def plain(self, look: np.ndarray | None = None) -> Tensor:
        """Over mid-gray, lit from one side."""
        return plain_batch(self.views, self.names, self.rows, self.looks if look is None else look).pictures

    def rough(self) -> Tensor:
        """As in training: moved, blurred, noisy, half transparent, over anything."""
        still = torch.zeros(len(self.rows), dtype=torch.bool)
        rng = torch.Generator().manual_seed(3)
        return roughened(self.views, self.names, self.rows, self.looks, still, torch.ones(len(self.rows)), rng)


@torch.no_grad()
def seen(clip: Clip, pictures: Tensor) -> Tensor:
    return torch.cat([clip.pictures(part) for part in pictures.split(64)])


def retrieval(clip: Clip, views: Views) -> dict[str, Any]:
    """How often a held-out picture's prompt is among the first of the suite, and how often a wrong thing's is."""
    prompts, items = suite_items()
    shots, said = Shots(views, items), clip.captions(prompts)
    clay = clip.captions([with_clay(p) for p in prompts])

    def found(pictures: Tensor, texts: Tensor, truth: Tensor = shots.truth) -> dict[str, float]:
        similarity = seen(clip, pictures) @ texts.T
        places = ranks(similarity, truth)
        best, own = float(similarity.amax(1).mean()), float(similarity.gather(1, truth[:, None]).mean())
        return {"r1": precision(places, 1), "r10": precision(places, 10), "own": own, "best": best}

    plain, rng = found(shots.plain(), said), torch.Generator().manual_seed(5)
    anything = torch.arange(len(prompts)).repeat(4)
    gray = torch.rand(len(anything), 1, 1, 1, generator=rng).expand(-1, 3, 64, 64)
    result: dict[str, Any] = {
        "pictures": len(shots.truth),
        **plain,
        "rough": found(shots.rough(), said),
        "clay": found(shots.plain(np.ones_like(shots.looks)), clay),
        "noise": found(torch.rand(len(anything), 3, 64, 64, generator=rng), said, anything),
        "gray": found(gray, said, anything),
        "junk": found(junk(len(anything), rng), said, anything),
    }
    return result | {"colour": colours(clip, shots, said)}


def colours(clip: Clip, shots: Shots, said: Tensor) -> dict[str, float]:
    """Pictures painted in a wrong colour: where does the prompt stand now? And the right one among all twelve colours?"""
    coloured = shots.looks >= 2
    rng = np.random.default_rng(2)
    wrong = np.where(
        coloured, 2 + (shots.looks - 2 + rng.integers(1, len(COLOURS), len(shots.looks))) % len(COLOURS), 0
    )
    twin = seen(clip, shots.plain(wrong))[coloured]
    right = seen(clip, shots.plain())[coloured]
    truth = shots.truth[coloured]
    places = ranks(twin @ said.T, truth)
    own = said[truth]
    names, looks = shots.names[coloured], shots.looks[coloured]
    texts = clip.captions([captions(n, c, "")[0] for n in NAMES for c in COLOURS]).unflatten(0, (len(NAMES), -1))
    among = torch.einsum("bd,bcd->bc", right, texts[torch.from_numpy(names)])
    return {
        "pictures": int(coloured.sum()),
        "twin_r1": precision(places, 1),
        "twin_r10": precision(places, 10),
        "twin_is_lower": float(((twin * own).sum(1) < (right * own).sum(1)).float().mean()),
        "first_of_twelve": precision(ranks(among, torch.from_numpy(looks - 2)), 1),
    }


def view_figures(clip: Clip, views: Views, rings: Views) -> dict[str, Any]:
    """The view head on held-out views of things with a front, and the Janus score of real objects (which have one)."""
    rng = np.random.default_rng(4)
    names = np.concatenate([np.full(b - a, n) for n, (a, b) in views.span.items()])
    some = plain_batch(views, names, np.arange(len(names)), rng.integers(0, len(LOOKS), len(names)))
    known = ~some.azimuth_deg.isnan()
    told, azimuth = clip.azimuth(some.pictures[known]), some.azimuth_deg[known]
    turn = ((told.argmax(1) * 30 - azimuth + 180) % 360 - 180).abs()
    reads, front, back = front_belief(told) > 0.5, azimuth.abs() <= 45, azimuth.abs() >= 135
    judged, two_faced = [], []
    for name in [n for n in rings.names if NAMES[n] in fronts()]:
        for look in (0, 2 + name % len(COLOURS)):
            rows = np.arange(*rings.span[name])
            ring = plain_batch(rings, np.full(len(rows), name), rows, np.full(len(rows), look))
            told = clip.azimuth(ring.pictures)
            judged.append((NAMES[name], judge_ring(ring_belief(told))))
            told[TURNED_BACK] = told[[(k + len(told) // 2) % len(told) for k in TURNED_BACK]]
            two_faced.append(judge_ring(ring_belief(told)))
    return {
        "views": int(known.sum()),
        "within_45": float((turn <= 45).float().mean()),
        "front_read_as_front": float(reads[front].float().mean()),
        "back_read_as_front": float(reads[back].float().mean()),
        "other_read_as_front": float(reads[~front].float().mean()),
        "rings": len(judged),
        "false_janus": sum(j.janus for _, j in judged) / len(judged),
        "found_janus": sum(j.janus for j in two_faced) / len(two_faced),
        "no_front": sum(j.fronts == 0 for _, j in judged) / len(judged),
        "false_janus_names": sorted({name for name, j in judged if j.janus}),
    }


TEXT = """# The bundled CLIPs

Two small CLIPs (Radford et al. 2021) for 64 x 64 pictures of the bundled prior's things, trained by `tools/clip` on
one CPU core. They share no weights, pictures or architecture, and `load_judge` and `load_guide` refuse each other's files: what
guides may not judge. Captions are read as sentence embeddings of the frozen all-MiniLM-L6-v2.

{rows}
"""

ROLE = """## {role}: {what}

{size:.1f} MB in fp16, {parameters:.2f} M parameters, {pictures:,} pictures seen. {data}

Measured on {shots} held-out views (no training saw them) of the prompts of `bundled-153`, each ranked among all 153; chance is
0.7 % and 6.5 %. Similarities are cosines.

| pictures | R@1 | R@10 | similarity to the own prompt | to the nearest prompt |
|---|---|---|---|---|
{table}
| in a wrong colour, against the prompt with the right one | {twin_r1:.1%} | {twin_r10:.1%} | | |

Of the same thing in two colours the prompt is nearer to the right one in {twin_is_lower:.1%} of {coloured} pictures; among all
twelve colours' captions of the thing the right one comes first in {first_of_twelve:.1%}.
"""

VIEW = """
The eye, a tower of its own ({pictures:,} pictures seen), on {views} held-out views of the {fronts} names that have a front
(`evaluation/fronts.txt`), plain, clay and coloured: the azimuth is within 45 degrees of the truth in {within_45:.1%}; a front
(|azimuth| up to 45) reads as a front in {front_read_as_front:.1%}, a back (from 135) in {back_read_as_front:.1%}, whatever is no
front in {other_read_as_front:.1%}. Walked round in twelve steps as the Janus score does, {rings} rings of real objects, which have
one front, give a Janus in {false_janus:.1%} and no front at all in {no_front:.1%}: the score's own error.{names} With the five
views of the back replaced by those of the front, as a two-faced thing would show them, {found_janus:.1%} are found out.
"""

WHAT = {
    "judge": "ranks finished assets and tells fronts from backs",
    "guide": "climbed by the CLIP baselines",
}
DATA = {
    "judge": "A residual ConvNet with attention pooling; its own renders, with other lenses, distances, lights and backgrounds "
    "than the prior's, blurred, noisy and half transparent, and junk that must be called nothing.",
    "guide": "A transformer over 8 x 8 patches; the prior's pictures over random backgrounds.",
}


def section(role: str, record: dict[str, Any], size: float, parameters: float) -> str:
    """One CLIP's part of the card."""
    held = record["held_out"]
    rows = {"clean": held, "roughened as in training": held["rough"], "textureless, against 'a clay model of ...'": held["clay"],
            "white noise": held["noise"], "plain gray": held["gray"], "blobs, blotches, noise": held["junk"]}  # fmt: skip
    table = "\n".join(
        f"| {name} | {row['r1']:.1%} | {row['r10']:.1%} | {row['own']:.2f} | {row['best']:.2f} |"
        for name, row in rows.items()
    )
    colour = dict(held["colour"])
    text = ROLE.format(
        role=role, what=WHAT[role], data=DATA[role], size=size, parameters=parameters, pictures=record["pictures"],
        shots=held["pictures"], table=table, coloured=colour.pop("pictures"), **colour,
    )  # fmt: skip
    if view := record.get("view"):
        view = dict(view, fronts=len([n for n in NAMES if n in fronts()]))
        names = view.pop("false_janus_names")
        text += VIEW.format(**view, names=f" (They are: {', '.join(names)}.)" if names else "")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--judge-data", type=Path, required=True)
    parser.add_argument("--guide-data", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.to.mkdir(parents=True, exist_ok=True)
    parts = []
    for role, kind in KINDS.items():
        if not (args.run / f"{role}.safetensors").exists():
            continue
        stored, target = load_file(args.run / f"{role}.safetensors"), args.to / f"{role}.safetensors"
        network = kind()
        network.load_state_dict({k[4:]: v for k, v in stored.items() if k.startswith("ema.")})
        seen_by_eye = 0
        if isinstance(network, Judge):
            eye = load_file(args.run / "eye.safetensors")
            network.eye.load_state_dict({k[4:]: v for k, v in eye.items() if k.startswith("ema.")})
            seen_by_eye = int(eye["seen"])
        write(network, target, {})
        clip = BundledClip(target, role)
        data = args.judge_data if role == "judge" else args.guide_data
        views = Views(data, bare=role == "judge", held_out=True)
        record: dict[str, Any] = {"pictures": int(stored["seen"]), "held_out": retrieval(clip, views)}
        if role == "judge":
            record["view"] = {"pictures": seen_by_eye} | view_figures(
                clip, views, Views(data / "rings", bare=True, held_out=None)
            )
        write(network, target, record)
        print(role, json.dumps(record, indent=1), flush=True)
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        parts.append(section(role, record, target.stat().st_size / 1e6, parameters))
    (args.to / "card.md").write_text(TEXT.format(rows="\n".join(parts)))


if __name__ == "__main__":
    main()
