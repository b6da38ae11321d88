"""What a command prints on standard output: lines for people, or one JSON object for programs (``--json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Output:
    """Collects a command's figures and files. Without ``as_json`` lines are printed at once."""

    def __init__(self, as_json: bool = False):
        self.as_json = as_json
        self.figures: dict[str, Any] = {}
        self.files: list[str] = []

    def say(self, text: str, end: str = "\n") -> None:
        """A line for people."""
        if not self.as_json:
            print(text, end=end)

    def file(self, path: Path) -> None:
        """A file that was written."""
        self.files.append(str(path))
        self.say(f"  {path}  ({path.stat().st_size / 1e6:.2f} MB)")

    def note(self, **figures: Any) -> None:
        """Figures for programs."""
        self.figures |= figures

    def end(self) -> None:
        """Print the object, if one was asked for."""
        if self.as_json:
            files = {"files": self.files} if self.files else {}
            print(json.dumps(self.figures | files, default=str, allow_nan=False))
