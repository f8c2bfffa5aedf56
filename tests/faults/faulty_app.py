"""Answers of every way out for the tests of failing system calls: small, large, from a file; and a digest of what came in."""

import hashlib
from pathlib import Path
from typing import Any

LARGE = bytes(range(256)) * 12_000  # 3 MB: more than the buffers of a socket take
FILE = Path(__file__).with_name("shim.c")


def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    if path == "/file":
        start_response("200 OK", [("Content-Length", str(FILE.stat().st_size))])
        return environ["wsgi.file_wrapper"](FILE.open("rb"))
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [LARGE if path == "/large" else hashlib.sha256(body).hexdigest().encode()]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message["body"])
        more = message["more_body"]
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/file":
        start["headers"] = [(b"content-length", str(FILE.stat().st_size).encode())]
        await send(start)
        await send({"type": "http.response.pathsend", "path": str(FILE)})
        return
    await send(start)
    body = LARGE if scope["path"] == "/large" else digest.hexdigest().encode()
    await send({"type": "http.response.body", "body": body})
