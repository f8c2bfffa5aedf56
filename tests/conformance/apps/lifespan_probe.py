"""ASGI applications with a lifespan of their own, chosen by LIFESPAN_CASE; what happens goes into LIFESPAN_LOG."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CASE = os.environ.get("LIFESPAN_CASE", "complete")


def log(line: object) -> None:
    with open(os.environ["LIFESPAN_LOG"], "a") as file:
        file.write(f"{line}\n")


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        log(f"scope {sorted(scope)} asgi {scope['asgi']['version']} state {scope.get('state')}")
        await cases[CASE](scope, receive, send)
        return
    log(f"request {scope['path']}")
    if scope["path"] == "/slow":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        log("told")
        await send({"type": "http.response.body", "body": b"done"})
        log("response done")
        return
    body = repr(scope.get("state", "no state")).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def complete(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    log((await receive())["type"])
    scope["state"]["made by"] = "lifespan"
    await send({"type": "lifespan.startup.complete"})
    log((await receive())["type"])
    await send({"type": "lifespan.shutdown.complete"})


async def startup_failed(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})
    log("after failed")


async def raise_at_once(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    raise RuntimeError("lifespan is not for me")


async def raise_in_startup(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    log("startup seen")
    raise RuntimeError("lifespan is not for me")


async def return_at_once(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    return


async def return_after_startup(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def hang_in_startup(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await asyncio.Event().wait()


async def shutdown_failed(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "could not save the ducks"})


async def raise_in_shutdown(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise RuntimeError("tripped on the way out")


async def hang_in_shutdown(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    log("shutdown seen")
    await asyncio.Event().wait()


async def bad_message(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    try:
        await send({"type": "lifespan.nonsense"})
        log("accepted")
    except Exception as error:
        log(f"raised {type(error).__name__}")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


cases = {
    function.__name__: function
    for function in (
        complete,
        startup_failed,
        raise_at_once,
        raise_in_startup,
        return_at_once,
        return_after_startup,
        hang_in_startup,
        shutdown_failed,
        raise_in_shutdown,
        hang_in_shutdown,
        bad_message,
    )
}
