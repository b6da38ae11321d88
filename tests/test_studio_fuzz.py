"""Nonsense for the studio: 2,000 odd requests over real sockets, and whatever its own OpenAPI page permits.

Whatever comes, a client sees neither a traceback nor a path of the machine, nothing outside of the folder changes, and the studio
goes on answering.
"""

from __future__ import annotations

import json
import random
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")

from dreamfusion.errors import UserError
from dreamfusion.studio.desk import Desk
from dreamfusion.studio.web import make_app
from tests.faults import environment

pytestmark = pytest.mark.slow
COUNT = 2000
ODD = (
    "..", "%2e%2e", "%2e%2e%2f%2e%2e%2fsecret", "..%5c..", "/", "//", "a%00b", "%ff%fe", "ä", "🪑", "x" * 3000, ".trash", ".studio",
    "a-ball-0", "a-ball-0%0d%0aX-Evil: 1", "con", "~", "$HOME", "{id}", "%", " ", "a-ball-0/../a-ball-0",
)  # fmt: skip
ENDS = (
    "",
    "/asset.glb",
    "/preview.png",
    "/run.yaml",
    "/live.jpg",
    "/scene.jpg",
    "/prior.jpg",
    "/front.jpg",
    "/stop",
    "/resume",
    "/resume/check",
    "/export",
    "/look",
    "/secret",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, "", "a ball", "../secret", "\ud800", "🪑" * 500, "x" * 5000, [], [[[]]], {}, {"a": {}}, "NaN", 2**70,
)  # fmt: skip
NAMES = ("prompt", "preset", "settings", "picture", "steps", "format", "faces", "azimuth", "elevation", "nonsense")


class Critic:
    def notes(self, prompt: str) -> list[str]:
        if not prompt.strip():
            raise UserError("the prompt is empty")
        return []

    def seen(self, picture: Path) -> str:
        return "a thing"


@pytest.fixture
def desk(tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "secret").write_text("SECRET")
    found = Desk(tmp_path / "runs", worker=(sys.executable, "-m", "tests.studio_worker", str(made_once), "0.02"))
    found.start()
    yield found
    found.close()


@pytest.fixture
def port(desk: Desk) -> Iterator[int]:
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = free.getsockname()[1]
    app = make_app(desk, critic=Critic())  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, port=found, log_level="critical"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield found
    server.should_exit = True
    thread.join(30)


def odd_body(rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 100, 5000)))
    if kind == 1:
        return b'{"prompt": ' * rng.randrange(1, 3000)
    if kind == 2:
        return b"x" * 70_000
    body = {name: rng.choice(VALUES) for name in rng.sample(NAMES, rng.randrange(5))}
    text = json.dumps(body).encode()
    return text[: rng.randrange(len(text) + 1)] if kind == 3 else text


def odd_request(rng: random.Random) -> bytes:
    method = rng.choice(("GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"))
    path = rng.choice(
        ("/", "/runs", "/pictures", "/check?prompt=", "/static/", "/events?", "/openapi.json", "/settings")
    )
    if rng.random() < 0.7:
        path = rng.choice(("/runs/", "/static/", "/check?prompt=")) + rng.choice(ODD) + rng.choice(ENDS)
    if path.startswith("/events"):
        path = "/presets"  # streams have a test of their own
    body = odd_body(rng) if method not in ("GET", "HEAD") else b""
    host = rng.choice(("127.0.0.1",) * 9 + ("evil.example", ""))
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += rng.sample(
        ("Origin: http://evil.example", "Content-Type: application/json", "Cookie: ===;;", "X: " + "y" * 4000), 1
    )
    length = len(body) if rng.random() < 0.9 else rng.choice((len(body) + 50, 10**12, 1))
    lines += [f"Content-Length: {length}"] if method not in ("GET", "HEAD") else []
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


def answer_of(port: int, request: bytes, rng: random.Random) -> bytes:
    """What the server says; now and then only half of the request is sent, or the answer is not read."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        way, said = rng.random(), b""
        try:
            connection.sendall(request[: len(request) // 2] if way < 0.05 else request)
            if way < 0.1:
                connection.shutdown(socket.SHUT_WR)
            if 0.1 < way < 0.13:
                return b""
            connection.settimeout(1 if b"Content-Length: 1000000000000" in request else 5)
            while part := connection.recv(65536):
                said += part
        except OSError:  # reset, closed or silent: the server may have answered and gone before all was sent
            pass
        return said


def test_two_thousand_odd_requests(port: int, desk: Desk, tmp_path: Path) -> None:
    rng = random.Random(5)
    before = {path.name for path in tmp_path.iterdir()}
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    for connection in slow:  # readers that never read, more than are let in
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    begin, most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Counter[int]()
    for number in range(COUNT):
        request = odd_request(rng)
        said = answer_of(port, request, rng)
        head, _, body = said.partition(b"\r\n\r\n")
        if head:
            most[int(head.split()[1])] += 1
        assert b"Traceback" not in said and str(tmp_path).encode() not in said and b"SECRET" not in said, request[:300]
        assert b"X-Evil" not in head, request[:300]
        assert not head or int(head.split()[1]) < 500, (number, request[:300], body[:300])
    assert sum(most.values()) > 0.8 * COUNT and {404, 405, 413, 421, 422} <= most.keys(), most
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin < 200_000  # kB
    assert {path.name for path in tmp_path.iterdir()} == before and (tmp_path / "secret").read_text() == "SECRET"
    for connection in slow:
        connection.close()
    for _ in range(100):
        if b" 200 " in answer_of(
            port, b"GET /runs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", random.Random(0)
        ):
            break
    else:
        pytest.fail("it does not answer any more")


def test_what_the_openapi_page_permits(desk: Desk) -> None:
    """schemathesis makes requests of the page, right and wrong ones: none ends in a server error or shows a traceback."""
    # Here, not above: pytest rewrites the whole package's assertions, which all other tests would wait for.
    schemathesis = pytest.importorskip("schemathesis", reason="this test needs pip install schemathesis")
    from hypothesis import HealthCheck, given, settings

    app = make_app(desk, critic=Critic())  # type: ignore[arg-type]
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "127.0.0.1"})
    operations = [o.ok() for o in schema.get_all_operations() if not o.ok().path.endswith("/events")]
    assert len(operations) > 15
    for operation in operations:

        @settings(
            max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(operation.as_strategy())
        def one(case: Any) -> None:
            answer = case.call(headers={"Host": "127.0.0.1"})
            assert answer.status_code < 500, (case.method, case.path, answer.text)
            assert "Traceback" not in answer.text and str(desk.root.parent) not in answer.text

        one()
