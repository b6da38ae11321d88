"""Server-sent events: what a page is told whenever something at the desk changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import StreamingResponse

from .desk import Desk

MOST_STREAMS = 32
PAUSE = 0.3
"""Seconds between two looks at what has changed."""
BEAT = 15.0
"""Seconds after which a silent stream says that it is alive."""


class Streams:
    """The streams of events that are open; at most ``MOST_STREAMS``."""

    def __init__(self, desk: Desk):
        self.desk, self.open = desk, 0

    def answer(self, request: Request, look: Callable[[], Any]) -> StreamingResponse:
        """A stream of what ``look`` finds, whenever that is something else. HTTPException 503 if too many are open."""
        if self.open >= MOST_STREAMS:
            raise HTTPException(503, "too many pages watch already; close some")
        return StreamingResponse(self._events(request, look), media_type="text/event-stream")

    async def _events(self, request: Request, look: Callable[[], Any]) -> AsyncIterator[str]:
        def watched() -> Any:
            self.desk.watch()
            return look()

        self.open += 1
        try:
            seen, last, silent = -1, "", 0.0
            while not self.desk.closing and not await request.is_disconnected():
                if self.desk.version != seen:
                    seen = self.desk.version
                    text = json.dumps(await asyncio.to_thread(watched), allow_nan=False)
                    if text != last:
                        last, silent = text, 0.0
                        yield f"data: {text}\n\n"
                elif silent >= BEAT:
                    silent = 0.0
                    yield ": still here\n\n"
                silent += PAUSE
                await asyncio.sleep(PAUSE)
        finally:
            self.open -= 1
