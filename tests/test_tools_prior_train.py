"""Training the prior: in two processes at once, stopped and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

from captions import VIEWS
from dataset import LOOKS
from vocabulary import MODELS

TOOLS = Path(__file__).parents[1] / "tools" / "prior"
NAMES = ("armchair", "office chair")  # the first two: one for each process


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two things of a few random views, and a caption table with one random row for each of their captions."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    index, rows = {}, 0
    for name in NAMES:
        cameras = np.stack([rng.uniform(-180, 180, 12), rng.uniform(-10, 60, 12), rng.uniform(2.3, 2.7, 12)], 1)
        pixels = rng.integers(0, 255, (12, 5, 64, 64), dtype=np.uint8)
        np.savez(folder / f"{name.replace(' ', '_')}.0.npz", pixels=pixels, cameras=cameras.astype(np.float32))
        for look in LOOKS:
            for view in VIEWS:
                index[f"{name}|{look}|{view}"] = [rows]
                rows += 1
    tokens = torch.randn(rows, 6, 384, generator=torch.Generator().manual_seed(0)).half()
    save_file({"tokens": tokens, "lengths": torch.full((rows,), 6)}, folder / "captions.safetensors")
    (folder / "captions.json").write_text(json.dumps(index))
    return folder


@pytest.mark.slow
def test_two_processes_train_one_layout_and_one_goes_on(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def train(launcher: list[str], pictures: int) -> dict[str, torch.Tensor]:
        command = [*launcher, str(TOOLS / "train.py"), "layout", "--data", str(data), "--out", str(run), "--rays", "8"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "--batch", "4", "--pictures", str(pictures)],
            check=True,
            env=environment,
            capture_output=True,
            timeout=240,
        )
        return load_file(run / "layout.safetensors")

    first = train([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"], 16)
    second = train([sys.executable], 32)
    assert int(first["seen"]) == 16 and int(second["seen"]) == 32
    assert first["adam.step.join.weight"] == 4 and second["adam.step.join.weight"] == 8
    moment = first["adam.exp_avg_sq.planes.weight"]
    seen = moment.any(1)
    assert seen[:2].all(), "each process gave the rows of its own thing"
    assert not seen[2:].any() and len(moment) == len(MODELS)
    moved = (second["model.planes.weight"] != first["model.planes.weight"]).any(1)
    assert moved[:2].any() and not moved[2:].any()
    assert all(bool(x.isfinite().all()) for x in second.values())
    subprocess.run(
        [sys.executable, str(TOOLS / "read.py"), "--data", str(data), "--run", str(run), "--steps", "3"],
        check=True,
        capture_output=True,
        timeout=240,
    )
    third = load_file(run / "layout.safetensors")
    changed = {k for k in second if not torch.equal(second[k], third[k])}
    assert set(third) == set(second) and "model.thing.weight" in changed
    readers = ("words.", "thing.", "look.", "guess.")
    assert all(k.removeprefix("model.").removeprefix("ema.").startswith(readers) for k in changed)
