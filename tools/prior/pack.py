"""Pack the averaged weights of a training run for the package: ``python tools/prior/pack.py --run data/prior-run --data data/prior``.

Writes ``bundled.safetensors`` (fp16) and ``bundled.json`` (hash, vocabulary, held-out pairs, pictures seen, losses) into ``--to``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from captions import captions
from safetensors.torch import load_file, save_file
from vocabulary import COLOURS, MODELS, SYNONYMS, held_out_pairs

from dreamfusion.models.hashes import file_sha256
from dreamfusion.priors.bundled_prior import WEIGHTS


def last_record(path: Path, key: str) -> float | None:
    """The newest value of a key in a loss curve."""
    values = [record[key] for record in map(json.loads, path.read_text().splitlines()) if key in record]
    return values[-1] if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=WEIGHTS.parent)
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    tensors, record = {}, {}
    for network in ("layout", "denoiser"):
        stored = load_file(args.run / f"{network}.safetensors")
        tensors |= {
            f"{network}.{k[4:]}": v.to(torch.float16).contiguous() for k, v in stored.items() if k.startswith("ema.")
        }
        curve = args.run / f"{network}.jsonl"
        record[network] = {
            "pictures": int(stored["seen"]),
            "loss": last_record(curve, "loss"),
            "held_out_loss": last_record(curve, "held_out"),
        }
    target = args.to / "bundled.safetensors"
    save_file(tensors, target)
    said = {
        w for n in MODELS for look in ("", "clay", *COLOURS) for c in captions(n, look, "") for w in c.lower().split()
    }
    names = sorted({*MODELS, *(s for more in SYNONYMS.values() for s in more)})
    record |= {"sha256": file_sha256(target), "names": names, "colours": list(COLOURS), "words": sorted(said)}
    record["held_out"] = [f"{colour} {name}" for name, colour in held_out_pairs()]
    (args.to / "bundled.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
