"""What stands between the network and the studio: hosts, a token, sizes, headers. Plain ASGI."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import uploads

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 64_000
"""Largest body of a request."""
LARGER = {"/pictures": uploads.MOST_BYTES}
"""Paths with another limit."""
TOO_LARGE = "the request is larger than {} bytes"
LENGTH = re.compile("[0-9]{1,18}")
"""A Content-Length. ``int`` fails for other digits, as ², and for thousands of them."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "dreamfusion-token"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Guard:
    """Lets a request through to ``app`` if its host, origin, token and size are as they should be; adds ``HEADERS`` to all answers.

    The host is checked so that no other site can reach a server on this machine by a name of its own (DNS rebinding); the
    origin, so that no other site's page can send requests. With ``token`` every request needs it: as a bearer token, as the
    cookie that ``/?token=…`` sets, or in that address.
    """

    def __init__(self, app: App, hosts: tuple[str, ...] = LOOPBACK, token: str = ""):
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = _answering(send)
        if refused := self._refused(headers, scope):
            await _plain(answer, *refused)
            return
        if self.token and scope["path"] == "/" and _tokens(scope):
            # Its own token, and not the one in the address: that may be another one where a cookie has let the request in.
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            await _plain(answer, 303, "", {"location": "/", "set-cookie": cookie})
            return
        most = LARGER.get(scope["path"], MOST_BYTES)
        replay = await _bounded(receive, most) if scope["method"] not in ("GET", "HEAD") else receive
        if replay is None:
            await _plain(answer, 413, TOO_LARGE.format(most))
            return
        await self.app(scope, replay, answer)

    def _refused(self, headers: dict[str, str], scope: Scope) -> tuple[int, str] | None:
        if self.hosts and _host(headers.get("host", "")) not in self.hosts:
            return 421, "this server has another name"
        if self.token and not self._has_token(headers, scope):
            return 401, "a token is needed: open the address that the server printed"
        origin = headers.get("origin")
        if origin is not None and _place(origin) != headers.get("host"):
            return 403, "requests of other sites are refused"
        length = headers.get("content-length", "0")
        most = LARGER.get(scope["path"], MOST_BYTES)
        if not LENGTH.fullmatch(length) or int(length) > most:
            return 413, TOO_LARGE.format(most)
        return None

    def _has_token(self, headers: dict[str, str], scope: Scope) -> bool:
        given = [headers.get("authorization", "").removeprefix("Bearer ")]
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
            given += [cookies[COOKIE].value] if COOKIE in cookies else []
        except CookieError:
            pass
        if scope["path"] == "/":
            given += _tokens(scope)
        return any(secrets.compare_digest(found.encode(), self.token.encode()) for found in given)


def _tokens(scope: Scope) -> list[str]:
    """Those in the address."""
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [])


def _host(text: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str:
    """Host and port of an Origin header; '' for what is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


async def _bounded(receive: Receive, most: int) -> Receive | None:
    """What gives the same messages once the whole body is here; None if it is too large."""
    messages: list[MutableMapping[str, Any]] = []
    size, more = 0, True
    while more:
        messages.append(message := await receive())
        size += len(message.get("body", b""))
        more = bool(message.get("more_body"))
        if size > most:
            return None

    async def replay() -> MutableMapping[str, Any]:
        return messages.pop(0) if messages else await receive()

    return replay


def _answering(send: Send) -> Send:
    async def with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return with_headers


async def _plain(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    found = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(text.encode()))} | (headers or {})
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in found.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode()})
