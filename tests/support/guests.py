"""Applications for servers inside the test's own process, and a client for its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

from support.client import Answer, fetch
from support.wire import DEADLINE


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"wsgi {environ['PATH_INFO']}".encode()]


class Guest:
    """An ASGI application that notes its lifespan. `fail` names the phase that fails."""

    def __init__(self, name: str = "asgi", fail: str = "") -> None:
        self.name = name
        self.fail = fail
        self.notes: list[str] = []
        self.in_app = threading.Event()
        self.gate: asyncio.Event | None = None  # of requests for /wait; made on the loop

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                self.notes.append(phase)
                await send({"type": f"lifespan.{phase}.{'failed' if phase == self.fail else 'complete'}", "message": "no luck"})
            return
        if scope["path"] == "/wait":
            self.gate = asyncio.Event()
            self.in_app.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.notes.append("cancelled")
                raise
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": f"{self.name} {scope['path']}".encode()})

    def open_gate(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self.gate is not None
        loop.call_soon_threadsafe(self.gate.set)


async def ask(url: str, path: str = "/") -> Answer:
    """fetch() on a thread, while this loop goes on."""
    return await asyncio.to_thread(fetch, url, path)


async def soon(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, DEADLINE)
