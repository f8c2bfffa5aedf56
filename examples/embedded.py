"""A server as a part of an asyncio program that has other things to do. Run it:  python embedded.py

The program counts; the server, in the same event loop, tells how far it has come. It ends when it has counted to the end, or
by SIGINT and SIGTERM, which it handles itself: a server inside a program handles no signals of its own accord.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import duckfast

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Counter:
    def __init__(self) -> None:
        self.count = 0

    async def work(self, end: int) -> None:
        while self.count < end:
            await asyncio.sleep(0.01)
            self.count += 1

    async def app(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = f"Hello, I have counted to {self.count}\n".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


async def main() -> None:
    counter = Counter()
    working = asyncio.create_task(counter.work(end=60_000))
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, working.cancel)
    port = int(os.environ.get("PORT", "8000"))
    async with duckfast.Server(counter.app, port=port, lifespan="off", interface="asgi", log_level="info") as server:
        print(f"counting; ask {server.url} how far it is", flush=True)
        await asyncio.wait({working})
    print(f"ended at {counter.count}")


if __name__ == "__main__":
    asyncio.run(main())
