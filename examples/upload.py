"""Uploads of any size, in constant memory: each piece is hashed as it arrives. Run it:  duckfast upload:app   then:

    curl -T some-big-file http://127.0.0.1:8000/

The client is read no faster than the app asks for more. --limit-request-body ends what is too large with 413.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise ValueError(f"this app speaks http only, not {scope['type']}")
    if scope["method"] not in ("PUT", "POST"):
        await answer(send, 405, "Hello, send me something by PUT or POST\n")
        return
    digest, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return  # the client left in the middle: there is nobody to answer
        piece, more = message.get("body", b""), message.get("more_body", False)
        digest.update(piece)
        size += len(piece)
    await answer(send, 200, f"{size} bytes, sha256 {digest.hexdigest()}\n")


async def answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    if status == 405:
        headers.append((b"allow", b"PUT, POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
