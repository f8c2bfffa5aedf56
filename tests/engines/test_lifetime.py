"""A connection that ends inside a call of the application's is not touched afterwards, as the sanitizer build sees."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.engine import ASGI_KINDS, RunningEngine
from support.wire import DEADLINE, request

from duckfast import _debug

READ_SIZE = 64 * 1024  # bytes: what the engine reads at once


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The debug build counts what the engines made."""
    yield
    if _debug.enabled:
        gc.collect()
        assert not any(_debug.alive().values()), _debug.alive()


class Blocking:
    """An ASGI application that blocks its loop, so that the end of a connection is seen by what it calls next."""

    def __init__(self, next_call: str) -> None:
        self.next_call = next_call
        self.held_back = threading.Event()  # the connection is no longer read
        self.blocked = threading.Event()
        self.reset = threading.Event()
        self.outcome: list[Any] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(self.held_back.wait, DEADLINE)
        self.blocked.set()
        self.reset.wait(DEADLINE)
        try:
            if self.next_call == "receive":
                while (message := await receive())["type"] != "http.disconnect":
                    pass
                self.outcome.append(message["type"])
            else:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                while True:
                    await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        except OSError as error:
            self.outcome.append(error)


@pytest.mark.parametrize("next_call", ["receive", "send"])
@pytest.mark.parametrize("expects", [False, True])
@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_a_reset_is_met_first_by_the_applications_own_call(kind: str, expects: bool, next_call: str) -> None:
    blocking = Blocking(next_call)
    with RunningEngine(kind, blocking.app) as running:
        with running.connect() as wire:
            headers = [("Content-Length", "1000000"), *([("Expect", "100-continue")] if expects else [])]
            wire.send(request("POST", headers=headers))
            if not expects:
                wire.send(bytes(2 * READ_SIZE))  # a read that fills the buffer is followed by another, which meets the reset
            blocking.held_back.set()
            assert blocking.blocked.wait(DEADLINE)
            wire.reset()
        blocking.reset.set()
    assert len(blocking.outcome) == 1
