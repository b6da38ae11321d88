"""Large priors at their real architecture with random weights: seconds and memory of one step of distillation.

    python benchmarks/priors.py [--case if-sds …] [--again] [--steps 3] [--threads 2] [--folder DIR]

Random weights cost what trained ones do. The pipelines are made once in DIR (3 GB) and loaded by path, as a user's would
be; text encoders are cut down to one narrow layer, for they play no part in a step. Every case runs in a process of its
own and is kept in ``results/priors.json`` as soon as it is done, so that what broke off goes on with what is missing.
Memory is what the process holds at its peak above what it held once the models were loaded, and its peak altogether.
The arithmetic is what a run would take here: bfloat16 where the processor has it in hardware, else float32. On a busy
machine (``load`` says so) believe the seconds of the processor with --threads 1, not those of the clock.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import commit, machine

from dreamfusion.priors.memory import Memory

os.environ.setdefault("HF_HUB_OFFLINE", "1")
RESULTS = Path(__file__).parent / "results" / "priors.json"

# name: (pipeline, rule, what is rendered, memory)
CASES: dict[str, tuple[str, str, int, Memory]] = {
    "if-sds": ("if", "sds", 3, "fast"),
    "if-reconstruction": ("if", "reconstruction", 3, "fast"),
    "sd-latents-sds": ("sd", "sds", 4, "fast"),
    "sd-latents-reconstruction": ("sd", "reconstruction", 4, "fast"),
    "sd-vae-sds": ("sd", "sds", 3, "fast"),
    "sd-vae-sds-low": ("sd", "sds", 3, "low"),
    "sd-vae-reconstruction": ("sd", "reconstruction", 3, "fast"),
}


def text_folder(kind: str, width: int) -> tuple[Any, Any]:
    """A tokenizer of letters and a text encoder of the right width."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import tiny_pipelines as tiny

    return tiny.t5(width) if kind == "t5" else tiny.clip(width)


def make(name: str, folder: Path) -> None:
    """Build and save DeepFloyd IF-I-M's or Stable Diffusion 1.5's pipeline with random weights in bfloat16."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        IFPipeline,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    if (folder / "model_index.json").is_file():  # written last
        return
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    pipeline: Any
    scheduler: Any
    if name == "if":
        tokenizer, encoder = text_folder("t5", 4096)
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=3, out_channels=6, layers_per_block=3, block_out_channels=(192, 384, 576, 768),
            down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
            up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=768, encoder_hid_dim=4096, attention_head_dim=64,
            addition_embed_type="text", cross_attention_norm="group_norm", resnet_time_scale_shift="scale_shift", act_fn="gelu",
        )  # fmt: skip
        scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
        pipeline = IFPipeline(tokenizer, encoder, unet, scheduler, None, None, None, requires_safety_checker=False)
    else:
        tokenizer, encoder = text_folder("clip", 768)
        # The class's defaults are Stable Diffusion's.
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2, sample_size=512, scaling_factor=0.18215,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        scheduler = PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
        )
        pipeline = StableDiffusionPipeline(
            vae, encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
        )
    pipeline.to(torch.bfloat16).save_pretrained(folder)


def peak_of(work: Callable[[], Any]) -> tuple[float, float, int]:
    """(seconds, seconds of processor time, bytes above the start at the peak) of a call, sampled every 5 ms."""
    import psutil

    process = psutil.Process()
    start = highest = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.005):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin, begin_busy = time.perf_counter(), time.process_time()
    try:
        work()
    finally:
        seconds, busy = time.perf_counter() - begin, time.process_time() - begin_busy
        done.set()
        watcher.join()
    return seconds, busy, highest - start


def measure(case: str, folder: Path, steps: int, threads: int, precision: str) -> dict[str, Any]:
    """One case in this process: the quickest of ``steps`` steps, and the highest peak."""
    import torch

    torch.set_num_threads(threads)

    from dreamfusion.distillation.rules import make_rule
    from dreamfusion.loading import load_prior
    from dreamfusion.priors.diffusers_prior import DiffusersPrior
    from dreamfusion.priors.question import Question
    from dreamfusion.settings.building import build
    from dreamfusion.view.cameras import orbit_cameras
    from dreamfusion.view.view import orbit_view

    name, kind, channels, memory = CASES[case]
    prior = load_prior(str(folder / name), "cpu", precision, memory)
    assert isinstance(prior, DiffusersPrior)
    question = Question(prior.embed(["a front view of a corgi"]), orbit_view(orbit_cameras([0.0]), 64), "words")
    _ = prior.network, prior.vae if prior.family.latent and channels == 3 else None
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, channels, 64, 64, generator=generator)
    settings = {"distillation.kind": kind, "distillation.guidance_scale": 10.0}
    rule = make_rule(build(settings).distillation, prior)

    def step() -> None:
        noise = torch.randn(prior.noise_shape(1), generator=generator)
        rule.direction(picture, question, torch.tensor([0.5]), noise)

    load = os.getloadavg()[0]
    found = [peak_of(step) for _ in range(steps)]
    return {
        "dtype": str(prior.dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in prior.network.parameters()),
        "seconds": min(s for s, _, _ in found),
        "busy": min(b for _, b, _ in found),
        "bytes": max(b for _, _, b in found),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "steps": steps,
        "threads": threads,
        "load": load,
        "machine": machine(),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def known() -> dict[str, dict[str, Any]]:
    """The rows measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def measure_apart(case: str, given: argparse.Namespace) -> str | None:
    """Measure a case in a process of its own and keep the row; what went wrong, if anything did."""
    words = ["--here", "--case", case, "--folder", given.folder, "--steps", given.steps, "--threads", given.threads]
    words += ["--precision", given.precision]
    done = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
    rows = known() | {case: json.loads(lines[0].removeprefix("RESULT "))}
    RESULTS.parent.mkdir(exist_ok=True)
    half = RESULTS.with_suffix(".part")
    half.write_text(json.dumps({name: rows[name] for name in CASES if name in rows}, indent=1) + "\n")
    half.replace(RESULTS)
    return None


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    titles = "case", "network", "arithmetic", "seconds a step", "processor seconds", "memory above the weights", "peak"
    lines = [f"| {' | '.join((*titles, 'threads', 'load'))} |", "|---" * (len(titles) + 2) + "|"]
    for case, row in rows.items():
        memory = f"{row['bytes'] / 1e9:.2f} GB | {row['peak'] / 1e9:.2f} GB"
        lines.append(
            f"| {case} | {row['parameters'] / 1e6:.0f} M | {row['dtype']} | {row['seconds']:.2f} | {row['busy']:.2f} | {memory} | "
            f"{row['threads']} | {row['load']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dreamfusion-benchmark-priors")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--again", action="store_true", help="measure cases that the file of results already has")
    parser.add_argument("--make-only", action="store_true", help="make the pipelines and stop")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print("RESULT " + json.dumps(measure(given.case[0], given.folder, given.steps, given.threads, given.precision)))
        return
    wanted = [case for case in given.case if given.again or case not in known()]
    for name in sorted({CASES[case][0] for case in wanted}):
        make(name, given.folder / name)
    for case in [] if given.make_only else wanted:
        begin = time.monotonic()
        trouble = measure_apart(case, given)
        print(f"{case}: {trouble or 'done'} ({time.monotonic() - begin:.0f} s)", file=sys.stderr, flush=True)
    print(table(known()))


if __name__ == "__main__":
    main()
