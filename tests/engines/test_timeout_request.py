"""--timeout-request: an app that takes too long is answered for, and only its own time counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from engines.gates import LARGE, Gates, Receive, Send
from support.engine import ASGI_KINDS, Counted, RunningEngine
from support.wire import eventually, request

GET = request()
LIMIT = 0.2  # seconds
LOCKED_KINDS = ["asyncio", "uvloop", "threads", "one thread"]


@pytest.fixture(params=LOCKED_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def clock() -> Iterator[Counted]:
    """Ten beats of it are longer than the limit."""
    beats = Counted()
    keywords = {"heartbeat": beats, "heartbeat_interval": LIMIT / 5}
    with RunningEngine("one thread", Gates("wsgi").app, keywords=keywords):
        yield beats


def limited(kind: str, app: Any, **settings: Any) -> RunningEngine:
    return RunningEngine(kind, app, timeout_request=LIMIT, **settings)


def test_request_without_an_answer_in_time_gets_a_504(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    gates, recycle = Gates(kind), Counted()
    with limited(kind, gates.app, keywords={"recycle": recycle}) as running, running.connect() as client:
        client.send(request(target="/gate?x"))
        response = client.read_response()
        assert (response.status, response.closes, response.framing) == (504, True, "length")
        assert response.body == b"the application took too long\n"
        client.expect_clean_end()
        eventually(lambda: "GET '/gate' took longer than 0.2 s (--timeout-request): answered with 504" in caplog.text)
        if kind not in ASGI_KINDS:
            recycle.wait_for(1)  # while the thread is still stuck
        gates.gate.set()
        with running.connect() as next_client:
            next_client.send(GET)
            assert next_client.read_response().body == b"ok"
    # A thread stays behind and cannot be had back; a task ends.
    assert recycle.calls == ([] if kind in ASGI_KINDS else [("a request ran longer than 0.2s",)])
    assert caplog.text.count("took longer") == 1
    assert "exception" not in caplog.text


def test_every_thread_stuck_at_a_time_is_answered_for(kind: str) -> None:
    gates = Gates(kind)
    settings = {"threads": 2} if kind == "threads" else {}
    with limited(kind, gates.app, **settings) as running:
        with running.connect() as first, running.connect() as second:
            first.send(request(target="/gate"))
            if kind != "one thread":
                second.send(request(target="/gate"))
                assert second.read_response().status == 504
            assert first.read_response().status == 504
            gates.gate.set()


def test_response_that_has_begun_breaks_off_visibly(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    gate, closed = threading.Event(), Counted()

    class Blocks:
        def __iter__(self) -> Iterator[bytes]:
            yield b"begun"
            gate.wait(20)
            yield b"too late"

        close = closed

    def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/slow":
            start_response("200 OK", [])
            return [b"ok"]
        start_response("200 OK", [])
        return Blocks()

    async def asgi(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/slow":
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            try:
                await asyncio.Event().wait()
            finally:
                closed()
        await send({"type": "http.response.body", "body": b"ok"})

    with limited(kind, asgi if kind in ASGI_KINDS else wsgi) as running:
        with running.connect() as client:
            client.send(request(target="/slow"))
            assert client.read_broken_response().body == b"begun"
        gate.set()
        closed.wait_for(1)
        with running.connect() as client:
            client.send(GET * 3)
            assert [client.read_response().body for _ in range(3)] == [b"ok"] * 3
    assert len(closed) == 1
    assert caplog.text.count("GET '/slow' took longer than 0.2 s (--timeout-request): its response was broken off") == 1
    assert "exception" not in caplog.text


@pytest.mark.parametrize("late", ["start_response", "write", "input"])
def test_view_that_comes_back_finds_its_client_gone(late: str, caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    raised: list[BaseException] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", []) if late == "write" else None
        gate.wait(20)
        try:
            if write is not None:
                write(b"late")
            elif late == "input":
                environ["wsgi.input"].read()
            else:
                start_response("200 OK", [])
        except OSError as error:
            raised.append(error)
            raise
        return [b"late"]

    with limited("threads", app) as running, running.connect() as client:
        client.send(request("POST", body=b"x" * 100_000) if late == "input" else GET)
        assert client.read_response().status == 504
        gate.set()
        eventually(lambda: raised)
    assert "exception" not in caplog.text


def test_view_that_does_not_ask_for_the_rest_of_a_body_does_not_wait_for_its_client() -> None:
    gate = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gate.wait(20)
        start_response("200 OK", [])
        return [b"late"]

    with limited("threads", app) as running, running.connect() as client, running.connect() as other:
        upload = request("POST", body=b"x" * 200_000)
        client.send(upload[:1000])
        other.send(b"not a request\r\n\r\n")
        assert other.read_response().status == 400  # who came before it has been read, and was waited for
        client.send(upload[1000:150_000])  # more than is held for the view: it is called
        assert client.read_response().status == 504
        gate.set()


@pytest.mark.parametrize("size", [1000, 200_000])
def test_slow_upload_is_not_the_apps_time(kind: str, size: int, clock: Counted) -> None:
    with limited(kind, Gates(kind).app) as running, running.connect() as client:
        client.send(request("POST", "/echo", body=bytes(size))[:-500])
        clock.wait_for_more(10)
        client.send(bytes(500))
        assert client.read_response().body == bytes(size)


def test_slow_reader_is_not_the_apps_time(kind: str, clock: Counted) -> None:
    gates = Gates(kind)

    def wsgi(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(LARGE // 65536):
            yield bytes(65536)

    async def asgi(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(LARGE // 65536):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await send({"type": "http.response.body"})

    for app in (gates.app, asgi if kind in ASGI_KINDS else wsgi):
        with limited(kind, app) as running, running.connect(receive_buffer=4096) as client:
            client.send(request(target="/large"))
            head = client.read_head()
            clock.wait_for_more(10)
            assert len(client.read_body(head).body) == LARGE


def test_time_goes_on_when_a_slow_client_has_come(kind: str, clock: Counted) -> None:
    gates = Gates(kind)
    with limited(kind, gates.app) as running, running.connect() as client:
        client.send(request("POST", "/gate", body=b"12345")[:-2])
        clock.wait_for_more(10)
        client.send(b"45")
        assert client.read_response().status == 504
        gates.gate.set()


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_application_is_cancelled_and_the_answer_does_not_wait_for_its_cleanup(kind: str) -> None:
    cancelled, gate = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.to_thread(gate.wait, 20)
            raise

    with limited(kind, app) as running, running.connect() as client:
        client.send(GET)
        assert client.read_response().status == 504
        assert cancelled.wait(20)
        gate.set()


def test_requests_in_time_are_left_alone(kind: str, clock: Counted) -> None:
    """Each has its own time, not the connection."""
    with limited(kind, Gates(kind).app) as running, running.connect() as client:
        until = len(clock) + 10
        while len(clock) < until:
            client.send(GET)
            assert client.read_response().body == b"ok"


def test_without_the_interpreters_lock_it_is_told_that_wsgi_has_no_such_limit(caplog: pytest.LogCaptureFixture) -> None:
    with limited("free threads", Gates("wsgi").app) as running, running.connect() as client:
        client.send(GET)
        assert client.read_response().body == b"ok"
    assert "--timeout-request does nothing for WSGI on an interpreter without its lock" in caplog.text
