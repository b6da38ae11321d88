"""``dreamfusion studio``: a web page that makes, shows and keeps assets."""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError
from ..files import locked
from ..paths import user_path
from .batch_command import cores
from .option_values import whole

MOST_AT_ONCE = 64


def options(parser: argparse.ArgumentParser) -> None:
    """A folder of runs, and where the page is."""
    parser.add_argument("--folder", default="runs", metavar="FOLDER", help="the folder of runs [%(default)s]")
    parser.add_argument("--port", default="8765", metavar="N", help="where the page is [%(default)s]")
    host = "address to listen at; any but this machine's own needs the token that is printed [%(default)s]"
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help=host)
    parser.add_argument("--at-once", default="1", metavar="N", help="runs at a time [%(default)s]")
    threads = "CPU threads of a run; 0 takes all cores, which the runs share [%(default)s]"
    parser.add_argument("--threads", default="0", metavar="N", help=threads)


def act(given: argparse.Namespace) -> int:
    """Serve the studio's page until a signal comes."""
    import secrets

    port = whole("--port", given.port, 1, 65535)
    at_once = whole("--at-once", given.at_once, 1, MOST_AT_ONCE)
    threads = whole("--threads", given.threads, 0, 1024)
    if at_once > 1 and threads == 0:
        threads = max(cores() // at_once, 1)
    root = user_path(given.folder)
    try:
        import uvicorn

        from ..studio.desk import HIDDEN, Desk
        from ..studio.guard import LOOPBACK
        from ..studio.web import make_app
    except ImportError as error:
        raise UserError(f"the studio needs {error.name}; install it with: pip install 'dreamfusion[studio]'") from None
    here = given.host in LOOPBACK
    token = "" if here else secrets.token_urlsafe(24)
    desk = Desk(root, threads, at_once=at_once)
    with locked(root / HIDDEN):
        app = make_app(desk, LOOPBACK if here else (), token)
        shown = f"[{given.host}]" if ":" in given.host else given.host
        address = f"http://{shown}:{port}/{f'?token={token}' if token else ''}"
        settings = uvicorn.Config(
            app, given.host, port, log_level="warning", timeout_graceful_shutdown=2, server_header=False
        )
        server = uvicorn.Server(settings)
        desk.start()
        try:
            given.output.say(f"studio of {root}: {address}  (Ctrl-C ends it)")
            sys.stdout.flush()
            server.run()
        except SystemExit:  # uvicorn has said why
            raise UserError(f"cannot listen at {given.host}:{port}; choose another --port, or --host") from None
        finally:
            desk.close()
    return 0
