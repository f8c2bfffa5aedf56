"""The smallest ASGI app, with a lifespan. Run it:  duckfast asgi_hello:app"""

from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await hello(scope, send)


async def lifespan(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """What is put into `state` here, every request finds in its own scope."""
    await receive()  # lifespan.startup
    scope["state"]["greeting"] = "Hello"
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})


async def hello(scope: dict[str, Any], send: Send) -> None:
    greeting = scope.get("state", {}).get("greeting", "Hello")
    body = f"{greeting}, you asked for {scope['path']}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
