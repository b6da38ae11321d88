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
from safetensors.torch import load_file

from dreamfusion.priors.bundled_prior import BundledPrior

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

from dataset import Data, DataError
from looks import Look, held_out
from models import stem_of

TOOLS = Path(__file__).parents[1] / "tools" / "prior"
SHOWN = {"armchair": ["armchair"], "office chair": ["office_chair"], "chair": ["armchair", "office_chair"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two shapes of a few random views, and three names for them."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for name in ("armchair", "office_chair"):
        cameras = np.stack([rng.uniform(-180, 180, 32), rng.uniform(-10, 60, 32), rng.uniform(2.3, 2.7, 32)], 1)
        pixels = rng.integers(0, 255, (32, 6, 64, 64), dtype=np.uint8)
        np.savez(folder / f"{name}.0.npz", pixels=pixels, cameras=cameras.astype(np.float32))
    (folder / "instances.json").write_text(json.dumps(SHOWN))
    return folder


def test_views_of_the_check_are_never_trained_on_and_looks_are_held_out(data: Path) -> None:
    found = Data(data)
    assert found.shapes == ["armchair", "office_chair"] and stem_of("BlendSwap-CC-0#86") == "armchair"
    for shape in (0, 1):
        assert len(found.validation[shape]) == 2 and len(found.rows[shape]) == 30
        assert not set(found.validation[shape]) & set(found.rows[shape])
    batch = found.batch(6, np.random.default_rng(0), 2, side=16)
    assert batch.pictures.shape == (12, 3, 16, 16) and batch.shape.shape == (6,) and batch.look.shape == (6, 3)
    small = found.make(np.array([1]), [Look("red")], found.rows[1][:1], side=32)
    whole = found.make(np.array([1]), [Look()], found.rows[1][:1])
    torch.testing.assert_close(small.cover, torch.nn.functional.avg_pool2d(whole.cover, 2))
    new = found.held_out_batch(20, 0, new_looks=True)
    assert torch.equal(new.look, found.held_out_batch(20, 0, new_looks=True).look)
    assert held_out("sofa", Look("red")) and (new.look.sum(1) > 0).all()


def test_a_process_holds_its_own_shapes(data: Path) -> None:
    parts = [Data(data, rank, 2) for rank in (0, 1)]
    assert [part.mine.tolist() for part in parts] == [[0], [1]] and all(len(part.pixels) == 32 for part in parts)
    assert {int(k) for k in parts[1].batch(4, np.random.default_rng(0)).shape} == {1}


def test_a_folder_without_pictures_is_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no instances"):
        Data(tmp_path)
    (data / "office_chair.0.npz").unlink()
    with pytest.raises(DataError, match="no pictures of office_chair") as caught:
        Data(data)
    assert "\n" not in str(caught.value)


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
    assert first["adam.exp_avg_sq.planes.weight"].any(1).all(), "each process gave the rows of its own shapes"
    moved = (second["model.planes.weight"] != first["model.planes.weight"]).any(1)
    assert moved.any() and first["model.shown"].tolist() == [[0] * 12, [1] * 12, [0, 1] * 6]
    assert all(bool(x.isfinite().all()) for x in second.values())
    subprocess.run(
        [
            sys.executable,
            str(TOOLS / "read.py"),
            "--data",
            str(data),
            "--run",
            str(run),
            "--steps",
            "3",
            "--captions",
            "60",
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    third = load_file(run / "layout.safetensors")
    changed = {k for k in second if not torch.equal(second[k], third[k])}
    assert set(third) == set(second) and "model.name.weight" in changed
    readers = ("words.", "name.", "look.", "proportion.")
    assert all(k.removeprefix("model.").removeprefix("ema.").startswith(readers) for k in changed)
    denoise = [sys.executable, str(TOOLS / "train.py"), "denoiser", "--data", str(data), "--out", str(run)]
    subprocess.run([*denoise, "--batch", "2", "--pictures", "4"], check=True, capture_output=True, timeout=240)
    packed = tmp_path / "packed"
    pack = [sys.executable, str(TOOLS / "pack.py"), "--run", str(run), "--data", str(data), "--to", str(packed)]
    subprocess.run(pack, check=True, capture_output=True, timeout=240)
    prior = BundledPrior(packed / "bundled.safetensors", precision="float32")
    assert prior.denoiser is not None
    planes = third["model.planes.weight"]
    step = planes.abs().amax(1, keepdim=True) / 127
    assert ((prior.layout.planes.weight - planes).abs() <= 0.51 * step + 1e-3 * planes.abs()).all()
    assert prior.vocabulary["chair"]["shapes"] == 2 and "easy chair" in prior.names
    (run / "layout.safetensors").unlink()
    again = subprocess.run(pack, capture_output=True, text=True, timeout=240)
    assert again.returncode == 2 and "no layout.safetensors" in again.stderr and len(again.stderr.splitlines()) == 1
    assert sorted(p.name for p in packed.iterdir()) == ["bundled.json", "bundled.safetensors"]
