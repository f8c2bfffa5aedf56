"""Server-sent events from an ASGI app. Run it:  duckfast streaming:app   then:  curl -N http://127.0.0.1:8000/

A tick a second for as long as the client stays. `send` waits while the client reads slowly, so nothing piles up in
memory. When the client leaves, `send` raises an OSError; when the server is told to stop, `receive` tells the app by
http.disconnect, and the stream ends by itself instead of holding the server up.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

EVENTS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise ValueError(f"this app speaks http only, not {scope['type']}")
    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
    told = asyncio.create_task(wait_for_disconnect(receive))
    try:
        while not told.done():
            event = f"data: {time.strftime('%H:%M:%S')}\n\n".encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.wait([told], timeout=1)
        await send({"type": "http.response.body", "body": b""})
    except OSError:
        pass  # the client left in the middle of a send: nobody is there to be told
    finally:
        told.cancel()


async def wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
