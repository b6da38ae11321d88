"""A prior behind HTTP without Ray: what ``serving.prior_server`` does around a ``Desk``, in a thread of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from dreamfusion.priors.wire import Message, unpack
from dreamfusion.serving.prior_desk import Desk, Reply

Before = Callable[[Message], Reply | None]
"""Called with each message; a reply instead of the desk's, or None."""


@contextmanager
def serving(desk: Desk, port: int = 0, before: Before = lambda _: None) -> Iterator[str]:
    """The id of the prior, 'ray://127.0.0.1:PORT', while it is served."""
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                reply = before(unpack(body)) or desk.answer([body])[0]
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", port), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"ray://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
