"""Answers with what it was asked: [method, target, body] as JSON. Reads every body whole; a broken one is not its business."""

import json
from typing import Any


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    answer = json.dumps([environ["REQUEST_METHOD"], environ["RAW_URI"], body.decode("latin-1")]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    query = scope["query_string"].decode("latin-1")
    target = scope["raw_path"].decode("latin-1") + ("?" + query if query else "")
    answer = json.dumps([scope["method"], target, body.decode("latin-1")]).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def fails(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise RuntimeError("on purpose")


def leaves(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise SystemExit(7)
