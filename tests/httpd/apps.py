"""Small applications for the tests of the class API."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Says what it was asked, and who it is."""
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("so asked for")
    headers = [
        ("Content-Type", "text/plain"),
        ("X-Pid", str(os.getpid())),
        ("X-Thread", threading.current_thread().name),
        ("X-Scheme", environ["wsgi.url_scheme"]),
        ("X-Seen", environ.get("HTTP_X_ADDED", "")),
        ("X-Client", environ["REMOTE_ADDR"]),
    ]
    start_response("200 OK", headers)
    parts = [environ["REQUEST_METHOD"].encode(), b" ", environ["PATH_INFO"].encode("latin-1"), b" ", body]
    return iter(parts) if environ["PATH_INFO"] == "/stream" else [b"".join(parts)]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The same on a loop."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/fail":
        raise RuntimeError("so asked for")
    fields = dict(scope["headers"])
    headers = [
        (b"x-pid", str(os.getpid()).encode()),
        (b"x-thread", threading.current_thread().name.encode()),
        (b"x-scheme", scope["scheme"].encode()),
        (b"x-seen", fields.get(b"x-added", b"")),
        (b"x-client", scope["client"][0].encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    parts = [scope["method"].encode(), b" ", scope["path"].encode(), b" ", body]
    if scope["path"] == "/stream":
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": b"".join(parts)})


class Micro:
    """A micro app with both views."""

    def view(self, request: Any, processor: Any) -> Any:
        assert processor.request is request
        return f"{request.method} {request.path} {request.text}"

    async def async_view(self, request: Any, processor: Any) -> Any:
        return {"async": True, "path": request.path, "text": request.text}
