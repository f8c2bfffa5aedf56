"""Connections that leave an engine, open, and come back: taken by an app, diverted on their way, given from elsewhere."""

from __future__ import annotations

import contextlib
import gc
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import simple_websocket
from support.authority import Authority
from support.engine import ASGI_KINDS, KINDS, WSGI_KINDS, RunningEngine
from support.wire import DEADLINE, eventually, request

from duckfast import _debug
from duckfast._client import ClientSocket
from duckfast.engine import Diversions

UPGRADE = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
           ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]  # fmt: skip
TLS = pytest.mark.parametrize("tls", ["", "descriptor", "memory"], ids=["plain", "descriptor", "memory"])
Settings = dict[str, Any]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever leaves an engine is gone in the end: the debug build counts."""
    before = _debug.alive()
    yield
    gc.collect()

    def back() -> bool:
        gc.collect()
        return all(count <= before[kind] for kind, count in _debug.alive().items())

    eventually(back, "all objects to be gone")


@pytest.fixture
def tls_settings(tls: str, authority: Authority) -> Settings:
    if not tls:
        return {}
    certificate, key = authority.server("localhost", "127.0.0.1")
    return {"ssl_certfile": [certificate], "ssl_keyfile": [key], "ssl_io": tls}


@pytest.fixture
def client_tls(tls: str, authority: Authority) -> ssl.SSLContext | None:
    return authority.client() if tls else None


def echo(client: ClientSocket) -> None:
    """Says hello, then returns what it is sent, until the end."""
    client.settimeout(DEADLINE)
    client.sendall(b"hello\n")
    while data := client.recv(65536):
        client.sendall(data)
    client.close()


def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/take":
        echo(start_response.__self__.take())
        return [b"ignored"]
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/take":
        client = send.__self__.take()
        threading.Thread(target=echo, args=(client,), daemon=True).start()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def app_of(kind: str) -> Callable[..., Any]:
    return asgi_app if kind in ASGI_KINDS else wsgi_app


# Taken by the app ---------------------------------------------------------------------------------------------------------


@TLS
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_the_app_takes_is_its_own_with_the_bytes_read_ahead(
    kind: str, tls_settings: Settings, client_tls: ssl.SSLContext | None
) -> None:
    with RunningEngine(kind, app_of(kind), **tls_settings) as running, running.connect(tls=client_tls) as wire:
        wire.send(request("GET", "/take") + b"already here, ")
        assert wire.read_exactly(6) == b"hello\n"
        assert wire.read_exactly(14) == b"already here, "
        wire.send(b"and more")
        assert wire.read_exactly(8) == b"and more"
        piece = bytes(range(256)) * 64
        for _ in range(16):
            wire.send(piece)
            assert wire.read_exactly(len(piece)) == piece


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_can_be_taken_after_earlier_requests(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with RunningEngine(kind, app_of(kind)) as running, running.connect() as wire:
        for path in ("/a", "/b"):
            wire.send(request("GET", path))
            assert wire.read_response().text == path
        wire.send(request("GET", "/take"))
        assert wire.read_exactly(6) == b"hello\n"
    assert "failed" not in caplog.text  # what is sent or returned after it is ignored


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_too_late_to_take_a_connection_when_the_response_has_begun(kind: str) -> None:
    told: queue.Queue[str] = queue.Queue()

    def late(exchange: Any) -> None:
        try:
            exchange.take()
        except OSError as error:
            told.put(str(error))

    def wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        yield b"a"
        late(start_response.__self__)
        yield b"b"

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a" * 1, "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
        late(send.__self__)

    with RunningEngine(kind, asgi if kind in ASGI_KINDS else wsgi) as running, running.connect() as wire:
        wire.send(request("GET", "/"))
        assert wire.read_response().text == "ab"
        assert "begun" in told.get(timeout=DEADLINE) or kind in ASGI_KINDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one thread"])  # where it would wait for the app itself
def test_a_stop_waits_for_connections_outside_and_then_ends_them(kind: str) -> None:
    ended = threading.Event()
    taken: list[ClientSocket] = []

    def hold(client: ClientSocket) -> None:
        taken.append(client)
        client.sendall(b"held\n")
        assert client.recv(10) == b""
        ended.set()
        client.close()

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        threading.Thread(target=hold, args=(send.__self__.take(),), daemon=True).start()

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        hold(start_response.__self__.take())
        return []

    with RunningEngine(
        kind, asgi if kind in ASGI_KINDS else wsgi, timeout_graceful_shutdown=0.2
    ) as running, running.connect() as wire:
        wire.send(request("GET", "/"))
        assert wire.read_exactly(5) == b"held\n"
        running.engine.stop()
        assert ended.wait(DEADLINE)
        taken.clear()


# The socket in the environ ------------------------------------------------------------------------------------------------


def websocket_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Echoes over the WebSocket library that threaded WSGI frameworks use; other requests get a response."""
    if environ["PATH_INFO"] == "/refuse":
        start_response("403 Forbidden", [])
        return [b"no"]
    if "gunicorn.socket" not in environ:
        start_response("200 OK", [])
        return [b"plain"]
    ws = simple_websocket.Server.accept(environ)
    with contextlib.suppress(simple_websocket.ConnectionClosed):
        while True:
            message = ws.receive()
            ws.send("x" * 70_000 if message == "much" else message)
    start_response("200 OK", [])
    return [b"too late for anybody"]


def websocket(running: RunningEngine, context: ssl.SSLContext | None) -> simple_websocket.Client:
    scheme = "wss" if context else "ws"
    return simple_websocket.Client.connect(f"{scheme}://127.0.0.1:{running.address[1]}/", ssl_context=context)


@TLS
@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_a_threaded_websocket_library_takes_the_socket_over(
    kind: str, tls_settings: Settings, client_tls: ssl.SSLContext | None
) -> None:
    with RunningEngine(kind, websocket_app, **tls_settings) as running:
        client = websocket(running, client_tls)
        for message, answer in [("text", "text"), (b"bytes", b"bytes"), ("much", "x" * 70_000), ("text", "text")]:
            client.send(message)
            assert client.receive(DEADLINE) == answer
        client.close()


@pytest.mark.parametrize("kind", ["threads", "free threads"])
def test_websockets_do_not_starve_other_requests(kind: str) -> None:
    with RunningEngine(kind, websocket_app, threads=2) as running:
        clients = [websocket(running, None) for _ in range(6)]
        for number, client in enumerate(clients):
            client.send(f"number {number}")
            assert client.receive(DEADLINE) == f"number {number}"
        with running.connect() as wire:
            for _ in range(3):
                wire.send(request("GET", "/"))
                assert wire.read_response().text == "plain"
        for number, client in enumerate(clients):
            client.send(f"again {number}")
            assert client.receive(DEADLINE) == f"again {number}"
            client.close()


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_a_stop_does_not_wait_for_websockets(kind: str) -> None:
    with RunningEngine(kind, websocket_app) as running:
        client = websocket(running, None)
        client.send("here")
        assert client.receive(DEADLINE) == "here"
        running.engine.stop()
        running.wait()
        with pytest.raises(simple_websocket.ConnectionClosed):
            client.receive(DEADLINE)


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_an_app_that_does_not_touch_the_socket_answers_as_usual(kind: str) -> None:
    with RunningEngine(kind, websocket_app) as running, running.connect() as wire:
        wire.send(request("GET", "/refuse", UPGRADE))
        answer = wire.read_response()
        assert (answer.status, answer.text) == (403, "no")
        wire.send(request("GET", "/"))
        assert wire.read_response().text == "plain"


def test_frames_that_came_with_the_handshake_are_read_first() -> None:
    frame = b"\x81\x84\0\0\0\0same"  # masked with zeros
    with RunningEngine("threads", websocket_app) as running, running.connect() as wire:
        wire.send(request("GET", "/", UPGRADE) + frame)
        assert wire.read_head().status == 101
        assert wire.read_exactly(6) == b"\x81\x04same"


def test_an_app_may_say_by_stop_iteration_that_there_is_no_response(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        sock = environ["gunicorn.socket"].dup()
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        sock.close()
        raise StopIteration

    with RunningEngine("threads", app) as running, running.connect() as wire:
        wire.send(request("GET", "/", UPGRADE))
        assert wire.read_head().status == 101
        wire.expect_end()
    assert "raised" not in caplog.text


# Diverted and given -------------------------------------------------------------------------------------------------------


@TLS
@pytest.mark.parametrize("kind", KINDS)
def test_new_and_idle_connections_are_diverted_and_given_back(
    kind: str, tls_settings: Settings, client_tls: ssl.SSLContext | None
) -> None:
    seen: queue.Queue[tuple[str, bool]] = queue.Queue()

    def connected(client: ClientSocket) -> None:
        seen.put(("connected", client.encrypted))
        assert running.engine.give(client)
        assert client.fileno() == -1

    def idle(client: ClientSocket) -> None:
        seen.put(("idle", client.encrypted))
        assert running.engine.give(client, idle=True)

    keywords = {"diversions": Diversions(connected, idle)}
    with RunningEngine(kind, app_of(kind), keywords=keywords, **tls_settings) as running:
        with running.connect(tls=client_tls) as wire:
            for path in ("/1", "/2", "/3"):
                wire.send(request("GET", path))
                assert wire.read_response().text == path
                if path == "/1":
                    assert seen.get(timeout=DEADLINE) == ("connected", bool(client_tls))
                assert seen.get(timeout=DEADLINE) == ("idle", bool(client_tls))
            wire.send(request("GET", "/4") + request("GET", "/5"))
            assert [wire.read_response().text for _ in range(2)] == ["/4", "/5"]


@pytest.mark.parametrize("kind", KINDS)
def test_connections_whose_head_is_late_are_diverted(kind: str) -> None:
    late: queue.Queue[bytes] = queue.Queue()

    def timed_out(client: ClientSocket) -> None:
        late.put(client.read_ahead)
        client.close()

    keywords = {"diversions": Diversions(timed_out=timed_out)}
    with RunningEngine(kind, app_of(kind), keywords=keywords, timeout_request_headers=0.05) as running:
        with running.connect() as wire:
            wire.send(b"GET / HT")
            assert late.get(timeout=DEADLINE) == b"GET / HT"
            wire.expect_end()


@TLS
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_was_accepted_elsewhere_is_served(
    kind: str, tls_settings: Settings, client_tls: ssl.SSLContext | None
) -> None:
    with RunningEngine(kind, app_of(kind), keywords={"diversions": Diversions(accepted=True)}, **tls_settings) as running:
        listener = running.sockets[0].dup()
        accepted = threading.Thread(target=lambda: running.engine.give(accept(listener)))
        accepted.start()
        with running.connect(tls=client_tls) as wire:
            accepted.join(DEADLINE)
            wire.send(request("GET", "/given"))
            assert wire.read_response().text == "/given"
        listener.close()


def accept(listener: socket.socket) -> socket.socket:
    listener.settimeout(DEADLINE)
    return listener.accept()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_end_of_a_pair_of_sockets_is_served(kind: str) -> None:
    ours, theirs = socket.socketpair()
    with RunningEngine(kind, app_of(kind)) as running, ours:
        assert running.engine.give(ClientSocket(theirs))
        ours.sendall(request("GET", "/pair", [("Connection", "close")]))
        assert b"".join(iter(lambda: ours.recv(65536), b"")).endswith(b"/pair")


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_is_over_closes_what_it_is_given(kind: str) -> None:
    with RunningEngine(kind, app_of(kind)) as running:
        pass
    ours, theirs = socket.socketpair()
    with ours:
        assert running.engine.give(ClientSocket(theirs)) is False
        assert ours.recv(1) == b""
    del running


# The socket itself --------------------------------------------------------------------------------------------------------


def pair() -> tuple[socket.socket, ClientSocket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE)
    return ours, ClientSocket(theirs)


def test_it_takes_a_sockets_place() -> None:
    ours, client = pair()
    with ours, client:
        ours.sendall(b"abcdef")
        assert client.recv(2) == b"ab"
        buffer = bytearray(10)
        assert client.recv_into(buffer, 3) == 3
        assert buffer[:3] == b"cde"
        assert client.recv(100) == b"f"
        assert client.send(b"xy") == 2
        client.sendall(memoryview(b"z"))
        assert ours.recv(10) == b"xyz"
        assert client.family == socket.AF_UNIX
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        assert client.dup() is client
        assert not client.encrypted
        assert client.version() is None
        ours.close()
        assert client.recv(1) == b""


def test_timeouts_are_those_of_a_socket() -> None:
    ours, client = pair()
    with ours, client:
        assert client.gettimeout() is None
        client.settimeout(0.01)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        with pytest.raises(TimeoutError):
            client.settimeout(0.01)
            client.sendall(b"x" * 10_000_000)
        with pytest.raises(ValueError, match="out of range"):
            client.settimeout(-1)


def test_closing_wakes_a_thread_that_reads() -> None:
    ours, client = pair()
    got: queue.Queue[Any] = queue.Queue()
    reading = threading.Event()

    def read() -> None:
        reading.set()
        try:
            got.put(client.recv(1))
        except OSError as error:
            got.put(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(DEADLINE)
    client.close()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    found = got.get()
    assert found == b"" or isinstance(found, OSError)
    assert client.fileno() == -1
    with pytest.raises(OSError, match="closed"):
        client.recv(1)
    client.close()
    ours.close()


def test_one_that_asks_for_its_connection_later_does_so_once() -> None:
    ours, theirs = socket.socketpair()
    asked: list[ClientSocket] = []

    def fail(client: ClientSocket) -> None:
        asked.append(client)
        raise OSError("too late")

    client = ClientSocket.later(fail)
    assert "still the server's" in repr(client)
    client.close()  # leaves it to the server
    assert asked == []
    with pytest.raises(OSError, match="too late"):
        client.recv(1)
    assert asked == [client]
    asked.clear()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("call", [lambda c: c.recv(1, socket.MSG_PEEK), lambda c: c.send(b"", 1), lambda c: c.recv(-1)])
def test_what_it_cannot_do_is_refused(call: Callable[[ClientSocket], Any]) -> None:
    ours, client = pair()
    with ours, client, pytest.raises(ValueError):
        call(client)
