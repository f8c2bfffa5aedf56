"""Clients that reset, half-close, pipeline without reading, or come while nobody has time: what is left of them."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.gates import PATIENCE, Receive, Send
from support.engine import ASGI_KINDS, KINDS, RunningEngine, eventually
from support.wire import Wire, chunked, request

from duckfast import _debug

PARSERS = ["duckfast", "httptools"]
PIECE = b"y" * 4096
GOOD = request() + request("GET", "/piece")
UPLOAD = request("POST", "/upload", [("Content-Length", "1000000")])
CHUNKED_UPLOAD = request("POST", "/upload", [("Transfer-Encoding", "chunked")])
NAP = 0.01  # seconds
SHORT = 0.3  # seconds: deadlines that pass while the application keeps everybody waiting


class Rudely:
    """The same application for WSGI and ASGI, which notes its calls.

    GET /       "ok"          GET /held     "open", once the gate is set: blocks its thread or loop
    GET /piece  PIECE         GET /endless  PIECE again and again, while somebody is there
    GET /nap    "ok", after as long as makes a call a long one
    POST /upload              how long the body was
    """

    def __init__(self, kind: str) -> None:
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.on_call: Callable[[str], None] = lambda path: None
        self.app: Callable[..., Any] = self.asgi if kind in ASGI_KINDS else self.wsgi

    def enter(self, path: str) -> bytes:
        self.calls.append(path)
        self.on_call(path)
        if path == "/held":
            assert self.gate.wait(PATIENCE)
            return b"open"
        if path == "/nap":
            time.sleep(NAP)
        return PIECE if path == "/piece" else b"ok"

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        body = self.enter(path)
        if path == "/upload":
            size = 0
            while piece := environ["wsgi.input"].read(65536):
                size += len(piece)
            body = b"%d" % size
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self._pieces() if path == "/endless" else [body]

    def _pieces(self) -> Iterator[bytes]:
        while True:
            yield PIECE

    async def asgi(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"]
        body = self.enter(path)
        if path == "/upload":
            size, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                size += len(message["body"])
                more = message["more_body"]
            body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        while path == "/endless":
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The debug build counts what the engines made."""
    yield
    if _debug.enabled:
        gc.collect()
        assert not any(_debug.alive().values()), _debug.alive()


def descriptors() -> set[str]:
    """What is open in this process, the tests' ends of the connections as well as the engine's."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def ask(running: RunningEngine, path: str = "/") -> bytes:
    with running.connect() as wire:
        wire.send(request("GET", path))
        return wire.read_response().body


# Leaving


STATES: dict[str, tuple[bytes, int]] = {  # what is sent, and how much is read before the client leaves
    "after connecting": (b"", 0),
    "within the head": (GOOD[:20], 0),
    "within a body with a length": (UPLOAD + b"x" * 1000, 0),
    "within a long body with a length": (UPLOAD + b"x" * 200_000, 0),
    "within a chunk": (CHUNKED_UPLOAD + b"ff\r\nabc", 0),
    "between chunks": (CHUNKED_UPLOAD + chunked(b"abc")[:-5], 0),
    "before the response": (GOOD, 0),
    "within the response": (request("GET", "/endless"), 5000),
    "between pipelined requests": (GOOD * 50, 5000),
    "behind a refusal": (b"nonsense\r\n\r\n" + GOOD, 10),
}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("kind", KINDS)
def test_client_that_leaves_in_any_state_leaves_nothing_behind(kind: str, parser: str) -> None:
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app, http=parser) as running:
        before = descriptors()
        for leave in (Wire.reset, Wire.close, Wire.half_close):
            for data, size in STATES.values():
                for _ in range(3):
                    wire = running.connect()
                    if wire.send_what_is_taken(data) and size:
                        wire.read_exactly(size)
                    leave(wire)
                    wire.close()
            eventually(lambda: descriptors() <= before, "nothing open that was not before")
        assert ask(running) == b"ok"


def is_watched(descriptor: int) -> bool:
    """Whether an epoll instance of this process watches what this descriptor stands for, under whatever number."""
    inode = f"ino:{os.fstat(descriptor).st_ino:x} "
    for name in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(FileNotFoundError):
            if inode in Path(f"/proc/self/fdinfo/{name}").read_text():
                return True
    return False


def server_end(wire: Wire) -> int:
    """The engine's descriptor of this connection, in this process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with found:
            if found.family == socket.AF_INET and found.type == socket.SOCK_STREAM:
                with contextlib.suppress(OSError):
                    if found.getpeername() == wire.socket.getsockname():
                        return int(name)
    raise AssertionError("the engine has no such connection")


@pytest.mark.parametrize("kind", KINDS)
def test_connection_that_somebody_else_holds_open_is_not_watched_after_its_end(kind: str) -> None:
    """A child that the application forks does: an event would be told to a connection that is no more."""
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app) as running:
        wire = running.connect()
        wire.send(request())
        assert wire.read_response().body == b"ok"
        held = os.dup(server_end(wire))
        assert is_watched(held)
        wire.half_close()
        eventually(lambda: not is_watched(held), "the end of the watching")
        for _ in range(10):  # what comes now is told to nobody
            wire.send_what_is_taken(b"x")
            assert ask(running) == b"ok"
        os.close(held)
        wire.close()


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("kind", KINDS)
def test_half_closed_client_gets_all_that_it_can_still_be_told(kind: str, parser: str) -> None:
    rudely = Rudely(kind)
    told = {
        "after connecting": [],
        "within the head": [400],
        "within a body with a length": [400],
        "within a chunk": [400],
        "between chunks": [400],
        "before the response": [200, 200],
        "between pipelined requests": [200] * 100,
        "behind a refusal": [400],
    }
    with RunningEngine(kind, rudely.app, http=parser) as running:
        for state, statuses in told.items():
            with running.connect() as wire:
                wire.send(STATES[state][0])
                wire.half_close()
                assert [wire.read_response().status for _ in statuses] == statuses
                wire.expect_clean_end()


@pytest.mark.parametrize("kind", [*ASGI_KINDS, "one thread"])
def test_streams_that_are_reset_while_their_pieces_are_gathered_do_no_harm(kind: str) -> None:
    """Another thread may be sending what was held back at that moment."""
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app) as running:
        for _ in range(150):
            wire = running.connect()
            wire.send(request("GET", "/endless"))
            wire.read_exactly(5000)
            wire.reset()
        assert ask(running) == b"ok"


# Asking without reading


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("kind", KINDS)
def test_pipeline_whose_answers_are_not_read_stops_being_read(kind: str, parser: str) -> None:
    number = 5000  # answers of 20 MB: no socket's buffers take them
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app, http=parser) as running:
        with running.connect(receive_buffer=4096) as wire:
            sender = threading.Thread(target=wire.send_what_is_taken, args=(request("GET", "/piece") * number,))
            sender.start()
            looks, seen = 0, -1
            while looks < 30:  # each look is a request that the server answers meanwhile
                assert ask(running) == b"ok"
                answered = rudely.calls.count("/piece")
                looks = looks + 1 if answered == seen else 0
                seen = answered
            assert 0 < seen < number // 2
            for _ in range(number):
                assert wire.read_response().body == PIECE
            sender.join()
        assert rudely.calls.count("/piece") == number


@pytest.mark.parametrize("kind", KINDS)
def test_unread_pipeline_that_is_reset_leaves_nothing_behind(kind: str) -> None:
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app) as running:
        before = descriptors()
        for _ in range(5):
            wire = running.connect(receive_buffer=4096)
            wire.send(request("GET", "/piece") * 2000)
            wire.read_exactly(100)
            wire.reset()
        eventually(lambda: descriptors() <= before, "nothing open that was not before")
        assert ask(running) == b"ok"


# Announcing without sending


@pytest.mark.parametrize("kind", KINDS)
def test_long_bodies_that_are_only_announced_keep_no_thread(kind: str) -> None:
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app) as running:
        announcing = [running.connect() for _ in range(20)]
        for wire in announcing:
            wire.send(UPLOAD + b"x")
        for _ in range(20):
            assert ask(running) == b"ok"
        if kind not in ASGI_KINDS:
            assert "/upload" not in rudely.calls
        for wire in announcing:
            wire.send(b"x" * 999_999)
        assert [wire.read_response().body for wire in announcing] == [b"1000000"] * 20
        for wire in announcing:
            wire.close()


# Coming while nobody has time


@pytest.mark.parametrize("kind", KINDS)
def test_deadline_that_passed_while_nobody_could_read_ends_nobody_who_has_asked(kind: str) -> None:
    """The clients were in time, and the server was not."""
    rudely = Rudely(kind)
    settings: dict[str, Any] = {} if kind in ASGI_KINDS else {"threads": 1 if kind == "free threads" else 2}
    with RunningEngine(kind, rudely.app, timeout_keep_alive=SHORT, timeout_request_headers=SHORT, **settings) as running:
        holding = [running.connect() for _ in range(2)]
        kept = [running.connect() for _ in range(150)]
        for wire in kept:
            wire.send(request())
            assert wire.read_response().body == b"ok"
        fresh = [running.connect() for _ in range(150)]
        torn = [running.connect() for _ in range(3)]
        for wire in torn:
            wire.send(GOOD[:20])
        for wire in holding:
            wire.send(request("GET", "/held"))
        stuck = 2 if kind == "threads" else 1
        eventually(lambda: rudely.calls.count("/held") == stuck)
        for wire in (*kept, *fresh):
            wire.send(request())
        for wire in torn:
            wire.send(GOOD[20:])
        wait_quietly(kept[0], 3 * SHORT)
        rudely.gate.set()
        assert [wire.read_response().body for wire in holding] == [b"open"] * 2
        assert [wire.read_response().body for wire in (*kept, *fresh)] == [b"ok"] * 300
        assert [wire.read_response().body for wire in torn] == [b"ok"] * 3
        for wire in (*holding, *kept, *fresh, *torn):
            wire.close()


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_forgotten_behind_those_who_take_long_and_those_who_always_have_more(kind: str) -> None:
    """All at once: connections whose last call was a long one, long pipelines, and many with one request each."""
    rudely = Rudely(kind)
    settings: dict[str, Any] = {} if kind in ASGI_KINDS else {"threads": 1 if kind == "free threads" else 2}
    with RunningEngine(kind, rudely.app, timeout_request_headers=60, **settings) as running:  # no deadline looks at them again
        slow, modest = [running.connect() for _ in range(3)], [running.connect() for _ in range(200)]
        greedy = [running.connect(receive_buffer=1 << 20) for _ in range(12)]
        holding = [running.connect() for _ in range(2)]
        for wire in slow:
            wire.send(request("GET", "/nap"))
            assert wire.read_response().body == b"ok"
        for wire in holding:
            wire.send(request("GET", "/held"))
        stuck = 2 if kind == "threads" else 1
        eventually(lambda: rudely.calls.count("/held") == stuck)
        for wire in slow:
            wire.send(request("GET", "/nap"))
        for wire in greedy:
            wire.send(request() * 1000)
        for wire in modest:
            wire.send(request())
        rudely.gate.set()
        assert [wire.read_response().body for wire in (*holding, *slow)] == [b"open"] * 2 + [b"ok"] * 3
        assert [wire.read_response().body for wire in modest] == [b"ok"] * 200
        for wire in greedy:
            assert [wire.read_response().body for _ in range(1000)] == [b"ok"] * 1000
        for wire in (*slow, *modest, *greedy, *holding):
            wire.close()


def wait_quietly(wire: Wire, seconds: float) -> None:
    """Let time pass on a connection on which nothing may arrive."""
    wire.socket.settimeout(seconds)
    with pytest.raises(TimeoutError):
        wire.socket.recv(1)
    wire.socket.settimeout(30)


# Being read, called and answered in one tick of a loop


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_request_whose_body_breaks_before_its_application_is_called_is_not_called(kind: str, parser: str) -> None:
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app, http=parser, limit_concurrency=3) as running:
        with running.connect() as first:
            first.send(request("GET", "/held"))
            eventually(lambda: rudely.calls == ["/held"])
            broken = [running.connect() for _ in range(6)]
            for wire in broken:
                wire.send(CHUNKED_UPLOAD + b"3\r\nabc\r\nnonsense\r\n\r\n")
            last = running.connect()
            last.send(request())
            rudely.gate.set()
            assert first.read_response().body == b"open"
            assert [wire.read_response().status for wire in broken] == [400] * 6
            assert last.read_response().body == b"ok"
            assert rudely.calls.count("/upload") <= 3  # no more than had a place, and those without a client not even then
            for _ in range(10):  # every place has been given back
                assert ask(running) == b"ok"
            for wire in (*broken, last):
                wire.close()


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_clients_that_reset_with_a_place_or_in_line_give_it_back(kind: str) -> None:
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app, limit_concurrency=2) as running:
        with running.connect() as first:
            first.send(request("GET", "/held"))
            eventually(lambda: rudely.calls == ["/held"])
            for number in range(20):
                wire = running.connect()
                wire.send(GOOD * 3)
                if number % 2:
                    wire.reset()
                else:
                    wire.close()
            rudely.gate.set()
            assert first.read_response().body == b"open"
        eventually(lambda: ask(running) == b"ok", "the end of those who closed, and have their answers")
        for _ in range(5):
            assert ask(running) == b"ok"


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("kind", KINDS)
def test_stop_in_the_middle_of_pipelines_cuts_no_answer(kind: str, parser: str) -> None:
    """By an application that is called for one of them, while others have been read and not called yet."""
    rudely = Rudely(kind)
    with RunningEngine(kind, rudely.app, http=parser, timeout_graceful_shutdown=20) as running:
        wires = [running.connect() for _ in range(20)]
        with running.connect() as first:
            first.send(request("GET", "/held"))
            eventually(lambda: rudely.calls == ["/held"])

            def stop(path: str) -> None:
                if len(rudely.calls) >= 100:  # several threads may count at a time
                    running.engine.stop()

            rudely.on_call = stop  # before they are sent: with several threads one of them may answer them all at once
            for wire in wires:
                wire.send(request("GET", "/piece") * 30)
            rudely.gate.set()
            assert first.read_response().body == b"open"
            for wire in wires:
                responses = []
                while len(responses) < 30 and not (responses and responses[-1].closes):
                    responses.append(wire.read_response())
                assert {response.body for response in responses} == {PIECE}
                wire.expect_clean_end()
        for wire in wires:
            wire.close()
