"""Answers by path: /status/304, /read, /fails, /breaks (in the middle), /big and /wait (until the client leaves)."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

PIECE = b"x" * 65536


def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    if path == "/big":
        start_response("200 OK", [("Content-Length", str(len(PIECE) * 1000))])
        return pieces()
    if path == "/fails":
        raise RuntimeError("on purpose")
    if path == "/breaks":
        start_response("200 OK", [("Content-Length", "100")])
        return breaks()
    if path == "/read":
        environ["wsgi.input"].read()
    status = path.removeprefix("/status/") if path.startswith("/status/") else "200"
    start_response(f"{status} Some", [("X-Own", "of the app")])
    return [] if status in ("204", "304") else [b"hello"]


def pieces() -> Iterator[bytes]:
    for _ in range(1000):
        yield PIECE


def breaks() -> Iterator[bytes]:
    yield b"hello"
    time.sleep(0)
    raise RuntimeError("on purpose")


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    path = scope["path"]

    async def start(status: int, *fields: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": fields})

    async def body(content: bytes, more: bool = False) -> None:
        await send({"type": "http.response.body", "body": content, "more_body": more})

    if path == "/wait":
        print("begun", file=sys.stderr, flush=True)
        while (await receive())["type"] != "http.disconnect":
            await asyncio.sleep(0)
    elif path == "/big":
        await start(200, (b"content-length", str(len(PIECE) * 1000).encode()))
        for _ in range(1000):
            await body(PIECE, more=True)
    elif path == "/fails":
        raise RuntimeError("on purpose")
    elif path == "/breaks":
        await start(200, (b"content-length", b"100"))
        await body(b"hello", more=True)
        raise RuntimeError("on purpose")
    else:
        while path == "/read" and (await receive()).get("more_body"):
            pass
        status = int(path.removeprefix("/status/")) if path.startswith("/status/") else 200
        await start(status, (b"x-own", b"of the app"))
        await body(b"" if status in (204, 304) else b"hello")
