"""--limit-concurrency: so many requests in the app at once, so many more in line, and a 503 for the rest."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from engines.gates import Gates, Receive, Send
from support.engine import ASGI_KINDS, KINDS, Counted, RunningEngine
from support.wire import Response, Wire, eventually, request

GET = request()
CROWD_KINDS = ["asyncio", "uvloop", "threads"]  # that look after others while a request is in the app


@pytest.fixture(params=CROWD_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Turnstile:
    """An app that notes who is in it; each request stays until it is let go."""

    def __init__(self, kind: str) -> None:
        self.order: list[str] = []
        self.inside = self.most_inside = 0
        self.bodies: list[bytes] = []
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self.app = self.asgi if kind in ASGI_KINDS else self.wsgi

    def gate(self, path: str) -> threading.Event:
        with self._lock:
            return self._gates.setdefault(path, threading.Event())

    def enter(self, path: str) -> None:
        with self._lock:
            self.order.append(path)
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        self.enter(path)
        body = environ["wsgi.input"].read()
        assert self.gate(path).wait(20)
        self.leave()
        start_response("200 OK", [])
        return [b"%s %d" % (path.encode(), len(body))]

    async def asgi(self, scope: Any, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.enter(path)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        assert await asyncio.to_thread(self.gate(path).wait, 20)
        self.leave()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%s %d" % (path.encode(), len(body))})


def ask(running: RunningEngine, path: str, **options: Any) -> Wire:
    wire = running.connect()
    wire.send(request(target=path, **options))
    return wire


def assert_refused(response: Response, retry_after: bytes = b"10") -> None:
    assert (response.status, response.closes, response.framing) == (503, True, "length")
    assert response.get("retry-after") == retry_after
    assert response.body == b"the server is busy, try again in a moment\n"


def test_requests_over_the_limit_wait_and_are_served_in_order(kind: str) -> None:
    stile = Turnstile(kind)
    with RunningEngine(kind, stile.app, limit_concurrency=2, limit_queue=4) as running:
        inside = [ask(running, path) for path in ("/a", "/b")]
        eventually(lambda: len(stile.order) == 2)
        waiting = []
        for path in ("/1", "/2", "/3", "/4"):
            waiting.append(ask(running, path))
            with running.connect() as idle:  # one that does not ask for anything is no load
                idle.send(GET[:10])
            if path != "/4":
                assert len(running.engine.in_flight()) == 2
        refused = ask(running, "/5")
        assert_refused(refused.read_response())
        refused.expect_clean_end()
        assert sorted(stile.order) == ["/a", "/b"]
        assert sorted(path for _, path, _ in running.engine.in_flight()) == ["/a", "/b"]
        for path in ("/a", "/b", "/1", "/2", "/3", "/4"):
            stile.gate(path).set()
            if path not in ("/a", "/b"):
                eventually(lambda path=path: path in stile.order)
        assert [wire.read_response().body for wire in inside + waiting] == [
            b"%s 0" % path for path in (b"/a", b"/b", b"/1", b"/2", b"/3", b"/4")]
        assert stile.order[2:] == ["/1", "/2", "/3", "/4"]
        assert stile.most_inside == 2
        for wire in (*inside, *waiting, refused):
            wire.close()


@pytest.mark.parametrize("size", [1000, 300_000])
def test_body_of_a_request_in_line_is_not_lost(kind: str, size: int) -> None:
    stile = Turnstile(kind)
    with RunningEngine(kind, stile.app, limit_concurrency=1) as running:
        with ask(running, "/first") as first, running.connect() as second:
            eventually(lambda: stile.order)
            sending = threading.Thread(target=second.send, args=(request("POST", "/second", body=bytes(size)),))
            sending.start()
            with ask(running, "/third") as third:
                assert stile.order == ["/first"]
                for path in ("/first", "/second", "/third"):
                    stile.gate(path).set()
                assert first.read_response().body == b"/first 0"
                assert second.read_response().body == b"/second %d" % size
                assert third.read_response().body == b"/third 0"
            sending.join()
    assert stile.most_inside == 1


def test_reading_stops_while_a_request_is_in_line(kind: str) -> None:
    stile = Turnstile(kind)
    with RunningEngine(kind, stile.app, limit_concurrency=1, limit_queue=1) as running:
        with ask(running, "/first") as first, running.connect() as second:
            eventually(lambda: stile.order)
            body = bytes(64 << 20)
            second.send(request("POST", "/second", headers=[("Content-Length", str(len(body)))]))
            second.socket.setblocking(False)
            sent = looks = 0
            while looks < 50:  # each is a whole request: what does not move meanwhile is held back
                try:
                    sent += second.socket.send(body[:1 << 20])
                    looks = 0
                except BlockingIOError:
                    looks += 1
                    with ask(running, "/refused") as refused:
                        assert refused.read_response().status == 503
            assert sent < len(body)
            stile.gate("/second").set()
            stile.gate("/first").set()
            assert first.read_response().status == 200


def test_request_that_waited_too_long_is_refused(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    stile = Turnstile(kind)
    with RunningEngine(kind, stile.app, limit_concurrency=1, timeout_queue=0.2) as running:
        with ask(running, "/first") as first:
            eventually(lambda: stile.order)
            for _ in range(3):
                with ask(running, "/late") as late:
                    assert_refused(late.read_response(), b"1")
            stile.gate("/first").set()
            assert first.read_response().status == 200
            first.send(request(target="/first"))  # the place is free again
            assert first.read_response().status == 200
    assert "/late" not in stile.order
    assert caplog.text.count("requests are refused with 503") == 1


def test_client_that_leaves_the_line_makes_room(kind: str) -> None:
    stile = Turnstile(kind)
    with RunningEngine(kind, stile.app, limit_concurrency=1, limit_queue=1) as running:
        with ask(running, "/first") as first:
            eventually(lambda: stile.order)
            for _ in range(5):
                leaving = ask(running, "/leaving")
                with ask(running, "/refused") as refused:
                    assert refused.read_response().status == 503
                leaving.reset()
                eventually(lambda: is_room(running, stile))
            stile.gate("/first").set()
            assert first.read_response().status == 200


def is_room(running: RunningEngine, stile: Turnstile) -> bool:
    """Whether a request is not refused at once: the one after it is then."""
    with ask(running, "/probe") as first, ask(running, "/probe") as second:
        assert second.read_response().status == 503
        first.socket.setblocking(False)
        try:
            first.socket.recv(1)
        except BlockingIOError:
            first.reset()
            return True
        return False


def test_failing_app_gives_its_place_back(kind: str) -> None:
    def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError

    async def asgi(scope: Any, receive: Receive, send: Send) -> None:
        raise ValueError

    app = asgi if kind in ASGI_KINDS else wsgi
    with RunningEngine(kind, app, limit_concurrency=1, limit_queue=0) as running:
        for _ in range(5):
            with ask(running, "/") as wire:
                assert wire.read_response().status == 500
                wire.expect_clean_end()  # the app has left before the connection ends


def test_time_in_line_is_not_the_apps_time(kind: str) -> None:
    stile = Turnstile(kind)
    beats = Counted()
    keywords = {"heartbeat": beats, "heartbeat_interval": 0.05}
    settings = {"limit_concurrency": 1, "timeout_request": 0.5, "keywords": keywords}
    with RunningEngine(kind, stile.app, **settings) as running:
        firsts = [ask(running, f"/{number}") for number in range(4)]
        for number, wire in enumerate(firsts):
            eventually(lambda number=number: f"/{number}" in stile.order)
            beats.wait_for_more(5)  # 0.25 s each: the last waited for longer than the limit
            stile.gate(f"/{number}").set()
            assert wire.read_response().status == 200
            wire.close()


def test_stop_finishes_those_in_line_or_tells_them(kind: str) -> None:
    stile = Turnstile(kind)
    with RunningEngine(kind, stile.app, limit_concurrency=1) as running:
        with ask(running, "/first") as first, ask(running, "/second") as second:
            eventually(lambda: stile.order)
            running.retire()
            stile.gate("/first").set()
            stile.gate("/second").set()
            assert first.read_response().closes
            assert second.read_response().closes
    stile = Turnstile(kind)
    with RunningEngine(kind, stile.app, limit_concurrency=1, limit_queue=1, timeout_graceful_shutdown=0.2) as running:
        with ask(running, "/first"), ask(running, "/second") as second:
            eventually(lambda: stile.order)
            with ask(running, "/third") as third:
                assert_refused(third.read_response())  # so the second is in line
            running.engine.stop()
            assert_refused(second.read_response())
            second.expect_clean_end()
            stile.gate("/first").set()
            stile.gate("/second").set()


@pytest.mark.parametrize("kind", ["one thread", "free threads"])
def test_thread_that_is_alone_takes_in_who_has_come_between_two_calls(kind: str) -> None:
    gates = Gates(kind)
    settings: dict[str, Any] = {"limit_concurrency": 1, "limit_queue": 3}
    with RunningEngine(kind, gates.app, **settings) as running, ask(running, "/held") as first:
        eventually(lambda: gates.inside)
        others = [ask(running, "/") for _ in range(8)]
        gates.gate.set()
        assert first.read_response().body == b"open"
        statuses = [wire.read_response().status for wire in others]
        assert statuses.count(503) == 4  # one is called next, three wait
        assert statuses.count(200) == 4
        for wire in others:
            wire.close()


@pytest.mark.parametrize("kind", KINDS)
def test_limit_that_is_not_reached_changes_nothing(kind: str) -> None:
    with RunningEngine(kind, Gates(kind).app, limit_concurrency=2, limit_connections=10) as running:
        with running.connect() as client:
            client.send(request("POST", "/echo", body=b"x") * 100)
            assert [client.read_response().body for _ in range(100)] == [b"x"] * 100
