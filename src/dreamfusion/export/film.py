"""A turn around the object as files: turntable.mp4 by ffmpeg, turntable.gif without it."""

from __future__ import annotations

import errno
import subprocess
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from ..files import replacing
from ..reports import report
from .texture import Picture

GIF_FRAMES = 60
GIF_SIZE = 256
CODEC = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-preset", "medium", "-movflags", "+faststart")
"""H.264 that every player shows, with its index at the front."""


class NoEncoder(Exception):
    """Films cannot be encoded here. The message says why, in a few words."""


def write_film(
    folder: Path, frames: Iterable[Picture], count: int, fps: int = 30, name: str = "turntable"
) -> list[Path]:
    """Write ``count`` frames (H, W, 3) as NAME.mp4 and NAME.gif (at most ``GIF_FRAMES`` frames, at most
    ``GIF_SIZE`` wide, one palette for all). Returns the files written.

    Without a working ffmpeg there is no NAME.mp4, and a warning says why.
    """
    film, animation = folder / f"{name}.mp4", folder / f"{name}.gif"
    stride = -(-count // GIF_FRAMES)
    small: list[Image.Image] = []
    shown = _thinned(frames, count, stride, small)
    written = [film, animation]
    try:
        with replacing(film) as path:
            encode(path, shown, fps)
    except NoEncoder as error:
        warnings.warn(f"{film.name} is left out: {error}", stacklevel=2)
        written = [animation]
        for _ in shown:  # the animation wants the rest of them
            pass
    with replacing(animation) as path:
        _write_gif(path, small, 1000 * stride / fps)
    return written


def _thinned(frames: Iterable[Picture], count: int, stride: int, small: list[Image.Image]) -> Iterator[Picture]:
    """The frames, with every stride-th kept in ``small`` at the size of the animation."""
    for i, frame in enumerate(frames):
        if i % stride == 0:
            image = Image.fromarray(frame)
            image.thumbnail((GIF_SIZE, GIF_SIZE), Image.Resampling.LANCZOS)
            small.append(image)
        report("film", i + 1, count)
        yield frame


def encode(path: Path, frames: Iterable[Picture], fps: int = 30) -> None:
    """Encode frames (H, W, 3) of one size as MP4. NoEncoder if ffmpeg is missing, does not start or fails; an OSError if
    the disk is full."""
    process: subprocess.Popen[bytes] | None = None
    try:
        for frame in frames:
            process = process or _start(path, frame.shape[1], frame.shape[0], fps)
            assert process.stdin is not None
            try:
                process.stdin.write(np.ascontiguousarray(frame).data)
            except BrokenPipeError:  # it has ended early, and says why
                break
        if process is not None:
            _finish(process, path)
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def _start(path: Path, width: int, height: int, fps: int) -> subprocess.Popen[bytes]:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        program = get_ffmpeg_exe()
    except ImportError:
        raise NoEncoder("imageio-ffmpeg is not installed (pip install imageio-ffmpeg)") from None
    except RuntimeError:
        raise NoEncoder("there is no ffmpeg (pip install --force-reinstall imageio-ffmpeg)") from None
    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-")
    even = ("-vf", f"scale={width + width % 2}:{height + height % 2}")  # yuv420p halves the colour planes
    command = [program, "-y", "-v", "error", *given, "-an", *even, *CODEC, str(path)]
    try:
        # In a process group of its own: Ctrl-C in a terminal is for us to handle.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
        )
    except OSError as error:
        raise NoEncoder(f"{program} cannot be started: {error.strerror}") from None


def _finish(process: subprocess.Popen[bytes], path: Path) -> None:
    """Wait for the end of the encoder; raise what it complains of."""
    assert process.stdin is not None and process.stderr is not None
    complaint = _last_line(process.stderr, process.stdin)
    code = process.wait()
    if "No space left" in complaint:
        raise OSError(errno.ENOSPC, complaint, str(path))
    if code or not path.exists() or not path.stat().st_size:
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise NoEncoder(f"ffmpeg {how}{f' ({complaint})' if complaint else ''}")


def _last_line(errors: IO[bytes], frames: IO[bytes]) -> str:
    try:
        frames.close()
    except BrokenPipeError:
        pass
    with errors:
        lines = errors.read().decode(errors="replace").split("\n")
    return " ".join([line.strip() for line in lines if line.strip()][-1:])[:200]


def _write_gif(path: Path, frames: list[Image.Image], milliseconds: float) -> None:
    """A GIF that loops. One adaptive palette, taken from views all around, keeps still pixels still."""
    some = [np.asarray(frame) for frame in frames[:: max(1, len(frames) // 8)]]
    palette = Image.fromarray(np.concatenate(some)).quantize(255, method=Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    duration = max(20, round(milliseconds / 10) * 10)  # GIF counts in hundredths; players distrust less than two
    indexed[0].save(path, format="GIF", save_all=True, append_images=indexed[1:], duration=duration, loop=0)
