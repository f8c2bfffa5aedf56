"""Requests that arrive together are read together, called together, and answered together, unless the application computes."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from engines.gates import PATIENCE
from support.engine import RunningEngine, eventually
from support.wire import Wire, request


class Order:
    """Notes what happens. GET /hold/x blocks the loop before its answer, GET /linger/x behind it, until gate("x") opens."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gates: dict[str, threading.Event] = {}

    def gate(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())

    async def app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        _, kind, *names = scope["path"].split("/")
        self.events.append(kind)
        if kind == "hold":
            assert self.gate(names[0]).wait(PATIENCE)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": kind.encode()})
        if kind == "linger":
            assert self.gate(names[0]).wait(PATIENCE)


def ask(running: RunningEngine, path: str) -> Wire:
    wire = running.connect()
    wire.send(request("GET", path))
    return wire


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_answers_do_not_wait_for_an_application_that_computes(kind: str) -> None:
    order = Order()
    with RunningEngine(kind, order.app) as running:
        first = ask(running, "/hold/first")  # a long step: from now on, for a while, every answer leaves at once
        eventually(lambda: order.events == ["hold"])
        quick = ask(running, "/quick")
        slow = ask(running, "/linger/slow")
        held = threading.Timer(0.01, order.gate("first").set)  # what makes that step a long one
        held.start()
        assert first.read_response().body == b"hold"
        assert quick.read_response().body == b"quick"  # the loop is blocked again, behind this answer ...
        assert slow.read_response().body == b"linger"  # ... and behind this one
        order.gate("slow").set()
        for wire in (first, quick, slow):
            wire.close()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_every_request_that_arrived_together_is_answered(kind: str) -> None:
    order = Order()
    with RunningEngine(kind, order.app) as running:
        first = ask(running, "/hold/first")
        eventually(lambda: order.events == ["hold"])
        wires = [running.connect() for _ in range(100)]
        for wire in wires:
            wire.send(request("GET", "/a") + request("GET", "/b") * 40)
        order.gate("first").set()
        assert first.read_response().body == b"hold"
        for wire in wires:
            assert [wire.read_response().body for _ in range(41)] == [b"a"] + [b"b"] * 40
        assert order.events[1:101] == ["a"] * 100  # nobody's second before everybody's first
        for wire in (first, *wires):
            wire.close()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_client_that_leaves_before_its_application_is_called_takes_nobody_with_it(kind: str) -> None:
    order = Order()
    with RunningEngine(kind, order.app) as running:
        first = ask(running, "/hold/first")
        eventually(lambda: order.events == ["hold"])
        others = [ask(running, "/other") for _ in range(3)]
        ask(running, "/gone").reset()
        last = ask(running, "/last")
        order.gate("first").set()
        assert [wire.read_response().body for wire in (first, *others, last)] == [b"hold", *[b"other"] * 3, b"last"]
        for wire in (first, *others, last):
            wire.close()
