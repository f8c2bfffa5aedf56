"""What an engine tells its owner: that it should be replaced, and what it is working on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from engines.gates import Gates, Receive, Send
from support.engine import ASGI_KINDS, KINDS, WSGI_KINDS, Counted, RunningEngine
from support.wire import eventually, request

GET = request()


@pytest.mark.parametrize("kind", KINDS)
def test_engine_asks_once_to_be_replaced_after_so_many_requests_and_serves_on(kind: str) -> None:
    recycle = Counted()
    keywords = {"recycle": recycle, "max_requests": 20}
    with RunningEngine(kind, Gates(kind).app, keywords=keywords) as running:
        served = 0
        while not recycle and served < 200:
            with running.connect() as client:  # of several threads each gets some
                client.send(GET)
                assert client.read_response().body == b"ok"
            served += 1
        # Of several reactors none sees the sum: each looks again after its share of what is left, and may be late by as much.
        assert served == 20 or kind == "free threads" and served > 20
        for _ in range(10):
            with running.connect() as client:
                client.send(GET)
                assert client.read_response().body == b"ok"
    assert recycle.calls == [("served 20 requests",)]


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_number_it_never_asks(kind: str) -> None:
    recycle = Counted()
    with RunningEngine(kind, Gates(kind).app, keywords={"recycle": recycle}) as running, running.connect() as client:
        for _ in range(10):
            client.send(GET)
            client.read_response()
    assert recycle.calls == []


@pytest.mark.parametrize("kind", KINDS)
def test_recycle_that_fails_is_told_and_does_not_hurt_the_request(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def failing(reason: str) -> None:
        raise OSError("nobody to tell")

    keywords = {"recycle": failing, "max_requests": 1}
    with RunningEngine(kind, Gates(kind).app, keywords=keywords) as running, running.connect() as client:
        client.send(GET)
        assert client.read_response().body == b"ok"
    assert "telling of 1 requests failed" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_requests_in_flight_are_told_while_everything_is_stuck(kind: str) -> None:
    gates = Gates(kind)
    settings = {"threads": 1} if kind in WSGI_KINDS else {}
    with RunningEngine(kind, gates.app, **settings) as running, running.connect() as stuck, running.connect() as idle:
        idle.send(GET)
        idle.read_response()
        assert running.engine.in_flight() == []
        stuck.send(request("POST", "/held?secret=1", body=b"x"))
        eventually(lambda: gates.inside)
        [(method, path, seconds)] = running.engine.in_flight()
        assert (method, path) == ("POST", "/held")
        assert 0 <= seconds < 20
        eventually(lambda: running.engine.in_flight()[0][2] > seconds)
        gates.gate.set()
        assert stuck.read_response().body == b"open"
        eventually(lambda: running.engine.in_flight() == [])
    assert running.engine.in_flight() == []


@pytest.mark.parametrize("kind", [*ASGI_KINDS, "threads"])
def test_requests_in_flight_come_oldest_first_and_fit_into_a_log(kind: str) -> None:
    """A path may hold anything: a line break in a log would forge an entry."""
    gate = threading.Event()
    paths: list[str] = []

    def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        gate.wait(20)
        start_response("200 OK", [])
        return [b""]

    async def asgi(scope: Any, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await asyncio.to_thread(gate.wait, 20)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    with RunningEngine(kind, asgi if kind in ASGI_KINDS else wsgi) as running:
        with running.connect() as first, running.connect() as second:
            first.send(request(target="/a%0D%0Ab%1B[31m%00"))
            eventually(lambda: len(paths) == 1)
            eventually(lambda: running.engine.in_flight()[0][2] > 0.01)  # more than the clock's grain
            second.send(request(target="/" + "y" * 1000))
            eventually(lambda: len(paths) == 2)
            shown = [path for _, path, _ in running.engine.in_flight()]
            assert shown == ["/a??b?[31m?", "/" + "y" * 199]
            gate.set()
            assert first.read_response().status == second.read_response().status == 200


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_application_that_goes_on_after_its_response_is_in_flight(kind: str) -> None:
    gate = threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})
        await asyncio.to_thread(gate.wait, 20)

    with RunningEngine(kind, app) as running, running.connect() as client:
        client.send(request(target="/background"))
        assert client.read_response().status == 200
        assert [path for _, path, _ in running.engine.in_flight()] == ["/background"]
        gate.set()
        eventually(lambda: running.engine.in_flight() == [])
