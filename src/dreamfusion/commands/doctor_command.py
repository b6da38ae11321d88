"""``dreamfusion doctor``: what this machine has and lacks."""

from __future__ import annotations

import argparse
from dataclasses import asdict


def options(parser: argparse.ArgumentParser) -> None:
    """The prior to examine."""
    parser.add_argument("--prior", default="bundled", metavar="NAME", help="prior to examine [%(default)s]")


def act(given: argparse.Namespace) -> int:
    """Say what this machine has; 1 if something that is needed is missing."""
    from ..doctor import examine

    findings = examine(given.prior)
    given.output.note(findings=[asdict(finding) for finding in findings])
    for finding in findings:
        given.output.say(str(finding))
    return 1 if any(f.missing for f in findings) else 0
