"""Reference pictures that a page sends. They are decoded at once and written anew, so no byte of a visitor's file is kept."""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..files import make_folder, write_atomic
from ..generation import REFERENCE
from ..reference import FORMATS, LARGEST, read_reference
from .listing import folder_of

FOLDER = "pictures"
MOST_BYTES = 8_000_000
LARGEST_FILE = 64_000_000
"""Most bytes of the picture of a run, which may have begun on the command line: there, the pixels of a picture are limited, and
not its file. It is read into memory."""
MOST_KEPT = 100
SIDE = 512
ID = re.compile("[0-9a-f]{16}")


def keep_picture(hidden: Path, data: bytes) -> str:
    """Keep a picture of at most ``SIDE`` pixels a side as PNG in ``hidden``/pictures; its id. UserError if it is none, or shows nothing."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            if opened.width * opened.height > LARGEST:
                raise UserError(f"the picture has more than {LARGEST // 10**6} million pixels")
            picture = opened.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError("this is no picture, or it is damaged; PNG, JPEG and WebP are read") from None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    id = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    folder = hidden / FOLDER
    make_folder(folder)
    path = folder / f"{id}.png"
    write_atomic(path, buffer.getvalue())
    try:
        read_reference(path)
    except UserError as error:
        path.unlink(missing_ok=True)
        raise UserError(str(error).replace(str(path), "the picture")) from None
    for old in sorted(folder.glob("*.png"), key=lambda p: p.stat().st_mtime)[:-MOST_KEPT]:
        with suppress(OSError):
            old.unlink()
    return id


def picture_at(hidden: Path, id: str) -> Path:
    """The file of a kept picture. UserError if there is none."""
    path = hidden / FOLDER / f"{id}.png"
    if not ID.fullmatch(id) or not path.is_file():
        raise UserError("the picture is not here any more; choose it again")
    return path


def reference_at(root: Path, hidden: Path, id: str) -> Path:
    """The file of a kept picture, or of the one that the run ``id`` in ``root`` was made with, which is kept as well: that run may be
    deleted before another one begins. UserError if there is none."""
    folder = folder_of(root, id)
    path = folder / REFERENCE if folder is not None else None
    if path is None or path.is_symlink() or not path.is_file():
        return picture_at(hidden, id)
    if path.stat().st_size > LARGEST_FILE:
        raise UserError("the picture of that run is too large")
    return picture_at(hidden, keep_picture(hidden, path.read_bytes()))
