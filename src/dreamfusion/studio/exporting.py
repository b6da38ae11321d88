"""Exports for download: ``dreamfusion export`` in a process of its own, into a folder that is removed afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

from ..errors import UserError
from .desk import HIDDEN, Busy

FORMATS = ("glb", "obj", "ply", "stl", "3mf", "usdz")
SECONDS = 900
_ONE = threading.Lock()


def export(root: Path, folder: Path, format: str, faces: int, texture_size: int, compress: bool) -> Path:
    """One file with the asset; several files are in a ZIP. The caller removes its folder. UserError, Busy."""
    if format not in FORMATS:
        raise UserError(f"unknown format {format[:20]!r} (choices: {', '.join(FORMATS)})")
    options = [f"--format={format}", f"--faces={faces}"]
    options += [f"--texture-size={texture_size}"] if format in ("glb", "obj", "usdz") else []
    options += ["--compress"] if compress and format in ("glb", "usdz") else []
    if not _ONE.acquire(blocking=False):
        raise Busy("another export is in progress; wait until it has ended")
    try:
        out = Path(tempfile.mkdtemp(prefix="export-", dir=root / HIDDEN))
    except OSError as error:
        _ONE.release()  # else no export is made until the server is started again
        raise UserError(f"there is no place for the export: {error.strerror or error}") from error
    try:
        command = [sys.executable, "-m", "dreamfusion", "export", str(folder.resolve()), "--out", str(out), *options]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, start_new_session=True
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("dreamfusion: error: ")]
            raise UserError(said[-1].removeprefix("dreamfusion: error: ") if said else "the export failed")
        made = sorted(path for path in out.iterdir() if path.is_file())
        if len(made) == 1:
            return made[0]
        bundle = out / "asset.zip"
        with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in made:
                archive.write(path, path.name)
        return bundle
    except subprocess.TimeoutExpired:
        shutil.rmtree(out, ignore_errors=True)
        raise UserError(f"the export took longer than {SECONDS} seconds; ask for fewer faces or texels") from None
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    finally:
        _ONE.release()
