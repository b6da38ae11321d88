"""Options and arguments that would change nothing, or something else, are said in one line, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dreamfusion import cli, generate
from dreamfusion.asset import Asset
from dreamfusion.errors import UserError
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.surface import volume_surface
from dreamfusion.settings.presets import resolve
from tests.fakes import SMALL, GrayBallPrior


def ball(peak: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: peak * torch.sigmoid((0.6 - x.norm(dim=-1)) * 40)


def notes_of(peak: float = 40.0, **settings: Any) -> Any:
    export = ExportSettings(**{"resolution": 32, **settings})
    return volume_surface(ball(peak), lambda x: torch.full_like(x, 0.5), export)


def test_a_level_that_is_not_reached_is_said_with_the_one_that_was_taken() -> None:
    assert notes_of().notes.keys() == {"faces"}  # 20,000 is the default; nobody asked for so many
    notes = notes_of(level=1e9).notes
    assert "export.level = 1e+09 is above what the scene's density reaches" in notes["level"]
    taken = float(notes["level"].rpartition(" ")[2])
    assert 40 / 4 < taken <= 40 / 2


def test_faces_beyond_the_surface_are_said_with_what_there_is() -> None:
    surface = notes_of(faces=200_000)
    assert f"export.faces = 200000, but the surface has {len(surface.mesh.faces)} triangles" in surface.notes["faces"]
    assert "export.resolution = 32" in surface.notes["faces"]
    assert notes_of(faces=500).notes == {}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose scene is a ball."""
    scene = SimpleNamespace(surface=lambda s: volume_surface(ball(40.0), lambda x: torch.full_like(x, 0.5), s))
    monkeypatch.setattr("dreamfusion.recorded.load_scene", lambda run: (scene, run.config))
    config = resolve("fast", {**SMALL, "export.resolution": 24}, "a ball")
    monkeypatch.setattr(
        "dreamfusion.run.Run.open", classmethod(lambda cls, path: SimpleNamespace(path=tmp_path, config=config))
    )
    return tmp_path


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        (["--level", "1e9"], 2, "--level 1e+09 is above what the scene's density reaches"),
        (["--faces", "200000"], 0, "warning: export.faces = 200000, but the surface has"),
        (["--faces", "20000"], 0, "warning: export.faces = 20000, but the surface has"),
        (["--faces", "200"], 0, ""),
        ([], 0, ""),
        (["--format", "stl", "--texture-size", "128"], 2, "--texture-size has no effect on stl"),
        (["--format", "stl,glb", "--texture-size", "128"], 0, ""),
        (["--format", "stl", "--height", "2"], 2, "--height has no effect on stl and 3mf"),
        (["--format", "glb", "--height-mm", "80"], 2, "--height-mm has no effect except on stl and 3mf"),
        (["--format", "glb", "--flat-base"], 2, "--flat-base has no effect except on stl and 3mf"),
        (["--format", "obj", "--compress"], 2, "--compress has no effect except on glb and usdz"),
        (["--height", "0"], 2, "--height"),
        (["--format", "stl", "--lods", "2"], 2, "--lods has no effect on stl and 3mf"),
        (["--faces", "1000", "--lods", "3"], 2, "--lods 3 is too many: 1000 triangles are enough for 1"),
        (["--lods", "9"], 2, "--lods"),
        (["--faces", "500", "--lods", "1"], 0, ""),
        (["--format", "glb,3mf", "--height", "2", "--height-mm", "80", "--flat-base", "--collider"], 0, ""),
    ],
)
def test_export_says_it_or_refuses(
    more: list[str], code: int, line: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(made), *more]) == code
    said = [x for x in capsys.readouterr().err.splitlines() if not x.endswith("%")]  # a slow machine says how far it is
    assert len(said) == bool(line) and (not line or line in said[0])
    assert (made / "asset.glb").exists() is (code == 0)


def test_a_missing_package_is_said_before_anything_is_made(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dreamfusion.export import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    monkeypatch.setattr("dreamfusion.recorded.load_scene", lambda run: pytest.fail("a scene was loaded"))
    for kind, package in (("glb", "DracoPy"), ("usdz", "usd-core")):
        assert cli.main(["export", str(made), "--format", kind, "--compress"]) == 2
        assert f"--compress needs {package} for {kind}" in capsys.readouterr().err


def test_generate_says_it_at_its_end_and_keeps_the_asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamfusion.generation.write_preview", lambda *_, **__: None)
    monkeypatch.setattr("dreamfusion.loop.write_preview", lambda *_, **__: None)
    small = {**SMALL, "steps": 1, "export.level": 1e9, "export.faces": 100_000}
    with pytest.warns(UserWarning) as caught:
        asset = generate("x", "fast", out=tmp_path / "run", prior=GrayBallPrior(), **small)
    said = [str(w.message) for w in caught]
    assert sum("export.level = 1e+09 is above" in line for line in said) == 1
    assert sum("export.faces = 100000, but the surface has" in line for line in said) == 1
    assert (tmp_path / "run" / "asset.glb").exists() and set(asset.notes) == {"level", "faces"}
    assert Asset.load(tmp_path / "run" / "asset.glb").notes == {}


# Options of other commands, and arguments in Python


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["render", "RUN", "--frames", "30"], "--frames has an effect only with --turntable"),
        (["render", "RUN", "--turntable", "--views", "4"], "--views has an effect only without --turntable"),
        (["presets", "--full"], "--full shows every setting of one preset"),
        (["prior", "sample", "a cup", "--jointly", "--views", "1"], "--jointly relates views to each other"),
    ],
)
def test_options_without_effect_are_refused(
    argv: list[str], line: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dreamfusion.loading.load_prior", lambda *_, **__: GrayBallPrior())
    monkeypatch.chdir(made)
    assert cli.main([str(made) if word == "RUN" else word for word in argv]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and line in said[0] and list(made.iterdir()) == []


def test_judging_options_for_files_that_are_judged_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        file.write_text("{}")
    assert cli.main(["compare", *map(str, files), "--clip", "hf:a/b"]) == 2
    assert "--clip and --prompts judge folders of runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        {"config": resolve("fast", {}, "a cup"), "steps": 3},
        {"config": resolve("fast", {}, "a cup"), "prompt": "a chair"},
        {"config": resolve("fast", {}, "a cup"), "preset": "dreamfusion"},
        {"resume": "somewhere", "prompt": "a chair"},
        {"resume": "somewhere", "preset": "fast"},
        {"resume": "somewhere", "out": "elsewhere"},
        {"resume": "somewhere", "config": resolve("fast", {}, "a cup")},
    ],
    ids=lambda a: " ".join(a),
)
def test_arguments_that_would_be_ignored_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config holds all settings|a resumed run keeps its own"):
        generate(prior=GrayBallPrior(), **arguments)
