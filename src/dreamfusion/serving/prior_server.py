"""``dreamfusion serve-prior``: a Ray Serve deployment that answers for one prior, many runs at a time."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from ..priors.prior_client import TOKEN, PriorClient, is_served
from ..priors.wire import Message, Page
from ..ray_cluster import connected, import_ray

LOOPBACK = ("127.0.0.1", "localhost", "::1")
APP = "dreamfusion-prior"
MOST_BYTES = 256_000_000
"""Largest body of a question."""


@dataclass(frozen=True)
class Serving:
    """How a prior is served.

    batch: questions that are answered together at most, after waiting ``wait_ms`` for more; rows: their pictures at most (0: any);
    queue: questions that wait at most, those beyond are told that the prior is busy; timeout: seconds for an answer; replicas:
    copies of the prior, each with so many CPU threads and GPUs; others as ``loading.load_prior`` has them.
    """

    id: str = "bundled"
    host: str = "127.0.0.1"
    port: int = 8000
    batch: int = 8
    wait_ms: float = 5.0
    rows: int = 0
    queue: int = 256
    timeout: float = 100.0
    replicas: int = 1
    threads: int = 1
    gpus: float = 0.0
    device: str = "auto"
    precision: str = "auto"
    memory: str = "auto"
    token: str = field(default="", repr=False)


class Replica:
    """One copy of the prior, in a process of its own. A thread computes; the event loop takes in the next questions meanwhile."""

    def __init__(self, serving: Serving):
        """A prior that cannot be loaded is told to whoever asks: Ray would only start the process again and again."""
        import torch

        self.serving, self.trouble = serving, ""
        self.thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(serving.threads,))
        try:
            self.desk: Any = self.thread.submit(self._load).result()
        except UserError as error:
            self.trouble = str(error)

    def _load(self) -> Any:
        from ..loading import load_prior
        from ..priors.prior import Prior
        from .prior_desk import Desk

        asked = self.serving
        if is_served(asked.id) or "*ray://" in asked.id:
            raise UserError(f"{asked.id!r} is served already; serve the prior itself")
        prior = load_prior(asked.id, asked.device, asked.precision, asked.memory, views=max(asked.rows, 1))  # type: ignore[arg-type]
        if not isinstance(prior, Prior):
            raise UserError(f"the prior {asked.id!r} scores pictures, and is small: every run can load its own")
        return Desk(prior, asked.rows)

    async def together(self, bodies: list[bytes]) -> list[tuple[int, bytes]]:
        """Answers to several messages, (status, body) each."""
        if self.trouble:
            return [(422, self.trouble.encode())] * len(bodies)
        replies = await asyncio.get_running_loop().run_in_executor(self.thread, self.desk.answer, bodies)
        return [(reply.status, reply.body) for reply in replies]

    def admits(self, header: str) -> bool:
        """Whether an Authorization header has the token, if there is one."""
        return not self.serving.token or hmac.compare_digest(header.encode(), f"Bearer {self.serving.token}".encode())


def deployment(serving: Serving) -> Any:
    """The application for ``serve.run``."""
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import Response

    class Ingress(Replica):
        """A replica with a door: POST a message, and the body of the reply is one."""

        @serve.batch(max_batch_size=serving.batch, batch_wait_timeout_s=serving.wait_ms / 1000)
        async def batched(self, bodies: list[bytes]) -> list[tuple[int, bytes]]:
            return await self.together(bodies)

        async def __call__(self, request: Request) -> Response:
            if not self.admits(request.headers.get("authorization", "")):
                return Response("the token is missing or wrong", 401)
            if int(request.headers.get("content-length") or MOST_BYTES + 1) > MOST_BYTES:
                return Response(f"a question has a Content-Length of at most {MOST_BYTES} bytes", 413)
            status, body = await self.batched(await request.body())
            return Response(body, status, media_type="application/octet-stream")

    options = serve.deployment(
        name="prior",
        num_replicas=serving.replicas,
        max_ongoing_requests=2 * serving.batch,  # one batch computes, the next one gathers
        max_queued_requests=serving.queue,
        ray_actor_options={"num_cpus": serving.threads, "num_gpus": serving.gpus},
        logging_config={"log_level": "WARNING", "enable_access_log": False},  # else a line for each question
    )
    return options(Ingress).bind(serving)


@contextmanager
def served(serving: Serving, where: str = "local") -> Iterator[Page]:
    """A prior is served while the ``with`` statement lasts; the page is what it is (``Desk.hello``).

    ``where``: the cluster, see ``ray_cluster.connected``. UserError if the prior cannot be loaded, or the port is taken.
    """
    import_ray()
    try:
        from ray import serve
    except ImportError as error:
        raise UserError(f"Ray Serve needs {error.name}; install it with: pip install 'dreamfusion[batch]'") from None
    if where == "local":
        check_port(serving.host, serving.port)
    with connected(where):
        try:
            logging.getLogger("ray.serve").setLevel(logging.WARNING)
            http = {"host": serving.host, "port": serving.port, "request_timeout_s": serving.timeout}
            serve.start(http_options=http)
            serve.run(deployment(serving), name=APP, route_prefix="/")
        except (RuntimeError, OSError, ValueError, TimeoutError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"cannot serve at {serving.host}:{serving.port}: {said[-1]}") from None
        try:
            yield greeting(serving)
        finally:
            serve.delete(APP)  # other applications of the cluster stay
            if where == "local":
                serve.shutdown()


def check_port(host: str, port: int) -> None:
    """UserError if this machine cannot listen there: Ray would say so in a log, and somebody else would answer."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror}); choose another --port, or --host"
        ) from None


def greeting(serving: Serving) -> Page:
    """What the served prior says of itself, asked as a run asks it."""
    from .. import __version__

    here = "127.0.0.1" if serving.host in ("0.0.0.0", "::") else serving.host
    client = PriorClient(f"ray://{f'[{here}]' if ':' in here else here}:{serving.port}", serving.token)
    return client.ask(Message({"do": "hello", "version": __version__, "sha256": ""}, {})).page


def token_for(host: str) -> str:
    """The token that askers need: none where only this machine can ask, else that of the environment or a new one."""
    return "" if host in LOOPBACK else os.environ.get(TOKEN) or secrets.token_urlsafe(24)


def until_signal() -> int:
    """Wait for SIGINT, SIGTERM or SIGHUP; its number."""
    from ..interrupts import stopped_by_signals

    with stopped_by_signals() as stop:
        while not stop.event.wait(0.5):
            pass
    return stop.signal or signal.SIGINT
