"""Where a figure comes from: the machine it was measured on, the commit, the date."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def machine() -> str:
    """Processor, cores and what torch may use of it, in one line."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {k.strip(): v.strip() for k, v in fields.items()}
        name = f"{fields.get('model name', name)} (family {fields.get('cpu family', '?')})"
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """The commit of this source, with a '+' where src/ differs from it; 'unknown' outside of a repository."""

    def git(*words: str) -> str:
        return subprocess.check_output(["git", *words], cwd=Path(__file__).parents[1], text=True).strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance() -> dict[str, str]:
    """{commit, machine, date}, for a result that is kept."""
    return {"commit": commit(), "machine": machine(), "date": datetime.now(UTC).date().isoformat()}
