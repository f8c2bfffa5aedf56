"""The application behind bench/websocket.py: raw ASGI, no framework, no library.

    /echo        sends every message back as it came
    /subscribe   gets what /control has sent to all; what it says itself is read and dropped
    /control     a number: that many bytes go to every subscriber that has taken all before, then it is told how many

A subscriber whose last message is still on its way gets none of this round, as in any application that wants to be safe
from readers that stop: then it is the server alone that decides how much is kept for such a one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Subscriber:
    def __init__(self, send: Send) -> None:
        self.busy = False
        self._send = send

    async def deliver(self, message: Message) -> None:
        self.busy = True
        try:
            await self._send(message)
        except OSError:
            pass  # it has left
        finally:
            self.busy = False


subscribers: set[Subscriber] = set()
deliveries: set[asyncio.Task[None]] = set()


async def echo(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def subscribe(receive: Receive, send: Send) -> None:
    subscriber = Subscriber(send)
    subscribers.add(subscriber)
    try:
        while (await receive())["type"] == "websocket.receive":
            pass
    finally:
        subscribers.discard(subscriber)


async def control(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        payload = {"type": "websocket.send", "bytes": b"x" * int(message["text"])}
        sent = 0
        for subscriber in subscribers:
            if not subscriber.busy:
                sent += 1
                task = asyncio.create_task(subscriber.deliver(payload))
                deliveries.add(task)
                task.add_done_callback(deliveries.discard)
        await send({"type": "websocket.send", "text": str(sent)})


VIEWS = {"/echo": echo, "/subscribe": subscribe, "/control": control}


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await receive()
    await send({"type": "websocket.accept"})
    await VIEWS[scope["path"]](receive, send)
