"""Pack the weights of a training run for the package: ``python tools/prior/pack.py --run data/wide-run --data data/wide``.

Writes ``bundled.safetensors`` (half precision; the planes in eight bits with a scale for each shape) and ``bundled.json`` (hash,
vocabulary, pictures seen, losses) into ``--to``; either both are new or neither is. Then ``names.safetensors``, the names'
embeddings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path

import torch
from captions import IDLE, PLACES, TEMPLATES, VIEWS
from dataset import DataError, left_out_of, shapes_of, shown_by
from fit import load_layout
from looks import Look, held_out
from models import TableError, read_names
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamfusion.models.hashes import file_sha256
from dreamfusion.priors import name_meanings
from dreamfusion.priors.appearance import COLOURS, MATERIALS, PATTERN_WORDS, PROPORTION_WORDS, PROPORTIONS
from dreamfusion.priors.bundled_prior import NAMES, WEIGHTS, BundledPrior
from dreamfusion.priors.outlines import outlines

LEVELS = 127


def last_record(path: Path) -> dict[str, float]:
    """The newest value of every figure in a loss curve."""
    found: dict[str, float] = {}
    if not path.exists():
        return found
    for line in path.read_text().splitlines():
        found |= json.loads(line)
    return {key: value for key, value in found.items() if key not in ("seen", "per_second")}


def packed_planes(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Planes (I, W) in whole steps from -127 to 127, and a shape's step (I,) in half precision: the largest value is 127."""
    scale = (planes.abs().amax(1) / LEVELS).clamp_min(1e-6).half()
    return (planes / scale.float()[:, None]).round().clamp(-LEVELS, LEVELS).to(torch.int8), scale


def weights_of(run: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors to pack, and what is on record of the training."""
    path = run / "layout.safetensors"
    if not path.is_file():
        raise DataError(f"{run} has no layout.safetensors: fit.py writes it")
    layout, seen = load_layout(path), int(load_file(path)["seen"])
    tensors = {
        f"layout.{key}": (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in layout.state_dict().items()
        if key not in ("planes.weight", "outlines")
    }
    tensors["layout.planes.packed"], tensors["layout.planes.scale"] = packed_planes(layout.planes.weight)
    print("drawing the outlines that pictures are recognised by", flush=True)
    tensors["layout.outlines"] = outlines(layout, torch.arange(layout.sizes.shapes))
    return tensors, {"layout": {"visits": seen} | last_record(run / "layout.jsonl")}


def vocabulary(data: Path, left_out: Collection[str] = ()) -> dict[str, object]:
    """What the record says of the vocabulary: names with their categories and synonyms, looks, and every word that captions have.
    Shapes that were ``left_out`` of the training do not count."""
    names, shown = read_names(), shown_by(data, left_out=left_out)
    table = {
        name: {"category": names[name].category, "shapes": len(stems)}
        | ({"synonyms": list(names[name].synonyms)} if names[name].synonyms else {})
        | ({"kind": names[name].kind} if names[name].kind else {})
        for name, stems in shown.items()
    }
    phrases = [w for name in shown for w in (name, *names[name].synonyms)]
    looks = [*COLOURS, *MATERIALS, *(w for m in MATERIALS.values() for w in m.words)]
    looks += [*PATTERN_WORDS, *(w for more in PATTERN_WORDS.values() for w in more)]
    looks += [*PROPORTIONS, *(w for more in PROPORTION_WORDS.values() for w in more)]
    other = [*VIEWS, *TEMPLATES, *PLACES, "clay model of made of stripes dots squares"]
    words = {w for text in (*phrases, *looks, *other) for w in text.lower().replace("{}", "").replace(",", "").split()}
    return {
        "vocabulary": table,
        "shapes": len(shapes_of(shown)),
        "colours": list(COLOURS),
        "materials": list(MATERIALS),
        "patterns": list(PATTERN_WORDS),
        "proportions": [p for p in PROPORTIONS if p],
        "words": sorted(words),
        "held_out": [
            f"{look.main or look.pattern} {name}"
            for name in shown
            for look in (*map(Look, (*COLOURS, *MATERIALS)), *(Look(pattern=p) for p in PATTERN_WORDS))
            if held_out(name, look)
        ],
        "idle": sorted(IDLE),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=WEIGHTS.parent)
    args = parser.parse_args()
    try:
        pack(args.run, args.data, args.to)
    except (DataError, TableError) as error:
        print(f"pack: {error}", file=sys.stderr)
        sys.exit(2)


def pack(run: Path, data: Path, to: Path) -> None:
    """Write the weights and their record, which stay as they are until both are written; then the meanings of the names."""
    to.mkdir(parents=True, exist_ok=True)
    target, said = to / "bundled.safetensors", to / "bundled.json"
    temporary = [path.with_name(f".{path.name}.tmp") for path in (target, said)]
    try:
        tensors, record = weights_of(run)
        known = vocabulary(data, left_out_of(run).values())
        save_file(tensors, temporary[0])
        temporary[1].write_text(json.dumps(record | {"sha256": file_sha256(temporary[0])} | known, indent=1) + "\n")
        for old, new in zip(temporary, (target, said), strict=True):
            old.rename(new)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    prior = BundledPrior(target)
    name_meanings.write(to / NAMES, prior.names, prior.encoder)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {len(known['vocabulary'])} names")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
