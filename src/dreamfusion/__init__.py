"""Text to 3D by score distillation: ``from dreamfusion import generate; generate("a red armchair").save("chair.glb")``."""

from __future__ import annotations

import os
from typing import Any

# GNU OpenMP's idle threads spin for milliseconds before they sleep, on cores that the renderer's own threads need. OpenMP
# reads this variable when torch is imported, so it must be set before. If torch is imported first, the default stays.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
__all__ = ["Asset", "Config", "Progress", "Stopped", "UserError", "generate", "load_preset", "load_prior"]

_HOME = {
    "Asset": "asset", "Config": "settings.config", "Progress": "trainer", "Stopped": "generation", "UserError": "errors",
    "generate": "generation", "load_preset": "settings.presets", "load_prior": "loading",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `dreamfusion --help` must not wait for it.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
