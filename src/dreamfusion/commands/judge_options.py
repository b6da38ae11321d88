"""The options of the commands that judge."""

from __future__ import annotations

import argparse


def judge_options(parser: argparse.ArgumentParser) -> None:
    """The judge, and the prompts among which it looks for the right one."""
    parser.add_argument(
        "--clip", default="bundled", metavar="NAME", help="judge: bundled, hf:OWNER/NAME, a path [%(default)s]"
    )
    suite = "suite or file whose prompts are ranked [the bundled suite that has the runs' prompts]"
    parser.add_argument("--prompts", metavar="SUITE|FILE", help=suite)
