"""``dreamfusion prior sample``: what the 2D prior alone draws of a prompt."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UserError
from ..files import write_atomic
from ..paths import check_file, user_path
from .option_values import number, whole


def options(parser: argparse.ArgumentParser) -> None:
    """A prompt or a picture, and how to ask the prior."""
    parser.add_argument("prompt", nargs="?", default="", metavar="PROMPT", help="what to draw")
    parser.add_argument(
        "--views", default="4", metavar="N", help="number of azimuths all around, 1 to 64 [%(default)s]"
    )
    parser.add_argument("--guidance-scale", default="0", metavar="X", help="guidance scale w, 0 to 1000 [%(default)s]")
    parser.add_argument("--seed", default="0", metavar="N", help="seed of the noise, 0 or more [%(default)s]")
    parser.add_argument("--image", metavar="FILE", help="a reference picture: what it shows, from all sides")
    parser.add_argument("--words-only", action="store_true", help="give the prior the words only, and no camera")
    parser.add_argument(
        "--jointly", action="store_true", help="views of one thing, asked about together, with no camera"
    )
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to ask [%(default)s]")
    parser.add_argument("--out", metavar="FILE", help="the contact sheet, a .png file [<prompt>-prior.png]")


def act(given: argparse.Namespace) -> int:
    """Draw a prompt with the prior, from several sides, as one picture."""
    from ..prompts import check_prompt, slug

    prompt = check_prompt(given.prompt) if given.prompt or not given.image else ""
    views = whole("--views", given.views, 1, 64)
    guidance = number("--guidance-scale", given.guidance_scale, 0, 1000)
    seed = whole("--seed", given.seed, 0, 2**63 - 1)
    out = user_path(given.out or f"{slug(prompt or Path(given.image).stem)}-prior.png")
    if sum([given.jointly, given.words_only, bool(given.image)]) > 1:
        raise UserError("--jointly, --words-only and --image are different questions; leave all but one out")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the contact sheet is a picture; its name must end in .png")
    check_file(out)
    import numpy as np

    from ..export.formats import png_bytes
    from ..export.turntable import to_uint8
    from ..generation import say
    from ..loading import load_prior
    from ..priors.prior import Prior
    from ..priors.prior_settings import Asks
    from ..prompt_checks import prompt_notes, unread_notes
    from ..samples import sample_around
    from ..settings.building import build

    if given.jointly and views == 1:
        raise UserError("--jointly relates views to each other; give --views 2 or more")
    prior = load_prior(given.prior, instance=seed)
    if given.image:
        from ..reference import read_reference

        given.output.say(prior.describe(read_reference(given.image), prompt))
    else:
        say([*prompt_notes(prior, prompt), *unread_notes(prior, build({"prompt": prompt}))])
    if not isinstance(prior, Prior):
        raise UserError(f"the prior {given.prior!r} scores pictures and cannot be sampled")
    asks: Asks = "views" if given.jointly else "words" if given.words_only else "image" if given.image else "camera"
    drawn = sample_around(prior, prompt, views, guidance, seed, asks=asks, image=given.image or "")
    larger = to_uint8(drawn).repeat(3, 1).repeat(3, 2)  # 3 x 3 for a pixel: 64 is small on a screen
    write_atomic(out, png_bytes(np.concatenate(list(larger), 1)))
    given.output.file(out)
    return 0
