"""Websockets over the ASGI engine: the handshake, messages both ways, every way to end, and what happens when a side is slow."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import queue
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support.engine import ASGI_KINDS, RunningEngine
from support.websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WebSocketWire,
    asking,
    closing,
    frame,
)  # fmt: skip
from support.wire import DEADLINE, eventually, request

from duckfast import _debug, asgi
from duckfast.exceptions import ApplicationError

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

ACCEPTED = {"type": "websocket.accept"}


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The debug build counts what the engines made."""
    yield
    if _debug.enabled:
        for phase in ("setup", "call"):
            caplog.get_records(phase).clear()  # tracebacks in them hold the frames of requests
        gc.collect()
        assert not any(_debug.alive().values()), _debug.alive()


class Socket:
    """The three ASGI arguments, and the messages that nearly every handler sends."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send

    async def accept(self, **more: Any) -> None:
        assert await self.receive() == {"type": "websocket.connect"}
        await self.send({**ACCEPTED, **more})

    async def text(self, text: str) -> None:
        await self.send({"type": "websocket.send", "text": text})

    async def close(self, **more: Any) -> None:
        await self.send({"type": "websocket.close", **more})


Handler = Callable[[Socket], Awaitable[Any]]


class Server:
    """A running engine whose websockets are given to `handler`; what it returns, or raises, comes out of `outcome()`."""

    def __init__(self, handler: Handler, kind: str, settings: dict[str, Any]) -> None:
        self.handler = handler
        self.outcomes: queue.Queue[Any] = queue.Queue()
        self.notes: queue.Queue[Any] = queue.Queue()
        self.gate = threading.Event()
        self.running = RunningEngine(kind, self.app, **settings)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"http"})
            return
        try:
            self.outcomes.put(await self.handler(Socket(scope, receive, send)))
        except BaseException as error:
            self.outcomes.put(error)
            raise

    def connect(self, target: str = "/", headers: tuple[tuple[str, str], ...] = (), **options: Any) -> WebSocketWire:
        return WebSocketWire(self.running.address, target, headers, **options)

    def outcome(self) -> Any:
        return self.outcomes.get(timeout=DEADLINE)

    def note(self) -> Any:
        return self.notes.get(timeout=DEADLINE)

    async def wait_for_gate(self) -> None:
        while not self.gate.is_set():
            await asyncio.sleep(0.002)


@contextlib.contextmanager
def serving(handler: Handler, kind: str = "uvloop", **settings: Any) -> Iterator[Server]:
    server = Server(handler, kind, settings)
    with server.running:
        yield server


async def echo(ws: Socket) -> Any:
    await ws.accept()
    while (message := await ws.receive())["type"] == "websocket.receive":
        await ws.send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
    return message


# The handshake ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_handshake_is_answered_and_messages_go_both_ways(kind: str) -> None:
    with serving(echo, kind) as server, server.connect() as wire:
        assert wire.response is not None
        assert wire.response.get("sec-websocket-accept") == ACCEPT == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert wire.response.get("upgrade") == b"websocket"
        assert wire.response.get("connection") == b"Upgrade"
        assert wire.response.get("sec-websocket-protocol") is None
        assert wire.response.get("sec-websocket-extensions") is None
        assert wire.response.get("content-length") is None and wire.response.get("transfer-encoding") is None
        for message in ("hello", "Grüße 🦆", "", b"", b"\x00\xff" * 40_000, "x" * 200_000, "é" * 50_000):
            assert wire.ask(message) == message
        wire.send(closing(1000))
        wire.expect_close(1000)
        wire.expect_clean_end()
        assert server.outcome() == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


def test_scope_is_that_of_a_websocket() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        await ws.close()
        return ws.scope

    headers = (("Sec-WebSocket-Protocol", "chat, superchat"), ("X-A", "1"), ("Sec-WebSocket-Protocol", "v2"))
    with serving(handler, root_path="/app") as server, server.connect("/a%20b?c=d", headers) as wire:
        scope = server.outcome()
        assert wire.read_frame().code == 1000
        assert scope["type"] == "websocket"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/app/a b", b"/a%20b", b"c=d")
        assert (scope["scheme"], scope["http_version"], scope["root_path"]) == ("ws", "1.1", "/app")
        assert scope["subprotocols"] == ["chat", "superchat", "v2"]
        assert scope["extensions"] == {"websocket.http.response": {}}
        assert scope["server"] == server.running.address and scope["client"] == wire.socket.getsockname()
        assert "method" not in scope
        assert (b"x-a", b"1") in scope["headers"]


def test_proxy_is_believed_as_for_http() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        return ws.scope

    headers = (("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "203.0.113.9"))
    with serving(handler) as server, server.connect(headers=headers):
        scope = server.outcome()
        assert (scope["scheme"], scope["client"]) == ("wss", ("203.0.113.9", 0))


@pytest.mark.parametrize("changed", [{"version": "8"}, {"version": "12, 13"}, {"without": "version"}])
def test_other_version_is_told_which_one_there_is(changed: dict[str, str]) -> None:
    with serving(echo) as server, server.connect(ask=False) as wire:
        wire.send(asking(**changed))  # type: ignore[arg-type]
        response = wire.read_response()
        assert response.status == 426
        assert response.get("sec-websocket-version") == b"13"
        assert response.get("upgrade") == b"websocket"
        assert response.closes
        wire.expect_end()


@pytest.mark.parametrize("key", ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTE=", "!" * 24])
def test_bad_key_is_refused(key: str) -> None:
    with serving(echo) as server, server.connect(ask=False) as wire:
        wire.send(asking(key=key))
        assert wire.read_response().status == 400


def test_two_keys_and_broken_lists_are_refused() -> None:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    extra = [("Sec-WebSocket-Key", key), ("Sec-WebSocket-Protocol", "a b"), ("Sec-WebSocket-Extensions", "a=b")]
    with serving(echo) as server:
        for field in extra:
            with server.connect(ask=False) as wire:
                wire.send(asking(headers=(field,)))
                assert wire.read_response().status == 400
        with server.connect(ask=False) as wire:
            wire.send(asking(without="key"))
            assert wire.read_response().status == 400


def test_tokens_are_found_in_lists_and_in_any_case() -> None:
    with serving(echo) as server, server.connect(ask=False) as wire:
        wire.send(asking(upgrade="h2c, WebSocket", connection="keep-alive, UPGRADE"))
        assert wire.read_head().status == 101


@pytest.mark.parametrize(
    "raw",
    [
        asking(connection="keep-alive"),
        asking(upgrade="h2c"),
        asking(without="upgrade"),
        asking().replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
        asking().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_what_does_not_ask_for_a_websocket_is_an_ordinary_request(raw: bytes) -> None:
    with serving(echo) as server, server.connect(ask=False) as wire:
        wire.send(raw)
        assert wire.read_response().body == b"http"


def test_without_websockets_everything_is_an_ordinary_request() -> None:
    with serving(echo, ws="none") as server, server.connect(ask=False) as wire:
        wire.send(asking() + request())
        assert [wire.read_response().body for _ in range(2)] == [b"http", b"http"]


def test_both_readers_serve_websockets() -> None:
    with serving(echo, http="httptools") as server, server.connect(early=frame(TEXT, b"early")) as wire:
        assert wire.read_message() == "early"
        assert wire.ask("hello") == "hello"


@pytest.mark.parametrize("waits", [False, True])
def test_bytes_behind_the_request_are_frames(waits: bool) -> None:
    async def handler(ws: Socket) -> Any:
        if waits:
            await asyncio.sleep(0)
        return await echo(ws)

    early = frame(TEXT, b"one") + frame(TEXT, b"two") + frame(BINARY, b"x" * 100_000)
    with serving(handler) as server, server.connect(early=early[:-10]) as wire:
        wire.send(early[-10:])
        assert [wire.read_message() for _ in range(3)] == ["one", "two", b"x" * 100_000]


def test_application_chooses_a_subprotocol_and_adds_fields() -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept(subprotocol="v2", headers=[(b"Set-Cookie", b"a=1"), [b"x-b", b"2"], (b"set-cookie", b"c=3")])
        await ws.text("ready")

    with serving(handler) as server, server.connect(headers=(("Sec-WebSocket-Protocol", "v1,v2"),)) as wire:
        assert wire.response is not None
        assert wire.response.get("sec-websocket-protocol") == b"v2"
        assert wire.response.all("set-cookie") == [b"a=1", b"c=3"]
        assert wire.response.get("x-b") == b"2"
        assert wire.read_message() == "ready"


BAD_ACCEPTS: list[dict[str, Any]] = [
    {"subprotocol": "other"},
    {"headers": [(b"sec-websocket-protocol", b"v1")]},
    {"headers": [(b"Sec-WebSocket-Accept", b"v1")]},
    {"headers": [(b"x", b"a\r\nb: c")]},
    {"headers": [(b"x y", b"a")]},
    {"headers": [("x", "y")]},
]


@pytest.mark.parametrize("bad", BAD_ACCEPTS)
def test_bad_accept_raises_and_can_be_mended(bad: dict[str, Any]) -> None:
    async def handler(ws: Socket) -> None:
        with pytest.raises(ApplicationError):
            await ws.accept(**bad)
        await ws.send(ACCEPTED)
        await ws.text("ready")

    with serving(handler) as server, server.connect(headers=(("Sec-WebSocket-Protocol", "v1"),)) as wire:
        assert wire.read_message() == "ready"


def test_close_before_accept_is_a_403_and_nothing_behind_it_is_served() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.receive()
        await ws.close()
        with pytest.raises(OSError):
            await ws.text("too late")
        return await ws.receive()

    with serving(handler) as server, server.connect(ask=False) as wire:
        wire.send(asking() + request())
        response = wire.read_response()
        assert (response.status, response.closes) == (403, True)
        wire.expect_end()
        assert server.outcome() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_denial_response_is_the_applications_own() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.receive()
        start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]}
        await ws.send(start)
        with pytest.raises(ApplicationError):
            await ws.send(ACCEPTED)
        with pytest.raises(ApplicationError):
            await ws.text("no")
        await ws.send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await ws.send({"type": "websocket.http.response.body", "body": b"are you?"})
        return (await ws.receive())["type"]

    with serving(handler) as server, server.connect(ask=False) as wire:
        wire.send(asking() + request())
        response = wire.read_response()
        assert (response.status, response.get("x-why"), response.body) == (401, b"because", b"who are you?")
        assert response.closes
        wire.expect_end()
        assert server.outcome() == "websocket.disconnect"


@pytest.mark.parametrize("fails", [True, False])
def test_application_that_does_not_answer_the_handshake_is_a_500(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: Socket) -> None:
        await ws.receive()
        if fails:
            raise ValueError("broken")

    with serving(handler) as server, server.connect(ask=False) as wire:
        wire.send(asking("/where"))
        assert wire.read_response().status == 500
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "/where" in record.getMessage() and bool(record.exc_info) is fails


def test_client_that_leaves_in_the_handshake_is_told_to_the_application() -> None:
    async def handler(ws: Socket) -> Any:
        assert (await ws.receive())["type"] == "websocket.connect"
        server.notes.put("connected")
        message = await ws.receive()
        with pytest.raises(OSError):
            await ws.send(ACCEPTED)
        return message["code"]

    with serving(handler) as server, server.connect(ask=False) as wire:
        wire.send(asking())
        server.note()
        wire.reset()
        assert server.outcome() == 1006


# Messages --------------------------------------------------------------------------------------------------------------


def test_received_messages_have_one_of_text_and_bytes() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        return [await ws.receive() for _ in range(3)]

    with serving(handler) as server, server.connect() as wire:
        wire.send(frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"b"))
        wire.send(frame(BINARY, b"c") + frame(TEXT))
        assert server.outcome() == [
            {"type": "websocket.receive", "text": "ab", "bytes": None},
            {"type": "websocket.receive", "text": None, "bytes": b"c"},
            {"type": "websocket.receive", "text": "", "bytes": None},
        ]
        answer = wire.read_frame()
        assert (answer.opcode, answer.payload) == (PONG, b"p")


def test_ping_is_answered_while_the_application_works() -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        await server.wait_for_gate()

    with serving(handler) as server, server.connect() as wire:
        wire.send(frame(PING) + frame(PING, b"x" * 125) + frame(PONG, b"unasked"))
        assert [wire.read_frame().payload for _ in range(2)] == [b"", b"x" * 125]
        server.gate.set()
        wire.expect_close(1000)


BAD_SENDS: list[Any] = [
    "no dict",
    {"type": "websocket.send"},
    {"type": "websocket.send", "text": None, "bytes": None},
    {"type": "websocket.send", "text": "a", "bytes": b"b"},
    {"type": "websocket.send", "text": b"a"},
    {"type": "websocket.send", "bytes": "a"},
    {"type": "websocket.close", "code": 1005},
    {"type": "websocket.close", "code": 99},
    {"type": "websocket.close", "code": "1000"},
    {"type": "websocket.close", "code": 1000, "reason": b"bytes"},
    {"type": "websocket.accept"},
    {"type": "websocket.unknown"},
    {"type": "http.response.start", "status": 200},
    {"type": "websocket.http.response.start", "status": 200},
]


@pytest.mark.parametrize("bad", BAD_SENDS, ids=str)
def test_bad_message_raises_out_of_send_and_the_websocket_goes_on(bad: Any) -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        with pytest.raises(ApplicationError):
            await ws.send(bad)
        await ws.text("still here")

    with serving(handler) as server, server.connect() as wire:
        assert wire.read_message() == "still here"


def test_send_before_accept_raises() -> None:
    async def handler(ws: Socket) -> None:
        await ws.receive()
        with pytest.raises(ApplicationError):
            await ws.text("early")
        await ws.send(ACCEPTED)

    with serving(handler) as server, server.connect() as wire:
        wire.expect_close(1000)


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc")], ids=["bytearray", "memoryview"])
def test_any_bytes_can_be_sent(data: Any) -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        await ws.send({"type": "websocket.send", "bytes": data})

    with serving(handler) as server, server.connect() as wire:
        assert wire.read_message() == b"abc"


def test_many_small_messages_keep_their_order() -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        await asyncio.gather(*(ws.text(str(number)) for number in range(1000)))

    with serving(handler) as server, server.connect() as wire:
        assert [wire.read_message() for _ in range(1000)] == [str(number) for number in range(1000)]


# Every way to end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "code", "reason", "answer"),
    [
        (frame(CLOSE), 1005, "", 1005),
        (closing(1000), 1000, "", 1000),
        (closing(4321, "tschüß"), 4321, "tschüß", 4321),
        (frame(TEXT, b"a", rsv=1), 1002, "a reserved bit is set", 1002),
        (frame(TEXT, b"\xff"), 1007, "text is not UTF-8", 1007),
        (frame(BINARY, b"x" * 101), 1009, "the message is too large", 1009),
    ],
)
def test_end_by_the_client_is_answered_and_told(last: bytes, code: int, reason: str, answer: int) -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        messages = [await ws.receive() for _ in range(3)]
        with pytest.raises(OSError):
            await ws.text("too late")
        with pytest.raises(OSError):
            await ws.close()
        return messages

    with serving(handler, ws_max_size=100) as server, server.connect() as wire:
        wire.send(frame(TEXT, b"before") + last + frame(TEXT, b"behind"))
        assert wire.expect_close(answer).reason == (reason if code < 1005 and code != 1000 or 1005 < code < 3000 else "")
        wire.expect_end()
        first, second, third = server.outcome()
        assert first["text"] == "before"
        assert second == third == {"type": "websocket.disconnect", "code": code, "reason": reason}


@pytest.mark.parametrize("leave", ["fin", "reset"])
def test_client_that_leaves_without_a_word_is_1006(leave: str) -> None:
    with serving(echo) as server, server.connect() as wire:
        assert wire.ask("hello") == "hello"
        if leave == "fin":
            wire.half_close()
            wire.expect_clean_end()
        else:
            wire.reset()
        assert server.outcome() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_messages_before_the_end_are_still_received() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        await server.wait_for_gate()
        return [(await ws.receive()).get("text") for _ in range(4)]

    with serving(handler) as server, server.connect() as wire:
        wire.send(b"".join(frame(TEXT, text) for text in (b"a", b"b", b"c")) + closing(1000))
        wire.expect_close(1000)
        server.gate.set()
        assert server.outcome() == ["a", "b", "c", None]


@pytest.mark.parametrize(("more", "code", "reason"), [({}, 1000, ""), ({"code": 4000, "reason": "enough"}, 4000, "enough")])
def test_application_closes(more: dict[str, Any], code: int, reason: str) -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        await ws.text("last")
        await ws.close(**more)
        with pytest.raises(OSError):
            await ws.text("too late")
        return await ws.receive()

    with serving(handler) as server, server.connect() as wire:
        assert wire.read_message() == "last"
        assert wire.expect_close(code).reason == reason
        wire.say("crossing")
        wire.send(closing(code))
        wire.expect_clean_end()
        assert server.outcome() == {"type": "websocket.disconnect", "code": code, "reason": reason}


def test_application_that_returns_has_closed() -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        await ws.text("bye")

    with serving(handler) as server, server.connect() as wire:
        assert wire.read_message() == "bye"
        wire.expect_close(1000)
        wire.send(closing(1000))
        wire.expect_clean_end()


def test_application_that_fails_is_1011_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        raise ValueError("broken")

    with serving(handler) as server, server.connect("/where") as wire:
        assert wire.expect_close(1011).reason == ""
        wire.send(closing(1011))
        wire.expect_end()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "the application failed on websocket '/where'"
    assert record.exc_info and isinstance(record.exc_info[1], ValueError)


def test_send_after_the_client_left_is_no_error_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        await ws.receive()
        await ws.text("too late")

    with serving(handler) as server, server.connect() as wire:
        wire.send(closing(1000))
        wire.expect_close(1000)
        assert isinstance(server.outcome(), OSError)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_client_that_does_not_answer_a_close_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "WEBSOCKET_FAREWELL", 0.05)

    async def handler(ws: Socket) -> None:
        await ws.accept()

    with serving(handler, timeout_drain=0.05) as server, server.connect() as wire:
        wire.expect_close(1000)
        wire.expect_end()


@pytest.mark.parametrize("kind", ASGI_KINDS)
@pytest.mark.parametrize("end", ["stop", "retire"])
def test_end_of_the_engine_is_1012_for_everybody(kind: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "WEBSOCKET_FAREWELL", 0.2)
    with serving(echo, kind, timeout_drain=0.2) as server, server.connect() as polite, server.connect() as deaf:
        assert polite.ask("hello") == deaf.ask("hello") == "hello"
        getattr(server.running.engine, end)()
        polite.expect_close(1012)
        polite.send(closing(1012))
        polite.expect_clean_end()
        deaf.expect_close(1012)
        server.running.wait()
        assert [server.outcome()["code"] for _ in range(2)] == [1012, 1012]


def test_stop_does_not_wait_for_an_application_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        await asyncio.Event().wait()

    with serving(handler, timeout_graceful_shutdown=0.1) as server, server.connect() as wire:
        server.running.engine.stop()
        wire.expect_close(1012)
        server.running.wait()
        assert isinstance(server.outcome(), asyncio.CancelledError)


def test_websocket_accepted_during_the_end_is_closed_with_1012() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.receive()
        server.notes.put("connected")
        await server.wait_for_gate()
        await ws.send(ACCEPTED)
        return await ws.receive()

    with serving(handler) as server, server.connect(ask=False) as wire:
        wire.send(asking())
        server.note()
        server.running.engine.stop()
        server.running.wait_until_refused()
        server.gate.set()
        assert wire.read_head().status == 101
        wire.expect_close(1012)
        wire.send(closing(1012))
        assert server.outcome()["code"] == 1012


# Slow sides ------------------------------------------------------------------------------------------------------------


def flood(wire: WebSocketWire, data: bytes) -> int:
    """Sends again and again until nothing is taken any more; how often that was."""
    wire.socket.settimeout(0.3)
    number = 0
    with contextlib.suppress(TimeoutError, socket.timeout):
        while True:
            view = memoryview(data)
            while view:
                view = view[wire.socket.send(view) :]
            number += 1
            assert number * len(data) < 1 << 28, "the server takes everything"
    wire.socket.settimeout(DEADLINE)
    wire.rest = bytes(view)  # type: ignore[attr-defined]
    return number


@pytest.mark.parametrize("size", [10, 50_000])
def test_client_is_not_read_while_the_application_is_behind_and_loses_nothing(size: int) -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        await server.wait_for_gate()
        received = 0
        while (message := await ws.receive())["type"] == "websocket.receive":
            assert message["bytes"] == b"x" * size
            received += 1
        return received

    with serving(handler, ws_max_queue=4, ws_per_message_deflate=False) as server, server.connect() as wire:
        piece = frame(BINARY, b"x" * size) * (1000 if size < 100 else 1)
        number = flood(wire, piece)
        server.gate.set()
        wire.send(wire.rest + closing(1000))  # type: ignore[attr-defined]
        wire.expect_close(1000)
        assert server.outcome() == (number + 1) * (1000 if size < 100 else 1)


def test_ping_waits_behind_unread_messages_without_harm() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        await server.wait_for_gate()
        return await ws.receive()

    with serving(handler, ws_max_queue=1, ws_ping_interval=0.05, ws_ping_timeout=0.05) as server, server.connect() as wire:
        wire.send(frame(TEXT, b"a") * 5)
        assert [wire.read_frame().opcode for _ in range(4)] == [PING] * 4
        server.gate.set()
        assert server.outcome()["text"] == "a"


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_sender_waits_for_a_slow_client_and_nothing_is_lost(kind: str) -> None:
    message = "x" * 50_000

    async def handler(ws: Socket) -> int:
        await ws.accept()
        for number in range(300):
            server.notes.put(number)
            await ws.text(f"{number} {message}")
        return number

    with serving(handler, kind) as server, server.connect(receive_buffer=4096) as wire:
        stalled = -1
        while (now := server.notes.qsize()) != stalled or now == 0:
            stalled = now
            with server.running.connect() as other:
                for _ in range(30):
                    other.send(request())
                    assert other.read_response().body == b"http"
        assert stalled < 300
        for number in range(300):
            assert wire.read_message() == f"{number} {message}"
        assert server.outcome() == 299


def test_senders_of_a_slow_client_keep_their_order_and_can_be_cancelled() -> None:
    async def crowd(ws: Socket) -> Any:
        await ws.accept()
        first = asyncio.create_task(ws.send({"type": "websocket.send", "bytes": bytes(8_000_000)}))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        tasks = [asyncio.ensure_future(ws.text(str(number))) for number in range(20)]
        await asyncio.sleep(0)
        assert not first.done() and not any(task.done() for task in tasks)
        tasks[7].cancel()
        await asyncio.sleep(0)
        server.notes.put("go")
        await asyncio.wait([first, *tasks])
        return [number for number, task in enumerate(tasks) if task.cancelled()]

    with serving(crowd) as server, server.connect(receive_buffer=4096) as wire:
        server.note()
        assert wire.read_message() == bytes(8_000_000)
        assert [wire.read_message() for _ in range(19)] == [str(number) for number in range(20) if number != 7]
        assert server.outcome() == [7]


def test_last_ping_is_answered_once_there_is_room() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        await ws.send({"type": "websocket.send", "bytes": bytes(8_000_000)})
        return (await ws.receive())["code"]

    with serving(handler) as server, server.connect(receive_buffer=4096) as wire:
        head = wire._read_exactly(10)
        assert head[0] == 0x82
        wire.send(b"".join(frame(PING, b"%d" % number) for number in range(1000)))
        assert not any(wire._read_exactly(8_000_000))
        answers = [wire.read_frame()]
        while answers[-1].payload != b"999":
            answers.append(wire.read_frame())
        assert all(answer.opcode == PONG for answer in answers)
        wire.send(closing(1000))
        wire.expect_close(1000)
        assert server.outcome() == 1000


def test_client_that_never_reads_is_left_after_the_write_timeout() -> None:
    async def handler(ws: Socket) -> Any:
        await ws.accept()
        with pytest.raises(OSError):
            while True:
                await ws.send({"type": "websocket.send", "bytes": bytes(1_000_000)})
        return await ws.receive()

    with serving(handler, timeout_write=0.1) as server, server.connect(receive_buffer=4096):
        assert server.outcome() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


# Deadlines and limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_client_is_pinged_and_one_that_answers_stays(kind: str) -> None:
    settings = {"ws_ping_interval": 0.02, "ws_ping_timeout": 5, "timeout_keep_alive": 0.01, "timeout_request": 0.05}
    with serving(echo, kind, **settings) as server, server.connect() as wire:
        for _ in range(10):
            ping = wire.read_frame()
            assert ping.opcode == PING
            wire.send(frame(PONG, ping.payload))
        wire.say("hello")
        answer = wire.read_frame()
        while answer.opcode == PING:
            answer = wire.read_frame()
        assert answer.payload == b"hello"


def test_client_that_does_not_answer_a_ping_is_left() -> None:
    with serving(echo, ws_ping_interval=0.02, ws_ping_timeout=0.05, timeout_drain=0.05) as server, server.connect() as wire:
        assert wire.read_frame().opcode == PING
        wire.expect_close(1011)
        wire.expect_end()
        assert server.outcome() == {"type": "websocket.disconnect", "code": 1006, "reason": "no answer to a ping"}


def test_without_a_ping_timeout_pings_go_on() -> None:
    with serving(echo, ws_ping_interval=0.02, ws_ping_timeout=None) as server, server.connect() as wire:
        assert [wire.read_frame().opcode for _ in range(3)] == [PING] * 3
        wire.send(closing(1000))
        assert server.outcome()["code"] == 1000


def test_open_websocket_holds_no_place_of_the_concurrency_limit() -> None:
    with serving(echo, limit_concurrency=1, limit_queue=0) as server, server.connect() as one, server.connect() as two:
        assert one.ask("hello") == two.ask("hello") == "hello"
        with server.running.connect() as wire:
            wire.send(request())
            assert wire.read_response().body == b"http"


def test_handshake_that_takes_too_long_is_a_504() -> None:
    async def handler(ws: Socket) -> None:
        await asyncio.Event().wait()

    with serving(handler, timeout_request=0.05) as server, server.connect(ask=False) as wire:
        wire.send(asking())
        assert wire.read_response().status == 504
        assert isinstance(server.outcome(), asyncio.CancelledError)


def test_websockets_in_flight_are_those_whose_application_works() -> None:
    async def handler(ws: Socket) -> None:
        await ws.accept()
        await ws.receive()
        server.notes.put("working")
        await server.wait_for_gate()

    with serving(handler) as server, server.connect("/idle"), server.connect("/busy") as busy:
        eventually(lambda: server.running.engine.in_flight() == [], "two websockets that wait for their clients")
        busy.say("work")
        server.note()
        ((method, path, _),) = server.running.engine.in_flight()
        assert (method, path) == ("WEBSOCKET", "/busy")
        server.gate.set()


# permessage-deflate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offer", "answer"), [
    ("permessage-deflate", b"permessage-deflate; server_max_window_bits=12"),
    (
        "permessage-deflate; client_max_window_bits",
        b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
    ),
    (
        "foo, permessage-deflate; bar, permessage-deflate; server_max_window_bits=9",
        b"permessage-deflate; server_max_window_bits=9",
    ),
    ("permessage-deflate; server_max_window_bits=7", None),
    ("permessage-bzip2", None),
])  # fmt: skip
def test_compression_is_agreed_in_the_handshake(offer: str, answer: bytes | None) -> None:
    with serving(echo) as server, server.connect(headers=(("Sec-WebSocket-Extensions", offer),)) as wire:
        assert wire.response is not None
        assert wire.response.get("sec-websocket-extensions") == answer
        wire.say("quack " * 1000)
        assert wire.read_frame().rsv == (0 if answer is None else 4)


def test_compression_can_be_switched_off() -> None:
    header = (("Sec-WebSocket-Extensions", "permessage-deflate"),)
    with serving(echo, ws_per_message_deflate=False) as server, server.connect(headers=header) as wire:
        assert wire.response is not None and wire.response.get("sec-websocket-extensions") is None
        wire.send(frame(TEXT, b"a", rsv=4))
        wire.expect_close(1002)


def test_idle_websockets_give_up_their_streams() -> None:
    import websockets.sync.client

    with serving(echo, ws_ping_interval=0.05) as server:
        url = f"ws://127.0.0.1:{server.running.address[1]}/"
        with websockets.sync.client.connect(url) as one, websockets.sync.client.connect(url) as two:
            for _ in range(3):
                for client in (one, two):
                    client.send("quack " * 1000)
                    assert client.recv() == "quack " * 1000
                if _debug.enabled:
                    eventually(lambda: _debug.alive()["stream"] == 0, "websockets without streams")
