"""Two applications to try servers, proxies and clients with: `asgi` and `wsgi`, the same answers by either interface.

    duckfast duckfast.testing:asgi
    server = duckfast_server(duckfast.testing.wsgi)        # in a test, by the pytest plugin

    /                                      Hello
    /echo                                  the body of the request, as it comes
    /digest                                its size and SHA-256, in JSON
    /request                               what the application was told, in JSON
    /stream?count=10&size=1000&delay=0     so many blocks of so many bytes, so many seconds apart
    /sleep?seconds=0.1                     an answer after a while
    /status?code=404                       an answer with this status
    /raise?after=0                         an exception of the application, after so many blocks

Knows no server: either runs on any.
"""

from __future__ import annotations

import asyncio
import hashlib
import http
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
StartResponse = Callable[..., Any]

READ_SIZE = 64 * 1024  # bytes
BLOCK = b"0123456789abcdef"
TEXT, JSON, BINARY = "text/plain; charset=utf-8", "application/json", "application/octet-stream"

DEFAULTS = {"count": "10", "size": "1000", "delay": "0", "seconds": "0.1", "code": "404", "after": "0"}


class RaisedOnPurpose(Exception):
    """What /raise raises."""


class Parameters:
    """The query of a request, as numbers. Raises ValueError for what is none."""

    def __init__(self, query: str) -> None:
        self._given = DEFAULTS | dict(parse_qsl(query))

    def whole(self, name: str) -> int:
        number = int(self._given[name])
        if number < 0:
            raise ValueError(f"{name} is negative")
        return number

    def seconds(self, name: str) -> float:
        seconds = float(self._given[name])
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"{name} is not a time")
        return seconds


def make_block(size: int) -> bytes:
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


def plain_answer(path: str, parameters: Parameters, name: str) -> tuple[int, bytes]:
    """The status and the body of paths that need neither the body of the request nor time."""
    if path == "/":
        return 200, f"Hello from {name}\n".encode()
    if path == "/status":
        code = parameters.whole("code")
        if not 200 <= code <= 999:
            raise ValueError("code is no final status")
        return code, b"" if code in (204, 304) else f"{code}\n".encode()
    return 404, b"there is nothing here\n"


def show_digest(size: int, digest: str) -> bytes:
    return json.dumps({"size": size, "sha256": digest}).encode()


# ASGI -----------------------------------------------------------------------------------------------------------------


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """The application for ASGI 3."""
    if scope["type"] == "lifespan":
        return await _asgi_lifespan(receive, send)
    if scope["type"] != "http":
        raise ValueError(f"this application speaks http, not {scope['type']}")
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    try:
        parameters = Parameters(scope["query_string"].decode("latin-1"))
        if path == "/echo":
            kind = dict(scope["headers"]).get(b"content-type", BINARY.encode()).decode("latin-1")
            await _asgi_stream(send, kind, _asgi_body(receive))
        elif path == "/digest":
            digest, size = hashlib.sha256(), 0
            async for block in _asgi_body(receive):
                digest.update(block)
                size += len(block)
            await _asgi_answer(send, 200, show_digest(size, digest.hexdigest()), JSON)
        elif path == "/request":
            await _asgi_answer(send, 200, json.dumps(_asgi_told(scope)).encode(), JSON)
        elif path == "/stream":
            count, size, delay = parameters.whole("count"), parameters.whole("size"), parameters.seconds("delay")
            await _asgi_stream(send, BINARY, _asgi_blocks(count, size, delay))
        elif path == "/sleep":
            await asyncio.sleep(parameters.seconds("seconds"))
            await _asgi_answer(send, 200, b"awake\n")
        elif path == "/raise":
            after = parameters.whole("after")
            if after == 0:
                raise RaisedOnPurpose("before an answer")
            await _asgi_stream(send, BINARY, _asgi_blocks(after, 1000, 0.0, fail=True))
        else:
            await _asgi_answer(send, *plain_answer(path, parameters, "ASGI"))
    except ValueError as error:
        await _asgi_answer(send, 400, f"{error}\n".encode())


async def _asgi_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _asgi_answer(send: Send, status: int, body: bytes, kind: str = TEXT) -> None:
    headers = [(b"content-type", kind.encode())]
    if status not in (204, 304):
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _asgi_stream(send: Send, kind: str, blocks: AsyncIterator[bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode("latin-1"))]})
    async for block in blocks:
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _asgi_body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left before the end of its request")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


async def _asgi_blocks(count: int, size: int, delay: float, fail: bool = False) -> AsyncIterator[bytes]:
    for number in range(count):
        if number and delay:
            await asyncio.sleep(delay)
        yield make_block(size)
    if fail:
        raise RaisedOnPurpose(f"after {count} blocks")


def _asgi_told(scope: Scope) -> dict[str, Any]:
    return {
        "interface": "asgi",
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "root_path": scope.get("root_path", ""),
        "scheme": scope["scheme"],
        "http_version": scope["http_version"],
        "client": scope["client"][0] if scope.get("client") else "",
        "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
    }


# WSGI -----------------------------------------------------------------------------------------------------------------


def wsgi(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """The application for WSGI (PEP 3333)."""
    path = environ.get("PATH_INFO", "")
    try:
        parameters = Parameters(environ.get("QUERY_STRING", ""))
        if path == "/echo":
            return _wsgi_stream(start_response, environ.get("CONTENT_TYPE") or BINARY, _wsgi_body(environ))
        if path == "/digest":
            digest, size = hashlib.sha256(), 0
            for block in _wsgi_body(environ):
                digest.update(block)
                size += len(block)
            return _wsgi_answer(start_response, 200, show_digest(size, digest.hexdigest()), JSON)
        if path == "/request":
            return _wsgi_answer(start_response, 200, json.dumps(_wsgi_told(environ)).encode(), JSON)
        if path == "/stream":
            count, size, delay = parameters.whole("count"), parameters.whole("size"), parameters.seconds("delay")
            return _wsgi_stream(start_response, BINARY, _wsgi_blocks(count, size, delay))
        if path == "/sleep":
            time.sleep(parameters.seconds("seconds"))
            return _wsgi_answer(start_response, 200, b"awake\n")
        if path == "/raise":
            after = parameters.whole("after")
            if after == 0:
                raise RaisedOnPurpose("before an answer")
            return _wsgi_stream(start_response, BINARY, _wsgi_blocks(after, 1000, 0.0, fail=True))
        return _wsgi_answer(start_response, *plain_answer(path, parameters, "WSGI"))
    except ValueError as error:
        return _wsgi_answer(start_response, 400, f"{error}\n".encode())


def _wsgi_answer(start_response: StartResponse, status: int, body: bytes, kind: str = TEXT) -> list[bytes]:
    headers = [("Content-Type", kind)]
    if status not in (204, 304):
        headers.append(("Content-Length", str(len(body))))
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    start_response(f"{status} {reason}", headers)
    return [body] if body else []


def _wsgi_stream(start_response: StartResponse, kind: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", kind)])
    return blocks


def _wsgi_body(environ: dict[str, Any]) -> Iterator[bytes]:
    # A server that ends the input itself says so; with others only a length tells where it ends (PEP 3333).
    left = None if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
    while left is None or left > 0:
        block = environ["wsgi.input"].read(READ_SIZE if left is None else min(left, READ_SIZE))
        if not block:
            return
        if left is not None:
            left -= len(block)
        yield block


def _wsgi_blocks(count: int, size: int, delay: float, fail: bool = False) -> Iterator[bytes]:
    for number in range(count):
        if number and delay:
            time.sleep(delay)
        yield make_block(size)
    if fail:
        raise RaisedOnPurpose(f"after {count} blocks")


def _wsgi_told(environ: dict[str, Any]) -> dict[str, Any]:
    headers = [(key[5:].replace("_", "-").lower(), value) for key, value in environ.items() if key.startswith("HTTP_")]
    headers += [(key.replace("_", "-").lower(), environ[key]) for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)]
    return {
        "interface": "wsgi",
        "method": environ["REQUEST_METHOD"],
        "path": environ.get("PATH_INFO", ""),
        "query": environ.get("QUERY_STRING", ""),
        "root_path": environ.get("SCRIPT_NAME", ""),
        "scheme": environ["wsgi.url_scheme"],
        "http_version": environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
        "client": environ.get("REMOTE_ADDR", ""),
        "headers": headers,
    }
