"""Answers that make the server allocate in every way, and the debug build's counts, for tests of failing allocations."""

import ctypes
import gc
import hashlib
import json
import os
from typing import Any

from duckfast import _debug

LARGE = b"a large block " * 40_000
HUGE = LARGE * 10  # 5.6 MB: more than the buffers of a socket take

if "FAULT_PLAN" in os.environ:
    ctypes.PyDLL(None).hook_python()


def alive() -> bytes:
    gc.collect()
    return json.dumps(_debug.alive()).encode()


def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    sum_ = hashlib.blake2s(environ["wsgi.input"].read()).hexdigest().encode()
    body = alive() if path == "/alive" else sum_
    if path == "/write":
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(body)
        return []
    if path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Padding", "x" * 300)])
    if path in ("/large", "/huge"):
        return [LARGE if path == "/large" else HUGE]
    if path == "/stream":
        return iter([body, LARGE, body])
    return [body]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        return await echo(receive, send)
    if scope["type"] != "http":
        return None
    digest = hashlib.blake2s()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        digest.update(message["body"])
        more = message["more_body"]
    path = scope["path"]
    body = alive() if path == "/alive" else digest.hexdigest().encode()
    if path == "/hints":
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    headers = [(b"content-type", b"text/plain"), (b"x-padding", b"x" * 300)]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": path == "/trailers"})
    if path in ("/large", "/huge"):
        body = LARGE if path == "/large" else HUGE
    elif path in ("/stream", "/write"):
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if path == "/stream":
            await send({"type": "http.response.body", "body": LARGE, "more_body": True})
        else:
            body = b""
    await send({"type": "http.response.body", "body": body})
    if path == "/trailers":
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
    return None


async def echo(receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "headers": [(b"x-padding", b"x" * 300)]})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        answer = {"type": "websocket.send"}
        answer |= {"text": message["text"]} if message.get("text") is not None else {"bytes": message["bytes"]}
        await send(answer)
