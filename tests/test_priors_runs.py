"""Whole runs with large priors from the command line, on tiny pipelines: the guide's commands, and latents up to the GLB."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

pytest.importorskip("diffusers")

from dreamfusion import cli
from dreamfusion.asset import Asset
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from tests.fakes import SMALL, options
from tests.test_docs import ROOT, blocks
from tests.tiny_pipelines import save

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SHORT = options(SMALL | {"steps": 2, "resolution": 16, "device": "cpu", "prior.precision": "float32"})
OF_PRESET = {"dreamfusion-if": "if", "dreamfusion-sd": "sd", "latent-nerf": "sd"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: save(name, folder) for name in ("if", "sd")}


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def documented() -> list[str]:
    lines = "\n".join(blocks(ROOT / "docs" / "priors.md", "sh")).splitlines()
    files = ("models/", "lora:")  # single files, variants and LoRAs have tests of their own (test_faults_pipelines.py)
    return [line for line in lines if line.startswith("dreamfusion ") and not any(x in line for x in files)]


@pytest.mark.slow
@pytest.mark.parametrize("line", documented())
def test_the_guides_commands_run(line: str, tiny: dict[str, Path]) -> None:
    """As they stand on the page, but a tiny pipeline in the place of each checkpoint, and short."""
    line = re.sub(r"hf:DeepFloyd/[\w.-]+", str(tiny["if"]), line)
    line = re.sub(r"hf:[\w-]+/[\w.-]+|checkpoints/my-model", str(tiny["sd"]), line)
    argv = shlex.split(line)[1:]
    assert "hf:" not in line
    if "--image" in argv:  # a red disc
        rows, columns = np.ogrid[-32:32, -32:32]
        disc = np.where((rows**2 + columns**2 < 600)[..., None], [200, 30, 30, 255], 0).astype(np.uint8)
        Image.fromarray(disc, "RGBA").save(argv[argv.index("--image") + 1])
    if argv[0] == "generate":
        presets = [name for name in OF_PRESET if name in argv]
        if presets and "--prior" not in argv:
            argv += ["--prior", str(tiny[OF_PRESET[presets[0]]])]
        argv += ["--out", "run", *SHORT]
        if "mvdream" in argv:
            argv += ["--views-per-step", "4"]  # its groups have four
    assert cli.main(argv) == 0
    if argv[0] == "generate":
        assert len(trimesh.load_scene("run/asset.glb").geometry) == 1


def test_doctor_says_what_a_folder_holds(tiny: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--prior", str(tiny["sd"])]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.split()[1:2] == ["prior"])
    parameters = sum(p.numel() for p in torch.nn.ModuleList([_unet(tiny["sd"])]).parameters())
    assert line.startswith("ok") and "family: Stable Diffusion" in line and str(tiny["sd"]) in line
    assert f"UNet2DConditionModel, {parameters / 1e6:.1f} M parameters" in line


def _unet(folder: Path) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(str(folder / "unet"))


def test_latents_become_a_textured_file(tiny: dict[str, Path], tmp_path: Path) -> None:
    argv = ["generate", "a cat", "--preset", "latent-nerf", "--prior", str(tiny["sd"]), "--out", "run", *SHORT]
    assert cli.main([*argv, "--steps=3"]) == 0
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if line]
    assert [(line["step"], line["stage"]) for line in log] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    assert [line["shading"] for line in log] == [3.0] * 3 + [0.0] * 3  # latents, then colours
    (body,) = trimesh.load_scene("run/asset.glb").geometry.values()
    image = body.visual.material.baseColorTexture
    assert image.mode == "RGB" and image.size == (64, 64)
    # The texture is the field's colours, and they come through the map: with another map it is another texture.
    scene, config = load_scene(Run.open("run"))
    assert scene.settings.channels == 4
    points = 0.1 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        colours, latents = scene.albedo(points), scene.query(points, latent=True)[1]
        expected = (latents @ scene.palette.weight.T + scene.palette.bias).clamp(0, 1)
    assert torch.isfinite(colours).all() and torch.allclose(colours, expected) and latents.shape == (50, 4)
    scene.set_palette(torch.zeros(3, 4), torch.tensor([0.2, 0.4, 0.6]))
    texture = Asset.from_scene(scene, config.export).texture
    assert texture.shape == (64, 64, 3) and (texture.reshape(-1, 3) == [51, 102, 153]).all(1).mean() > 0.3
    assert not np.array_equal(texture, np.asarray(image))
    assert cli.main(["export", "run", "--format", "glb,obj", "--out", "files"]) == 0
    assert cli.main(["render", "run", "--views", "1", "--size", "16", "--out", "views"]) == 0
