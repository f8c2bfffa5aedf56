"""The same small application for WSGI and for ASGI: quick, large and streamed answers, and requests that wait for the test.

    GET /          "ok"                          POST /echo   the body
    GET /gate      "open", once gate is set      GET /large   LARGE bytes, known at once
    GET /stream    b"x" again and again          GET /held    as /gate, but blocks an ASGI loop
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

LARGE = 8 << 20  # bytes: more than any socket's buffers take
PATIENCE = 20.0  # seconds; only a broken server reaches it
BLOCK = b"x" * 65536


class Gates:
    def __init__(self, kind: str) -> None:
        self.gate = threading.Event()
        self.inside: list[str] = []  # paths of the requests that wait at the gate now or have
        self.told = threading.Event()  # a stream was told http.disconnect
        self.leave = threading.Event()  # a stream ends
        self.on_request: Callable[[str], None] = lambda path: None
        self.app: Callable[..., Any] = self.asgi if kind in ("asyncio", "uvloop") else self.wsgi

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.on_request(path)
        body = b"ok"
        if path in ("/gate", "/held"):
            self.inside.append(path)
            assert self.gate.wait(PATIENCE)
            body = b"open"
        elif path == "/echo":
            body = environ["wsgi.input"].read()
        elif path == "/large":
            body = bytes(LARGE)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self._blocks() if path == "/stream" else [body]

    def _blocks(self) -> Iterator[bytes]:
        while not self.leave.is_set():
            yield BLOCK

    async def asgi(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.on_request(path)
        body = b"ok"
        if path == "/gate":
            self.inside.append(path)
            assert await asyncio.to_thread(self.gate.wait, PATIENCE)
            body = b"open"
        elif path == "/held":
            self.inside.append(path)
            assert self.gate.wait(PATIENCE)
            body = b"open"
        elif path == "/echo":
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
        elif path == "/large":
            body = bytes(LARGE)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        if path == "/stream":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            self.told.set()
        await send({"type": "http.response.body", "body": body})
