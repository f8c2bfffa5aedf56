"""retire(): one worker goes while others serve on, and no client sees a reset or waits for an answer that does not come."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from engines.gates import LARGE, Gates
from support.engine import ASGI_KINDS, KINDS, RunningEngine
from support.wire import Response, Wire, eventually, request

from duckfast import _debug

GET = request()
BLOCKING_KINDS = [*ASGI_KINDS, "threads"]  # engines that serve others while a request waits


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The debug build counts what the engines made."""
    yield
    if _debug.enabled:
        gc.collect()
        assert not any(_debug.alive().values()), _debug.alive()


def is_last(wire: Wire) -> Response:
    """The next response, which must be the last of its connection and end it properly."""
    response = wire.read_response()
    assert response.status == 200
    assert response.closes
    wire.expect_clean_end()
    wire.close()
    return response


def test_clients_in_every_phase_get_their_answers(kind: str) -> None:
    gates = Gates(kind)
    with RunningEngine(kind, gates.app) as running:
        idle, half_head, half_body, reading, silent = (running.connect(receive_buffer=4096) for _ in range(5))
        idle.send(GET)
        assert not idle.read_response().closes
        half_head.send(GET[:20])
        half_body.send(request("POST", "/echo", body=b"abcdef")[:-3])
        reading.send(request(target="/large"))
        large = reading.read_head()
        assert not large.closes
        with running.connect() as last:  # whatever came before it has been accepted and read
            last.send(GET)
            last.read_response()

        running.retire()
        idle.send(GET)
        is_last(idle)
        half_head.send(GET[20:])
        is_last(half_head)
        half_body.send(b"def")
        assert is_last(half_body).body == b"abcdef"
        assert len(reading.read_body(large).body) == LARGE
        reading.send(GET)  # its head had promised that the connection stays
        is_last(reading)
        silent.send(GET)
        is_last(silent)
        running.wait()


@pytest.mark.parametrize("kind", BLOCKING_KINDS, indirect=True)
def test_requests_in_progress_and_pipelined_behind_them_are_answered(kind: str) -> None:
    gates = Gates(kind)
    with RunningEngine(kind, gates.app) as running:
        busy, pipelined = running.connect(), running.connect()
        busy.send(request(target="/gate"))
        pipelined.send(request(target="/gate") + request("POST", "/echo", body=b"second") + GET)
        eventually(lambda: len(gates.inside) == 2)
        running.retire()
        gates.gate.set()
        assert is_last(busy).body == b"open"
        assert [pipelined.read_response().body for _ in range(2)] == [b"open", b"second"]
        assert is_last(pipelined).body == b"ok"
        running.wait()


def test_idle_client_that_asks_for_nothing_is_ended_at_its_ordinary_deadline(kind: str) -> None:
    with RunningEngine(kind, Gates(kind).app, timeout_keep_alive=0.3, timeout_request_headers=0.3) as running:
        used, unused = running.connect(), running.connect()
        used.send(GET)
        used.read_response()
        running.retire()
        used.expect_clean_end()
        used.close()
        unused.expect_clean_end()
        unused.close()
        running.wait()


@pytest.mark.parametrize("kind", BLOCKING_KINDS, indirect=True)
def test_at_the_graceful_timeout_requests_break_and_idle_clients_end_properly(kind: str) -> None:
    gates = Gates(kind)
    with RunningEngine(kind, gates.app, timeout_graceful_shutdown=0.3) as running:
        idle, busy = running.connect(), running.connect()
        idle.send(GET)
        idle.read_response()
        busy.send(request(target="/gate"))
        eventually(lambda: gates.inside)
        running.retire()
        idle.expect_clean_end()
        idle.close()
        answer = busy.read_rest()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503 ")
        busy.close()
        gates.gate.set()
        running.wait()


def test_stop_makes_the_retirement_a_quick_end(kind: str) -> None:
    with RunningEngine(kind, Gates(kind).app) as running, running.connect() as idle:
        idle.send(GET)
        idle.read_response()
        running.retire()
        running.engine.stop()
        idle.expect_clean_end()
        idle.close()
        running.wait()


def test_retiring_twice_and_after_a_stop_changes_nothing(kind: str) -> None:
    with RunningEngine(kind, Gates(kind).app) as running, running.connect() as client:
        client.send(GET)
        client.read_response()
        running.retire()
        running.retire()
        client.send(GET)
        is_last(client)
        running.wait()
    with RunningEngine(kind, Gates(kind).app) as running, running.connect() as client:
        client.send(GET)
        client.read_response()
        running.engine.stop()
        running.engine.retire()
        client.expect_clean_end()


def test_connections_that_wait_to_be_accepted_are_served_first(kind: str) -> None:
    """The kernel may have woken this process alone for them."""
    if kind == "free threads":
        return  # its other threads accept them at once
    gates = Gates(kind)
    options = {"threads": 1} if kind == "threads" else {}
    with RunningEngine(kind, gates.app, **options) as running, running.connect() as busy:
        busy.send(request(target="/held"))
        eventually(lambda: gates.inside)
        waiting = [running.connect() for _ in range(100)]
        for wire in waiting:
            wire.send(GET)
        running.engine.retire()
        gates.gate.set()
        is_last(busy)
        for wire in waiting:
            is_last(wire)
        running.wait()


def test_no_request_is_lost_while_a_sibling_serves_on(kind: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    app = Gates(kind).app
    failures: list[BaseException] = []
    served = [0] * 8

    def client(number: int) -> None:
        try:
            wire = sibling.connect()
            for _ in range(300):
                wire.send(GET)
                response = wire.read_response()
                assert response.body == b"ok"
                if response.closes:
                    wire.expect_clean_end()
                    wire.close()
                    wire = sibling.connect()
                served[number] += 1
            wire.close()
        except BaseException as error:
            failures.append(error)

    with RunningEngine(kind, app, sockets=[listener.dup()]) as leaving, RunningEngine(kind, app, sockets=[listener]) as sibling:
        clients = [threading.Thread(target=client, args=(number,)) for number in range(len(served))]
        for thread in clients:
            thread.start()
        eventually(lambda: sum(served) > 400 or failures)
        leaving.engine.retire()
        for thread in clients:
            thread.join()
        leaving.wait()
    assert failures == []
    assert served == [300] * 8


@pytest.mark.parametrize("kind", ASGI_KINDS, indirect=True)
@pytest.mark.parametrize("end", ["stop", "retire"])
def test_open_stream_is_told_and_may_end_by_itself(kind: str, end: str) -> None:
    gates = Gates(kind)
    with RunningEngine(kind, gates.app) as running, running.connect() as stream, running.connect() as later:
        stream.send(request(target="/stream"))
        stream.read_head()
        assert stream.read_chunk() == b"x"
        later.send(GET)
        later.read_response()
        getattr(running.engine, end)()
        assert gates.told.wait(20)
        assert stream.read_chunk() == b"ok"
        assert stream.read_chunk() == b""
        if end == "retire":
            later.send(request(target="/stream"))  # one that begins now is told as soon as it has begun
            assert later.read_response().body == b"xok"


@pytest.mark.parametrize("kind", ASGI_KINDS, indirect=True)
@pytest.mark.parametrize("end", ["stop", "retire"])
def test_request_without_a_response_yet_is_not_told_to_give_up(kind: str, end: str) -> None:
    """Django drops its work at http.disconnect: every request in progress at a stop would become a 500."""
    listening = threading.Event()
    gate = threading.Event()

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        await receive()
        disconnected = asyncio.ensure_future(receive())
        work = asyncio.ensure_future(asyncio.to_thread(gate.wait, 20))
        asyncio.get_running_loop().call_soon(listening.set)
        await asyncio.wait({disconnected, work}, return_when=asyncio.FIRST_COMPLETED)
        disconnected.cancel()
        if work.done():
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"whole"})

    with RunningEngine(kind, app) as running, running.connect() as client:
        client.send(GET)
        assert listening.wait(20)
        getattr(running.engine, end)()
        running.wait_until_refused()
        gate.set()
        assert is_last(client).body == b"whole"


@pytest.mark.parametrize("kind", ["threads"], indirect=True)
@pytest.mark.parametrize("end", ["stop", "retire"])
def test_last_connection_may_end_on_a_thread_that_does_not_wait_for_events(kind: str, end: str) -> None:
    gates = Gates(kind)
    with RunningEngine(kind, gates.app) as running:
        gone, idle = running.connect(), running.connect()
        gone.send(request("GET", "/gate"))
        eventually(lambda: gates.inside)
        idle.send(GET)
        idle.read_response()  # somebody else waits for events now
        getattr(running.engine, end)()  # has longer than wait() waits
        if end == "stop":
            idle.expect_clean_end()
        else:
            idle.send(GET)
            assert is_last(idle).body == b"ok"
        idle.close()
        gone.reset()
        gates.gate.set()  # the call ends, has nobody to answer, and closes the connection
        running.wait()
