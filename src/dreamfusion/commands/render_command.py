"""``dreamfusion render``: pictures and films of a run's scene."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import UserError
from ..files import write_atomic
from ..paths import check_file, check_folder, user_path
from .option_values import azimuths_deg, names, names_file, number, whole

KINDS: dict[str, Any] = {
    "color": "lambertian",
    "albedo": "albedo",
    "normal": "normal",
    "depth": "depth",
    "textureless": "textureless",
    "opacity": "opacity",
}
"""What ``render --kind`` takes, and the renderer's words for it."""


def options(parser: argparse.ArgumentParser) -> None:
    """A run, what to draw of it, and from where."""
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--views", default="8", metavar="N|A,B,…", help="number of views, or azimuths in degrees [%(default)s]"
    )
    parser.add_argument("--size", default="512", metavar="N", help="pixels per side, 16 to 4096 [%(default)s]")
    kinds = "what to draw: color, albedo, normal, depth, textureless, opacity [%(default)s]"
    parser.add_argument("--kind", default="color", metavar="A,B,…", help=kinds)
    parser.add_argument(
        "--elevation", default="15", metavar="X", help="the camera's elevation in degrees, -90 to 90 [%(default)s]"
    )
    parser.add_argument("--radius", default="2.5", metavar="X", help="the camera's distance, 1 to 100 [%(default)s]")
    parser.add_argument("--turntable", action="store_true", help="a film (.mp4, .gif) instead of stills")
    parser.add_argument("--frames", default="120", metavar="N", help="the film's frames, 1 to 2000 [%(default)s]")
    out = "a folder, or one still such as x.png [stills in RUN/views, films in RUN]"
    parser.add_argument("--out", metavar="FOLDER|FILE", help=out)


def act(given: argparse.Namespace) -> int:
    """Draw a run's scene: stills, or a film."""
    from ..run import Run

    run = Run.open(given.run)
    azimuths = azimuths_deg(given.views)
    size = whole("--size", given.size, 16, 4096)
    frames = whole("--frames", given.frames, 1, 2000)
    elevation = number("--elevation", given.elevation, -90, 90)
    radius = number("--radius", given.radius, 1, 100)
    from ..export.film import write_film
    from ..export.formats import png_bytes
    from ..export.pictures import render_view
    from ..export.turntable import orbit_azimuths, to_uint8
    from ..recorded import load_scene
    from ..torch_state import threads
    from ..view.cameras import orbit_cameras
    from ..view.view import orbit_view

    kinds = names(given.kind, KINDS, "kind")
    unused = ("views", "8", "without") if given.turntable else ("frames", "120", "with")
    if getattr(given, unused[0]) != unused[1]:
        raise UserError(f"--{unused[0]} has an effect only {unused[2]} --turntable; leave one of them out or add it")
    out = user_path(given.out) if given.out else run.path if given.turntable else run.path / "views"
    one = names_file(out, ("png", "mp4", "gif"))
    if one and (given.turntable or out.suffix.lower() != ".png" or len(kinds) * len(azimuths) > 1):
        raise UserError(
            f"--out {out} is one file; name a folder, or ask for one still (--views 0, --kind color) and a .png"
        )
    check_file(out) if one else check_folder(out)
    with threads(run.config.threads):
        scene, _ = load_scene(run)

        def draw(kind: str, azimuth: float) -> Any:
            view = orbit_view(orbit_cameras([azimuth], elevation, radius), size)
            return to_uint8(render_view(scene, view, KINDS[kind]))[0]

        for kind in kinds:
            if given.turntable:
                folder = out / (kind if kind != "color" else "")
                films = write_film(folder, (draw(kind, a) for a in orbit_azimuths(frames)), frames)
                for path in films:
                    given.output.file(path)
                continue
            for azimuth in azimuths:
                path = out if one else out / f"{kind}-{azimuth:g}.png"
                write_atomic(path, png_bytes(draw(kind, azimuth)))
                given.output.file(path)
    return 0
