"""Every benchmark can be started: what it imports is there, and it says how it is used."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1] / "benchmarks"
COMMANDS = [path for path in sorted(HOME.glob("*.py")) if "argparse" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", COMMANDS, ids=[path.stem for path in COMMANDS])
def test_it_says_how_it_is_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(HOME)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert end.value.code == 0 and "usage:" in capsys.readouterr().out
