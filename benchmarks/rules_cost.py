"""What a step of each rule costs with real architectures at random weights: ``python benchmarks/rules_cost.py [--priors if,sd]``.

The networks have the shapes of Stable Diffusion 1.5 (``sd``) and of DeepFloyd IF-I-M (``if``), and random weights, so nothing is
downloaded; ``bundled`` is the bundled prior. Measured is one ``direction`` and one ``learn`` of one picture in the prior's
own space, without a scene and a VAE: the median time, and the memory that the process added. Each rule runs in a process of its
own. Prints a table relative to SDS, and writes it to ``results/rules-cost.json`` as soon as a prior is done.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import machine, provenance

from dreamfusion.errors import nearest
from dreamfusion.files import write_atomic

RULES = (
    "sds",
    "sjc",
    "vsd",
    "csd",
    "ssd",
    "hifa",
    "nfsd",
    "ism",
    "sdi",
    "asd",
    "bridge",
    "consistent3d",
    "reconstruction",
)
SHAPES: dict[str, dict[str, Any]] = {
    "sd": {  # its unet/config.json
        "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768, "attention_head_dim": 8,
    },
    "if": {  # IF-I-M's unet/config.json
        "sample_size": 64, "in_channels": 3, "out_channels": 6, "block_out_channels": (192, 384, 576, 768), "layers_per_block": 3,
        "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
        "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_dim": 768, "encoder_hid_dim": 4096,
        "attention_head_dim": 64, "addition_embed_type": "text", "addition_embed_type_num_heads": 64,
        "cross_attention_norm": "group_norm", "resnet_time_scale_shift": "scale_shift", "act_fn": "gelu",
    },
}  # fmt: skip
WORDS = {"sd": (77, 768), "if": (77, 4096)}


def random_prior(name: str, device: str) -> Any:
    """A prior of this architecture with random weights."""
    import torch
    from diffusers import UNet2DConditionModel

    from dreamfusion.loading import load_prior
    from dreamfusion.priors.prior import Prior, cosine_schedule
    from dreamfusion.priors.question import Question, Tokens, Words

    if name == "bundled":
        return load_prior("bundled", device)
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(**SHAPES[name])
    unet = unet.to(device).eval().requires_grad_(False)

    class Random(Prior):
        id, hash, resolution, channels = name, "0" * 64, 64, SHAPES[name]["in_channels"]

        def __init__(self) -> None:
            self.device = torch.device(device)

        def embed(self, captions: Sequence[str], images: Sequence[Any] = ()) -> Tokens:
            tokens = torch.randn(len(captions), *WORDS[name], device=device)
            return Tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device))

        def adaptable(self) -> torch.nn.Module:
            return unet

        def alpha_sigma(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return cosine_schedule(t)

        def encode(self, picture: torch.Tensor) -> torch.Tensor:
            return picture * 2 - 1

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return (z + 1) / 2

        def noise_shape(self, count: int) -> tuple[int, ...]:
            return (count, self.channels, 64, 64)

        def predict_noise(
            self, z_t: torch.Tensor, t: torch.Tensor, question: Question, about: Sequence[Words | None]
        ) -> tuple[torch.Tensor, ...]:
            answers = []
            for words in about:
                asked = words if isinstance(words, Tokens) else self.embed([""] * len(z_t))
                out = unet(z_t, t * 1000, encoder_hidden_states=asked.tokens, return_dict=False)[0]
                answers.append(out[:, : z_t.shape[1]])
            return tuple(answers)

    return Random()


def measure(rule_name: str, prior_name: str, guidance: float, repeats: int, device: str) -> dict[str, float]:
    """Median seconds of one step of a rule for one picture, and the memory it added, in MB."""
    import torch

    from dreamfusion.distillation.rules import make_rule
    from dreamfusion.priors.question import Question
    from dreamfusion.settings.building import build
    from dreamfusion.view.cameras import orbit_cameras
    from dreamfusion.view.view import orbit_view

    prior = random_prior(prior_name, device)
    given = {"kind": rule_name, "guidance_scale": guidance, "threshold": 0, "negative_prompt": "blurry"}
    rule = make_rule(build({f"distillation.{k}": v for k, v in given.items()}).distillation, prior)
    question = Question(
        prior.embed(["a red armchair"]), orbit_view(orbit_cameras([17.0]), 64), "words", prior.embed(["b"])
    )
    g = torch.Generator().manual_seed(0)
    shape = prior.noise_shape(1)
    picture, noise = torch.rand(shape, generator=g).to(device), torch.randn(shape, generator=g).to(device)
    t, seconds = torch.full((1,), 0.5, device=device), []
    cuda = device.startswith("cuda")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for _ in range(repeats):
        begin = time.perf_counter()
        rule.direction(picture, question, t, noise)
        rule.learn(picture, question, g)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else after - before
    return {"seconds": sorted(seconds)[repeats // 2], "megabytes": memory}


def table(prior: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every rule's figures with a prior, printed as they come."""
    rows: dict[str, dict[str, float]] = {}
    for rule in dict.fromkeys(["sds", *args.rules.split(",")]):
        told = {"--rule": rule, "--priors": prior, "--guidance-scale": args.guidance_scale}
        told |= {"--repeats": args.repeats, "--device": args.device}
        command = [sys.executable, __file__, *(str(word) for pair in told.items() for word in pair)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = rows[rule] = json.loads(out.splitlines()[-1])
        times = row["seconds"] / rows["sds"]["seconds"]
        print(f"{prior:8} {rule:16} {row['seconds']:8.3f} s {times:6.2f} x sds {row['megabytes']:8.0f} MB", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", default=",".join(SHAPES), help="some of if, sd and bundled, separated by commas")
    parser.add_argument("--rules", default=",".join(RULES), help="rules, separated by commas; sds comes first")
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--result", type=Path, default=Path(__file__).parent / "results" / "rules-cost.json")
    parser.add_argument("--rule", help=argparse.SUPPRESS)
    args = parser.parse_args()
    priors = args.priors.split(",")
    for prior in priors:
        if prior not in (*SHAPES, "bundled"):
            sys.exit(f"rules_cost: error: --priors {prior} is not allowed{nearest(prior, (*SHAPES, 'bundled'))}")
    if args.rule:
        print(json.dumps(measure(args.rule, priors[0], args.guidance_scale, args.repeats, args.device)))
        return
    print(machine())
    page: dict[str, Any] = {"what": "rules-cost", "guidance_scale": args.guidance_scale, "repeats": args.repeats}
    page |= provenance() | {"priors": {}}
    for prior in priors:
        page["priors"][prior] = table(prior, args)
        write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
