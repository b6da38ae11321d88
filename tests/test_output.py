"""``--json``: one object on standard output, the same figures as the lines for people; and settings of one stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamfusion import cli
from dreamfusion.errors import UserError
from dreamfusion.output import Output
from dreamfusion.settings.options import stage_settings
from dreamfusion.settings.presets import preset_names


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert cli.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(shown(capsys, "presets")["presets"]) == preset_names()
    fast = shown(capsys, "presets", "fast")["settings"]
    assert fast["steps"] == 200 and fast["scene.levels"] == [16, 40, 80] and fast["view.fov_deg"] == 47


def test_prior_info_says_what_the_lines_say(capsys: pytest.CaptureFixture[str]) -> None:
    info = shown(capsys, "prior", "info")
    assert cli.main(["prior", "info"]) == 0
    lines = capsys.readouterr().out
    assert info["sha256"] in lines and str(info["parameters"]) in lines and info["names"] > 200


def test_files_and_figures_are_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a b.glb"
    path.write_bytes(b"12345")
    for as_json in (True, False):
        output = Output(as_json)
        output.say("a line")
        output.note(seconds=1.5, folder=tmp_path)
        output.file(path)
        output.end()
        said = capsys.readouterr().out
        if as_json:
            assert json.loads(said) == {"seconds": 1.5, "folder": str(tmp_path), "files": [str(path)]}
        else:
            assert said == f"a line\n  {path}  (0.00 MB)\n"


def test_a_mistake_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets", "fest", "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "'fast'" in said.err


def test_settings_of_one_stage() -> None:
    found, rest = stage_settings(["--stages.2.steps", "10", "--x", "--stages.1.view.fov-deg=50"])
    assert found == {"stages.2.steps": "10", "stages.1.view.fov_deg": "50"} and rest == ["--x"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--stages.2.stepz=3"], "'steps'"),
        (["--stages.1.seed=3"], "holds for the whole run"),
        (["--stages.1.steps"], "needs a value"),
    ],
)
def test_mistakes_in_settings_of_one_stage(argv: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        stage_settings(argv)
