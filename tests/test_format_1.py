"""A run of format 1, made before the redesign by the code of that time: it is read, but not resumed."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamfusion import cli, generate
from dreamfusion.asset import Asset
from dreamfusion.errors import UserError
from dreamfusion.evaluation import evaluate
from dreamfusion.export.texture import sample_texture
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.scene.grid import GridField
from dreamfusion.settings.presets import resolve
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import GrayBallPrior
from tests.test_evaluation import Colours

PACKED = Path(__file__).parent / "data" / "format-1.tar.xz"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(PACKED) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and newer
        archive.extractall(tmp_path, **safely)  # type: ignore[arg-type]
    return tmp_path / "format-1"


def test_its_settings_have_todays_names(old: Path) -> None:
    config = Run.open(old).config
    assert (config.prompt, config.preset, config.steps, config.resolution) == ("a red armchair", "fast", 12, 16)
    assert (config.scene.kind, config.scene.levels, config.scene.lr, config.scene.lr_head) == (
        "grid",
        (5, 8),
        0.015,
        0.001,
    )
    assert config.scene.hardening == [(0, 1), (0.7, 4)] and config.prior.asks == "camera"
    assert config.distillation.t_min == [(0, 0.5), (0.5, 0.3), (1, 0.1)] and not config.stages
    assert resolve(str(old / "run.yaml")) == config, "it is still a page to start a new run from"


def test_its_scene_is_the_one_that_was_made(old: Path) -> None:
    """The log's last line says what the last step's view was covered by; the surface is that of the old export."""
    run = Run.open(old)
    scene, config = load_scene(run)
    assert isinstance(scene, GridField) and scene.table.shape == (5**3 + 8**3, 2) and scene.occupancy.refreshes > 0
    with torch.no_grad():
        opacity = scene.render(orbit_view(orbit_cameras([0, 90, 180, 270]), 16)).opacity.mean().item()
    assert opacity == pytest.approx(run.read_log()[-1]["opacity"], rel=0.15)
    made = Asset.from_scene(scene, config.export, config.prompt).geometry_report()
    kept = Asset.load(old / "asset.glb").geometry_report()
    assert all(made[name] == kept[name] for name in ("watertight", "components", "euler"))


def test_it_is_exported_as_it_was(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A level of its own is not fitted to silhouettes, which its version did not do either.
    assert cli.main(["export", str(old), "--level", "1.25", "--format", "glb,obj", "--out", str(tmp_path / "e")]) == 0
    assert "asset.glb" in capsys.readouterr().out and (tmp_path / "e/asset.obj").is_file()
    before, after = Asset.load(old / "asset.glb"), Asset.load(tmp_path / "e/asset.glb")
    assert after.prompt == before.prompt and after.metadata == before.metadata
    one, other = before.geometry_report(), after.geometry_report()
    assert other["triangles"] == pytest.approx(one["triangles"], rel=0.05)
    assert [other[k] for k in ("volume", "area")] == pytest.approx([one[k] for k in ("volume", "area")], rel=0.01)
    assert np.allclose(other["bounds"], one["bounds"], atol=0.01)
    colours = [sample_texture(a.texture, a.mesh.uv).mean(0) for a in (before, after)]
    assert np.allclose(*colours, atol=0.01)


def test_it_is_drawn(old: Path, tmp_path: Path) -> None:
    assert cli.main(["render", str(old), "--views", "0,90", "--size", "16", "--out", str(tmp_path / "r")]) == 0
    picture = np.asarray(Image.open(tmp_path / "r/color-0.png"))
    assert picture.shape == (16, 16, 3) and np.ptp(picture) > 30 and (tmp_path / "r/color-90.png").is_file()


@pytest.mark.usefixtures("few_shapes")
def test_it_is_evaluated(old: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.txt"
    suite.write_text("a red armchair\na green ball\n")
    (asset,) = evaluate([old], Colours(), suite, views=2)["assets"]
    assert (asset["prompt"], asset["steps"], asset["finished"], asset["prior"]) == (
        "a red armchair",
        12,
        True,
        "bundled",
    )
    assert not asset["geometry"]["empty"] and 0 < asset["haze"] < 1


def test_it_is_not_resumed(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in old.rglob("*") if p.is_file()}
    assert cli.main(["generate", "--resume", str(old)]) == 2
    said = capsys.readouterr()
    line = f"{old} is a run of format 1: export, render and evaluate read it, but it cannot be resumed; start it again"
    assert said.out == "" and len(said.err.splitlines()) == 1 and said.err.startswith(f"dreamfusion: error: {line}")
    with pytest.raises(UserError, match=r"is a run of format 1: .* cannot be resumed"):
        generate(resume=old, prior=prior_of(old))
    assert {p: p.read_bytes() for p in old.rglob("*") if p.is_file()} == before


def prior_of(run: Path) -> GrayBallPrior:
    prior = GrayBallPrior()
    prior.hash = Run.open(run).recorded["prior"]["sha256"]
    return prior


def test_a_damaged_one_is_refused_like_any_other(old: Path) -> None:
    shutil.rmtree(old / "checkpoint")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_scene(Run.open(old))
