"""The way to a served prior: HTTP, with messages of ``wire`` as bodies.

Why plain HTTP and not a handle of Ray: a run needs no Ray then, and is no part of the cluster; it asks with the standard
library, through a proxy or a tunnel if need be. Ray's own ways carry pickle, so whoever reaches their port may run code. A
safetensors body is numbers and texts. The price is a copy of the tensors and a few headers for each question.
"""

from __future__ import annotations

import http.client
import os
import re
import threading
import time

from ..errors import Unavailable, UserError
from .wire import Message, pack, unpack

SCHEME = "ray://"
ADDRESS, TOKEN = "DREAMFUSION_PRIOR", "DREAMFUSION_PRIOR_TOKEN"
"""Variables of the environment: where 'ray://' without an address is, and the token of a prior that others can reach."""
USUAL = "127.0.0.1:8000"
TIMEOUT = 120.0
"""Seconds to wait for an answer; a server gives up earlier, and says so."""
PATIENCE = 60.0
"""Seconds of trying again while the prior is busy, or away."""
BUSY = (429, 503)


def is_served(id: str) -> bool:
    """Whether an id means a served prior."""
    return id.startswith(SCHEME)


def address_of(id: str) -> tuple[str, int]:
    """Host and port of 'ray://HOST:PORT', or of 'ray://' alone. UserError if it is neither."""
    text = id.removeprefix(SCHEME).rstrip("/") or os.environ.get(ADDRESS, "") or USUAL
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s/:@]+):(\d{1,5})", text)
    if not found or not 0 < int(found[2]) < 65536:
        raise UserError(
            f"the served prior {id!r} is not understood; write ray://HOST:PORT, or ray:// and set {ADDRESS}"
        )
    return found[1].strip("[]"), int(found[2])


class PriorClient:
    """Asks a served prior. A connection for each thread is kept open."""

    def __init__(self, id: str, token: str = ""):
        """``token``: that of the environment by default. UserError for an id that is no address."""
        self.host, self.port = address_of(id)
        self.token = token or os.environ.get(TOKEN, "")
        self.mine = threading.local()

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return f"ray://{self.host}:{self.port}"

    def ask(self, message: Message) -> Message:
        """The answer. While the prior is busy or does not answer, it is asked again for ``PATIENCE`` seconds.

        Unavailable after that; UserError with the prior's own words where it refuses.
        """
        body, until, pause = pack(message), time.monotonic() + PATIENCE, 0.05
        while True:
            try:
                status, data = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                self._close()
                why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if status == 200:
                    return unpack(data)
                said = _said(data)
                if status == 401:
                    raise UserError(f"the prior at {self.name} wants its token; set {TOKEN}")
                if status in (400, 409, 413, 422):
                    raise UserError(f"the prior at {self.name} refuses: {said}")
                why = "it is busy" if status in BUSY else f"HTTP {status}: {said}"
            if time.monotonic() + pause > until:
                raise Unavailable(
                    f"the prior at {self.name} does not answer ({why}); serve it again, and resume the run"
                )
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        connection = getattr(self.mine, "connection", None)
        if connection is None:
            connection = self.mine.connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        headers = {"Content-Type": "application/octet-stream"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _close(self) -> None:
        if connection := getattr(self.mine, "connection", None):
            connection.close()
            self.mine.connection = None


def _said(data: bytes) -> str:
    """The words of a refusal in one line, without what a terminal would obey."""
    text = "".join(c for c in data[:500].decode(errors="replace") if c.isprintable() or c == "\n")
    return " ".join(text.split()) or "no reason given"
