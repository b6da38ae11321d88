"""``dreamfusion serve-prior``: one prior for many runs."""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError
from .option_values import number, whole


def options(parser: argparse.ArgumentParser) -> None:
    """A prior, where it listens, and how it answers."""
    parser.add_argument("prior", nargs="?", default="bundled", metavar="PRIOR", help="prior to serve [%(default)s]")
    host = "address to listen at; any but this machine's own needs the token that is printed [%(default)s]"
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help=host)
    parser.add_argument("--port", default="8000", metavar="N", help="port to listen at [%(default)s]")
    ray = "the Ray cluster to serve on: 'auto', HOST:PORT of its head, or 'local', one just for this [%(default)s]"
    parser.add_argument("--ray", default="local", metavar="WHERE", help=ray)
    parser.add_argument("--batch", default="8", metavar="N", help="questions answered together at most [%(default)s]")
    parser.add_argument("--wait-ms", default="5", metavar="X", help="time to wait for more of them [%(default)s]")
    rows = "pictures in the questions answered together at most; 0 for any number [%(default)s]"
    parser.add_argument("--rows", default="0", metavar="N", help=rows)
    queue = "questions that wait at most; to those beyond the prior is busy, and they try again [%(default)s]"
    parser.add_argument("--queue", default="256", metavar="N", help=queue)
    parser.add_argument("--timeout", default="100", metavar="X", help="seconds for an answer, 1 to 110 [%(default)s]")
    parser.add_argument("--replicas", default="1", metavar="N", help="copies of the prior [%(default)s]")
    parser.add_argument("--threads", default="1", metavar="N", help="CPU threads of a copy [%(default)s]")
    parser.add_argument("--gpus", default="0", metavar="X", help="GPUs of a copy, such as 1 or 0.5 [%(default)s]")
    parser.add_argument("--device", default="auto", metavar="NAME", help="device of the prior [%(default)s]")
    parser.add_argument("--precision", default="auto", metavar="KIND", help="see prior.precision [%(default)s]")
    parser.add_argument("--memory", default="auto", metavar="KIND", help="see prior.memory [%(default)s]")


def act(given: argparse.Namespace) -> int:
    """Serve a prior to many runs until a signal comes."""
    from ..priors.prior_client import TOKEN
    from ..ray_cluster import check_address
    from ..serving.prior_server import LOOPBACK, Serving, served, token_for, until_signal

    check_address(given.ray)
    if given.memory not in ("auto", "fast", "low", "lowest"):
        raise UserError(f"--memory {given.memory} is not allowed; choose auto, fast, low or lowest")
    if given.precision not in ("auto", "float32", "bfloat16", "float16"):
        raise UserError(f"--precision {given.precision} is not allowed; choose auto, float32, bfloat16 or float16")
    serving = Serving(
        given.prior, given.host, whole("--port", given.port, 1, 65535),
        whole("--batch", given.batch, 1, 1024), number("--wait-ms", given.wait_ms, 0, 10_000),
        whole("--rows", given.rows, 0, 65536), whole("--queue", given.queue, 1, 1_000_000),
        number("--timeout", given.timeout, 1, 110), whole("--replicas", given.replicas, 1, 1024),
        whole("--threads", given.threads, 1, 1024), number("--gpus", given.gpus, 0, 16),
        given.device, given.precision, given.memory, token_for(given.host),
    )  # fmt: skip
    with served(serving, given.ray) as hello:
        shown = f"[{serving.host}]" if ":" in serving.host else serving.host
        address = f"ray://{shown}:{serving.port}"
        given.output.say(f"{hello['id']} (SHA-256 {hello['sha256'][:12]}…) for --prior.id {address}  (Ctrl-C ends it)")
        if serving.host not in LOOPBACK:
            given.output.say(f"askers need {TOKEN}={serving.token}")
        given.output.note(address=address, **hello)
        sys.stdout.flush()
        stopped = until_signal()
    print(f"dreamfusion: stopped (signal {stopped})", file=sys.stderr)
    return 128 + stopped
