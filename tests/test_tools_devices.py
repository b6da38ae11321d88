"""The trainings compute on another device what they compute on the CPU, and mix no devices: ``elsewhere`` stands in for a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.elsewhere import DEVICE, Away, Elsewhere

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "clip"))

import read
from fit import READING, fit_loss
from pictures import Batch
from table import Table, Vocabulary

from dreamfusion.clip.towers import Guide, Judge
from dreamfusion.models.text_encoder import TextEncoder
from dreamfusion.priors.appearance import FACTORS, PROPORTIONS
from dreamfusion.priors.layout import Layout, Sizes

TOOLS = Path(__file__).parents[1] / "tools"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train() -> ModuleType:
    """``tools/clip/train.py``."""
    spec = importlib.util.spec_from_file_location("clip_train", TOOLS / "clip" / "train.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_elsewhere_does_not_mix_with_the_cpu() -> None:
    with Elsewhere():
        far = torch.arange(3.0, device=DEVICE)
        assert isinstance(far, Away) and far.device == DEVICE and (far * 2 + 1).cpu().tolist() == [1, 3, 5]
        with pytest.raises(RuntimeError, match="mixes devices"):
            far + torch.ones(3)


def losses_of_rays(device: torch.device) -> list[torch.Tensor]:
    """The errors of random rays, and their gradients."""
    torch.manual_seed(0)
    layout, draw = Layout(Sizes(3, 2, (4, 3, 2), 2, 16)).to(device), torch.Generator().manual_seed(0)
    planes = layout.planes.weight.detach().clone().requires_grad_(True)
    camera = torch.rand(2, 8, 3, generator=draw) + torch.tensor([0, 0, 1.8])
    pixel, stored = torch.randint(4096, (2, 8), generator=draw), torch.rand(2, 8, 6, generator=draw)
    given = [x.to(device) for x in (camera, pixel, stored, torch.rand(2, 8, generator=draw) - 0.5)]
    errors = fit_loss(layout, planes, layout.inside(), *given)
    gradients = torch.autograd.grad(errors.sum(), [planes, layout.point.weight, layout.surface[0].weight])
    return [x.detach().cpu() for x in (errors, *gradients)]


def test_rays_teach_the_same_elsewhere() -> None:
    """There, not the kernels but their plain twins compute."""
    expected = losses_of_rays(CPU)
    with Elsewhere():
        found = losses_of_rays(DEVICE)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [Judge, Guide])
def test_pictures_teach_a_clip_the_same_elsewhere(train: ModuleType, kind: type[Judge | Guide]) -> None:
    draw = torch.Generator().manual_seed(0)
    look = torch.tensor([[1, 0, 0], [2, 1, 0], [3, 0, 1], [1, 0, 0]])
    table = Table(torch.randn(6, 384, generator=draw), torch.tensor([0, 1, 2, 0, 1, 2]), look[[0, 1, 2, 3, 0, 1]])
    vocabulary = Vocabulary({}, ["a", "b", "c"], ["x", "y"], np.array([0, 2]), [], torch.eye(3)[[0, 2]].bool())
    some = Batch(
        torch.rand(4, 3, 32, 32, generator=draw), torch.tensor([-1, 0, 2, 5]), torch.tensor([-1, 0, 1, 1]), look
    )
    extra = torch.tensor([1, 3, 4])

    def losses(device: torch.device) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = train.Trainee(kind(), 3).to(device)
        found = model.loss(some, table, vocabulary, extra)
        (gradient,) = torch.autograd.grad(torch.stack([*found.values()]).sum(), [model.net.out[1].weight])
        shares = model.check(
            model.net.eval(), Batch(some.pictures[1:], some.row[1:], some.shape[1:], look[1:]), table, vocabulary, extra
        )
        return [*(x.detach().cpu() for x in (*found.values(), gradient)), *map(torch.tensor, shares.values())]

    expected = losses(CPU)
    with Elsewhere():
        found = losses(DEVICE)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_captions_teach_the_readers_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole training of the readers."""
    draw, names = torch.Generator().manual_seed(0), Layout(Sizes(3, 2, FACTORS, len(PROPORTIONS)))
    labels = torch.stack([torch.randint(n, (80,), generator=draw) for n in (3, *FACTORS, len(PROPORTIONS))], 1)
    tokens, lengths = torch.randn(80, 6, 384, generator=draw).half(), torch.randint(2, 7, (80,), generator=draw)
    save_file({"tokens": tokens, "lengths": lengths, "labels": labels}, tmp_path / "readings.safetensors")
    (tmp_path / "instances.json").write_text('{"a": ["x"], "b": ["x"], "c": ["y"]}')

    def trained(device: torch.device) -> dict[str, torch.Tensor]:
        save_file({f"model.{k}": v.clone() for k, v in names.state_dict().items()}, tmp_path / "layout.safetensors")
        words = ["--data", tmp_path, "--run", tmp_path, "--steps", 3, "--batch", 16]
        monkeypatch.setattr(sys, "argv", ["read.py", *map(str, words)])
        monkeypatch.setattr(read, "pick_device", lambda _: device)
        read.main()
        return {k: v for k, v in load_file(tmp_path / "layout.safetensors").items() if k[6:].startswith(READING)}

    expected = trained(CPU)
    with Elsewhere():
        found = trained(DEVICE)
    assert found.keys() == expected.keys() and len(found) > 6
    for key, theirs in expected.items():
        torch.testing.assert_close(found[key], theirs, rtol=1e-3, atol=1e-4)
        assert key == "model.words.key.bias" or not torch.equal(theirs, names.state_dict()[key[6:]])


def test_captions_are_embedded_the_same_elsewhere() -> None:
    encoder = TextEncoder.load()
    expected, mask = encoder(["a red chair", "a very small blue teapot"])
    with Elsewhere():
        found, there = encoder.to(DEVICE)(["a red chair", "a very small blue teapot"])
        assert isinstance(found, Away) and isinstance(there, Away)
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)
        assert torch.equal(there.cpu(), mask)


@pytest.mark.parametrize("tool", ["read", "train"])
def test_a_device_that_is_not_there_is_said_in_one_line(
    tool: str, train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"read": ["--run", tmp_path], "train": ["judge", "--out", tmp_path]}[tool]
    monkeypatch.setattr(sys, "argv", [tool, *map(str, words), "--data", str(tmp_path), "--device", "abacus"])
    with pytest.raises(SystemExit) as end:
        {"read": read, "train": train}[tool].main()
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.startswith(f"{tool}: device 'abacus' cannot be used here")
    assert line.count("\n") == 1
