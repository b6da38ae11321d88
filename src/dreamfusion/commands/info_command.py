"""``dreamfusion prior info``: what a prior is and what it knows."""

from __future__ import annotations

import argparse

from ..errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """A prior, and words to look for among its names."""
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to describe [%(default)s]")
    parser.add_argument(
        "--names", nargs="*", metavar="WORD", help="the names nearest in meaning to these words; without words, all"
    )


def act(given: argparse.Namespace) -> int:
    """Say what a prior is, or which names it knows."""
    from ..loading import load_prior
    from ..prior_report import describe_prior

    own = given.prior == "bundled" or given.prior.endswith(".safetensors")
    if given.names is not None:
        return say_names(given, own)
    said = load_prior(given.prior).info() if own else describe_prior(given.prior)
    given.output.note(**said)
    for key, value in said.items():
        if isinstance(value, list | tuple):
            value = f"{len(value)}: {', '.join(map(str, value))}"
        given.output.say(f"{key}: {value}")
    return 0


def say_names(given: argparse.Namespace, own: bool) -> int:
    """The names whose meaning is nearest to the words of ``--names``, or all of them where it has no words."""
    from ..loading import load_prior
    from ..priors.bundled_prior import BundledPrior

    prior = load_prior(given.prior) if own else None
    if not isinstance(prior, BundledPrior):
        raise UserError(f"the prior {given.prior} has no list of names: its text encoder reads any words")
    words = " ".join(given.names).strip()
    found = prior.search(words) if words else [(name, 1.0) for name in prior.vocabulary]
    given.output.note(names=[{"name": name, "similarity": round(value, 3)} for name, value in found])
    for name, value in found:
        known = prior.entry(name)
        shapes = f"{known['shapes']} shape{'s' if known['shapes'] > 1 else ''}"
        given.output.say(f"{name:28} {known['category']}, {shapes}" + (f", similarity {value:.2f}" if words else ""))
    return 0
