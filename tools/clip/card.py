"""Pack a training run's averaged weights and measure them on what training never saw.

    python tools/clip/card.py --run data/clip-run --judge-data data/judge --guide-data data/guide

``--other DIR`` measures packed weights of another version on the same pictures.

Writes ``<role>.safetensors`` (fp16) with its ``.json`` (hash, pictures seen, figures) for the judge and the guide, whichever
are trained, and ``card.md``, into ``src/dreamfusion/clip/weights``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path += [str(Path(__file__).parents[1] / "prior"), str(Path(__file__).parents[1])]

import open_suites
from captions import usual
from looks import Look
from models import read_names
from pictures import Views, plain_pictures, roughened
from roughen import junk
from table import Vocabulary

from dreamfusion.clip.bundled_clip import KINDS, WEIGHTS, BundledClip, write
from dreamfusion.clip.clip import Clip
from dreamfusion.evaluation.retrieval import precision, ranks
from dreamfusion.priors.appearance import CLAY, COLOURS, MAINS, PLAIN
from dreamfusion.suites import load_suite
from dreamfusion.view.view_words import with_clay

SUITE, WIDE = "open-153", "open-wide"
PER_PROMPT = 16


def suite_items(suite: str = SUITE) -> tuple[list[str], list[tuple[str, Look]]]:
    """The prompts of a suite, and each one's name and look."""
    prompts, names = load_suite(suite), read_names()
    found = open_suites.items().get(suite) or {
        usual(names[n], Look(c)): (n, Look(c)) for n in names for c in (PLAIN, *COLOURS)
    }
    return prompts, [found[prompt] for prompt in prompts]


class Shots:
    """Held-out pictures of prompts, by their names and looks: ``truth`` (B,) is the prompt's index. A prompt has pictures of each
    shape that shows its name, ``PER_PROMPT`` at most."""

    def __init__(self, views: Views, items: list[tuple[str, Look]]):
        rng = np.random.default_rng(11)
        order = views.vocabulary.order
        truth, shapes, rows = [], [], []
        for k, (name, _) in enumerate(items):
            among = [(shape, row) for shape in views.shown[order.index(name)] for row in views.held_out[int(shape)]]
            for j in rng.permutation(len(among))[:PER_PROMPT]:
                truth.append(k)
                shapes.append(int(among[j][0]))
                rows.append(int(among[j][1]))
        self.views, self.items = views, items
        self.truth, self.shapes, self.rows = torch.tensor(truth), np.array(shapes), np.array(rows)
        self.look = torch.tensor([items[k][1].numbers for k in truth])

    def plain(self, look: Tensor | None = None) -> Tensor:
        """Over mid-gray, lit from one side."""
        return plain_pictures(self.views, self.shapes, self.rows, self.look if look is None else look)

    def rough(self) -> Tensor:
        """As in training: moved, blurred, noisy, half transparent, over anything."""
        still = torch.zeros(len(self.rows), dtype=torch.bool)
        rng, ones = torch.Generator().manual_seed(3), torch.ones(len(self.rows))
        return roughened(self.views, self.shapes, self.rows, self.look, still, ones, rng)


@torch.no_grad()
def seen(clip: Clip, pictures: Tensor) -> Tensor:
    return torch.cat([clip.pictures(part) for part in pictures.split(64)])


def retrieval(clip: Clip, views: Views, suite: str = SUITE) -> dict[str, Any]:
    """How often a held-out picture's prompt is among the first of the suite, and how often a wrong thing's is."""
    prompts, items = suite_items(suite)
    shots, said = Shots(views, items), clip.captions(prompts)
    clay = clip.captions([with_clay(p) for p in prompts])

    def found(looks: Tensor, texts: Tensor, truth: Tensor = shots.truth) -> dict[str, float]:
        similarity = looks @ texts.T
        places = ranks(similarity, truth)
        best, own = float(similarity.amax(1).mean()), float(similarity.gather(1, truth[:, None]).mean())
        return {"r1": precision(places, 1), "r10": precision(places, 10), "own": own, "best": best}

    plain, rng = seen(clip, shots.plain()), torch.Generator().manual_seed(5)
    anything = torch.arange(len(prompts)).repeat(4)
    gray = torch.rand(len(anything), 1, 1, 1, generator=rng).expand(-1, 3, 64, 64)
    noise = torch.rand(len(anything), 3, 64, 64, generator=rng)
    bare = torch.tensor(Look(CLAY).numbers).expand_as(shots.look)
    result: dict[str, Any] = {"suite": suite, "pictures": len(shots.truth), **found(plain, said)}
    result |= {
        "rough": found(seen(clip, shots.rough()), said),
        "clay": found(seen(clip, shots.plain(bare)), clay),
        "noise": found(seen(clip, noise), said, anything),
        "gray": found(seen(clip, gray), said, anything),
        "junk": found(seen(clip, junk(len(anything), rng)), said, anything),
    }
    if suite == SUITE:
        among = load_suite(WIDE)
        place = torch.tensor([among.index(prompt) for prompt in prompts])[shots.truth]
        result["wide"] = found(plain, clip.captions(among), place)
    return result | {"colour": colours(clip, shots, said, plain)}


def colours(clip: Clip, shots: Shots, said: Tensor, plain: Tensor) -> dict[str, float]:
    """Of prompts that name one colour: pictures painted in a wrong one, where does the prompt stand now? And the right one among all
    twenty? ``said`` are the prompts, ``plain`` the right pictures, as unit vectors."""
    names = read_names()
    one = torch.tensor([look == Look(look.main) and look.main in COLOURS for _, look in shots.items])[shots.truth]
    rng, first = np.random.default_rng(2), MAINS.index(next(iter(COLOURS)))
    main = shots.look[:, 0] - first
    other = (main + torch.from_numpy(rng.integers(1, len(COLOURS), len(main)))) % len(COLOURS) + first
    wrong = torch.where(one[:, None], torch.stack([other, *shots.look.T[1:]], 1), shots.look)
    twin, right, truth = seen(clip, shots.plain(wrong))[one], plain[one], shots.truth[one]
    own, places = said[truth], ranks(twin @ said.T, truth)
    texts = [usual(names[name], Look(c)) for name, _ in shots.items for c in COLOURS]
    among = torch.einsum("bd,bcd->bc", right, clip.captions(texts).unflatten(0, (len(shots.items), -1))[truth])
    return {
        "pictures": int(one.sum()),
        "twin_r1": precision(places, 1),
        "twin_r10": precision(places, 10),
        "twin_is_lower": float(((twin * own).sum(1) < (right * own).sum(1)).float().mean()),
        "first_of_all": precision(ranks(among, main[one]), 1),
    }


TEXT = """# The bundled CLIPs

Two small CLIPs (Radford et al. 2021) for 64 x 64 pictures of the bundled prior's things, trained by `tools/clip` on
one CPU core. They share no weights, pictures or architecture, and `load_judge` and `load_guide` refuse each other's files: what
guides may not judge. Captions are read as sentence embeddings of the frozen all-MiniLM-L6-v2.

{rows}
"""

ROLE = """## {role}: {what}

{size:.1f} MB in fp16, {parameters:.2f} M parameters, {pictures:,} pictures seen. {data}

Measured on {shots} held-out views (no training saw them) of the prompts of `{suite}`, each ranked among all 153; chance is
0.7 % and 6.5 %. Similarities are cosines.

| pictures | R@1 | R@10 | similarity to the own prompt | to the nearest prompt |
|---|---|---|---|---|
{table}
| in a wrong colour, against the prompt with the right one | {twin_r1:.1%} | {twin_r10:.1%} | | |

Of the same thing in two colours the prompt is nearer to the right one in {twin_is_lower:.1%} of {coloured} pictures; among all
twenty colours' captions of the thing the right one comes first in {first_of_all:.1%}. On the prompts of `bundled-153`, of the first
vocabulary, R@1 is {old_r1:.1%} and R@10 {old_r10:.1%} ({old_clay:.1%} and {old_clay10:.1%} textureless).
"""

WHAT = {
    "judge": "ranks finished assets",
    "guide": "climbed by the CLIP baselines",
}
DATA = {
    "judge": "A residual ConvNet with attention pooling; its own renders, with other lenses, distances, lights and backgrounds "
    "than the prior's, blurred, noisy and half transparent, and junk that must be called nothing.",
    "guide": "A transformer over 8 x 8 patches; renders of its own, drawn in the same way from another seed.",
}


def section(role: str, record: dict[str, Any], size: float, parameters: float) -> str:
    """One CLIP's part of the card."""
    held = record["held_out"]
    rows = {"clean": held, "clean, among all of `open-wide`": held["wide"], "roughened as in training": held["rough"],
            "textureless, against 'a clay model of ...'": held["clay"],
            "white noise": held["noise"], "plain gray": held["gray"], "blobs, blotches, noise": held["junk"]}  # fmt: skip
    table = "\n".join(
        f"| {name} | {row['r1']:.1%} | {row['r10']:.1%} | {row['own']:.2f} | {row['best']:.2f} |"
        for name, row in rows.items()
    )
    colour, old = dict(held["colour"]), record["bundled_153"]
    return ROLE.format(
        role=role, what=WHAT[role], data=DATA[role], size=size, parameters=parameters, pictures=record["pictures"],
        shots=held["pictures"], suite=held["suite"], table=table, old_r1=old["r1"], old_r10=old["r10"], old_clay=old["clay"]["r1"],
        old_clay10=old["clay"]["r10"], coloured=colour.pop("pictures"), **colour,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a training run")
    parser.add_argument(
        "--other", type=Path, metavar="DIR", help="only print how other packed weights do on bundled-153"
    )
    parser.add_argument("--judge-data", type=Path, required=True)
    parser.add_argument("--guide-data", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.other:
        for role in KINDS:
            data = args.judge_data if role == "judge" else args.guide_data
            views = Views(data, Vocabulary.of(data))
            found = retrieval(BundledClip(args.other / f"{role}.safetensors", role), views, "bundled-153")
            print(f"{role}: R@1 {found['r1']:.1%}, R@10 {found['r10']:.1%} of {found['pictures']} pictures", flush=True)
        return
    if args.run is None:
        parser.error("the following arguments are required: --run")
    args.to.mkdir(parents=True, exist_ok=True)
    parts = []
    for role, kind in KINDS.items():
        if not (args.run / f"{role}.safetensors").exists():
            continue
        stored, target = load_file(args.run / f"{role}.safetensors"), args.to / f"{role}.safetensors"
        network = kind()
        network.load_state_dict({k[4:]: v for k, v in stored.items() if k.startswith("ema.")})
        write(network, target, {})
        clip = BundledClip(target, role)
        data = args.judge_data if role == "judge" else args.guide_data
        vocabulary = Vocabulary.of(data)
        views = Views(data, vocabulary)
        record: dict[str, Any] = {"pictures": int(stored["seen"]), "held_out": retrieval(clip, views)}
        record["bundled_153"] = retrieval(clip, views, "bundled-153")
        write(network, target, record)
        print(role, json.dumps(record, indent=1), flush=True)
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        parts.append(section(role, record, target.stat().st_size / 1e6, parameters))
    (args.to / "card.md").write_text(TEXT.format(rows="\n".join(parts)))


if __name__ == "__main__":
    main()
